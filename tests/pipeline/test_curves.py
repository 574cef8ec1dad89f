"""Curves: nothing that stands out is lost, axes have round numbers, and what is drawn is what was measured."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from crystalline.pipeline import curves
from crystalline.pipeline.curves import Course, Scale, chart, log_ticks, number, smooth, thin, ticks

SVG = "{http://www.w3.org/2000/svg}"


def course(y):
    return Course(np.arange(1, len(y) + 1, dtype=float), np.asarray(y, float))


def test_thinning_keeps_the_lowest_and_highest_of_every_pixel():
    rng = np.random.default_rng(0)
    y = rng.normal(size=100_000)
    y[54_321] = 99.0
    x, low, high = thin(course(y), 640)
    assert len(x) == 640
    assert (low.min(), high.max()) == (y.min(), 99.0)
    assert np.all(low <= high)
    assert np.all(np.diff(x) > 0)
    # By the definition: each value lies in the column of its step.
    column = np.minimum(np.arange(100_000) * 640 // 99_999, 639)
    assert [low[k] for k in (0, 100, 639)] == [y[column == k].min() for k in (0, 100, 639)]


def test_few_values_are_kept_as_they_are():
    x, low, high = thin(course([3, 1, 2]), 640)
    assert (x.tolist(), low.tolist(), high.tolist()) == ([1, 2, 3], [3, 1, 2], [3, 1, 2])


def test_steps_that_are_missing_leave_no_column_behind():
    x, low, _ = thin(Course(np.array([0.0, 1, 2, 1000]), np.array([1.0, 2, 3, 4])), 2)
    assert (len(x), low.tolist()) == (2, [1, 4])


def test_smoothing_is_the_mean_around_each_value():
    y = np.array([1.0, 5, 3, 8, 2, 7])
    assert smooth(y, 1).tolist() == y.tolist()
    assert smooth(y, 3) == pytest.approx([1, 3, 16 / 3, 13 / 3, 17 / 3, 7])
    assert smooth(y, 5) == pytest.approx([1, 3, 19 / 5, 25 / 5, 17 / 3, 7])
    assert smooth(np.full(1000, 4.2), 50) == pytest.approx(np.full(1000, 4.2))
    assert smooth(np.arange(1000.0), 51) == pytest.approx(np.arange(1000.0)), "a straight line stays, without lag"


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 10, [0, 2, 4, 6, 8, 10]),
        (0, 1002, [0, 200, 400, 600, 800, 1000]),
        (1.9, 2.42, [1.9, 2.0, 2.1, 2.2, 2.3, 2.4]),
        (-1, 1, [-1, -0.5, 0, 0.5, 1]),
        (5, 5, [5]),
    ],
)
def test_ticks_are_round(low, high, expected):
    assert ticks(low, high) == pytest.approx(expected)


def test_logarithmic_ticks():
    assert log_ticks(0.5, 20) == pytest.approx([0.5, 1, 2, 5, 10, 20])
    assert log_ticks(0.05, 2000) == pytest.approx([0.1, 1, 10, 100, 1000])


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.00125, "0.00125"), (12.345, "12.35"), (1250, "1,250"), (99_999, "99,999"), (100_000, "100 k"),
     (1.5e6, "1.5 M"), (2e9, "2 G"), (-3.0, "-3")],
)  # fmt: skip
def test_numbers(value, text):
    assert number(value) == text


def test_scales():
    assert Scale(0, 10, 100, 200)(np.array([0, 5, 10.0])).tolist() == [100, 150, 200]
    assert Scale(1, 100, 0, 20, logarithmic=True)(np.array([1, 10, 100.0])) == pytest.approx([0, 10, 20])
    assert np.isfinite(Scale(3, 3, 0, 10)(np.array([3.0]))).all()


def drawn(*arguments, **options):
    return ElementTree.fromstring(
        chart("x", "Loss", "nats", *arguments, **options).replace("<svg ", f'<svg xmlns="{SVG[1:-1]}" ', 1)
    )


def points(root, name):
    (path,) = (p for p in root.iter(f"{SVG}path") if p.get("class") == name)
    return [tuple(map(float, point.split())) for point in re.split("[ML]", path.get("d").rstrip("Z"))[1:]]


def test_a_chart_draws_the_values_at_their_places():
    root = drawn(course([4, 2, 3]), dots=True)
    (x1, y1), (x2, y2), (x3, y3) = points(root, "line")
    assert x3 == curves.NARROW - curves.RIGHT
    assert x1 < x2 < x3
    assert y2 > y3 > y1, "more is higher on the page"
    dots = list(root.iter(f"{SVG}circle"))
    assert [dot.find(f"{SVG}title").text for dot in dots] == ["step 1: 4 nats", "step 2: 2 nats", "step 3: 3 nats"]
    assert "from step 1 to 3: first 4, last 3, lowest 2, highest 4 nats" in root.find(f"{SVG}desc").text
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert "step" in texts
    assert "nats" in texts
    assert root.get("aria-labelledby") == "x-title x-about"


def test_values_that_are_no_numbers_are_left_out():
    root = drawn(course([4, np.nan, np.inf, 3]))
    assert len(points(root, "line")) == 2


@pytest.mark.parametrize("y", [[], [np.nan]])
def test_without_values_there_is_no_chart(y):
    assert chart("x", "Loss", "nats", course(y)) == ""


@pytest.mark.parametrize("y", [[5], [0, 0, 0], [1e-9, 1e9], [-1, 1], [7] * 50])
def test_any_values_can_be_drawn(y):
    root = drawn(course(y), window=5)
    for x, y in points(root, "line"):
        assert curves.LEFT <= x <= curves.NARROW
        assert 0 <= y <= curves.HEIGHT


def test_values_that_differ_a_hundredfold_get_a_logarithmic_axis():
    assert "norm (logarithmic)" in chart("x", "t", "norm", course([1, 10, 1000]))
    assert "logarithmic" not in chart("x", "t", "norm", course([1, 10, 50]))


def test_a_long_course_is_a_small_drawing():
    assert len(chart("x", "t", "nats", course(np.random.default_rng(0).normal(size=200_000)), window=2000)) < 40_000
