"""Bijections are bijections, both ways to 10^6; arrays equal single numbers; float64 stays within its bound."""

import numpy as np
import pytest
from flint import arb

from crystalline.errors import UserError
from crystalline.lattice import spirals
from crystalline.lattice.numbers import decimal, golden_angle, working_bits

MILLION = 10**6


def test_ulam_is_a_bijection_both_ways():
    n = np.arange(1, MILLION + 1)
    points = spirals.ulam_points(n)
    assert np.array_equal(spirals.ulam_numbers(points), n)
    # A thousand by a thousand square is filled, so each place has one number.
    half = 499
    grid = np.stack(np.meshgrid(np.arange(-half, half + 1), np.arange(-half, half + 1)), axis=-1).reshape(-1, 2)
    numbers = spirals.ulam_numbers(grid)
    assert np.array_equal(np.sort(numbers), np.arange(1, len(grid) + 1))
    assert np.array_equal(spirals.ulam_points(numbers), grid)


def test_ulam_goes_in_single_steps():
    points = spirals.ulam_points(np.arange(1, 20_000))
    assert points[:10].tolist() == [
        [0, 0],
        [1, 0],
        [1, 1],
        [0, 1],
        [-1, 1],
        [-1, 0],
        [-1, -1],
        [0, -1],
        [1, -1],
        [2, -1],
    ]
    assert (abs(np.diff(points, axis=0)).sum(axis=1) == 1).all()
    n = np.arange(1, 20_000)
    layer = np.ceil((np.sqrt(n) - 1) / 2)
    assert np.array_equal(abs(points).max(axis=1), layer)


def test_ulam_of_one_number_equals_the_array_and_has_no_limit():
    edges = [k * k + d for k in (2**25 + 1, 2**30, 2**31 - 1) for d in (-1, 0, 1)]
    for n in [*range(1, 500), *edges, 2**62]:
        assert spirals.ulam_points(n).tolist() == list(spirals.ulam_point(n))
    for n in [10**50 + 7, 2**200, (2**100 + 1) ** 2, 10**1000 + 1]:
        assert spirals.ulam_number(*spirals.ulam_point(n)) == n


def test_golden_angle_is_the_rotation_by_k_pi_times_one_plus_root_five():
    assert decimal(golden_angle(), 6) == "2.399963"
    with working_bits(200):
        degrees = arb(180) * (1 + arb(5).sqrt())
        assert decimal(degrees - 360, 2) == "222.49"
        assert decimal(360 - (degrees - 360), 2) == "137.51"


@pytest.mark.parametrize(
    ("single", "batch", "most", "bound"),
    [
        (spirals.golden_point, spirals.golden_points, 2**32, lambda k: 2.0**-50),
        (spirals.archimedean_point, spirals.archimedean_points, 2**53, lambda k: 2.0**-49),
        (spirals.logarithmic_point, spirals.logarithmic_points, 14_000, lambda k: (abs(k) + 20) * 2.0**-53),
    ],
)
def test_arrays_stay_within_their_bound(single, batch, most, bound):
    k = np.concatenate([[0, 1, 2, most - 1, most], np.random.default_rng(1).integers(0, most, 300)])
    for number, point in zip(k.tolist(), batch(k).tolist(), strict=True):
        x, y = single(number, 100)
        with working_bits(200):
            radius = (x * x + y * y).sqrt()
            for true, found in zip((x, y), point, strict=True):
                assert abs(true - arb(found)) <= radius * arb(bound(number)), number


def test_radii():
    with working_bits(300):
        x, y = spirals.golden_point(144_000)
        assert (x * x + y * y).contains(144_000)
        x, y = spirals.logarithmic_point(20)
        assert (x * x + y * y).overlaps(((1 + arb(5).sqrt()) / 2) ** 4)
    inner, outer = (np.linalg.norm(spirals.archimedean_points(k)) for k in (1000, 2000))
    assert outer == pytest.approx(2 * inner)


@pytest.mark.parametrize("order", [0, 1, 2, 3, 5, 10])
def test_hilbert_is_a_bijection_in_single_steps(order):
    d = np.arange(4**order)  # order 10: a million
    points = spirals.hilbert_points(d, order)
    assert np.array_equal(spirals.hilbert_numbers(points, order), d)
    assert points.min() == 0
    assert points.max() == 2**order - 1
    assert (abs(np.diff(points, axis=0)).sum(axis=1) == 1).all()


def test_hilbert_of_one_number():
    points = spirals.hilbert_points(np.arange(4**4), 4)
    assert [spirals.hilbert_point(d, 4) for d in range(4**4)] == [tuple(point) for point in points.tolist()]
    for d in (0, 4**70 - 1, 4**69 + 12345):
        assert spirals.hilbert_number(*spirals.hilbert_point(d, 70), 70) == d


def test_torus():
    points = spirals.ulam_points(np.arange(1, 10_000))
    folded = spirals.torus_fold(points, 12)
    assert np.array_equal(folded, points % 12)
    assert folded.min() == 0
    assert folded.max() == 11


@pytest.mark.parametrize(
    "call",
    [
        lambda: spirals.ulam_point(0),
        lambda: spirals.ulam_point(-(10**5000)),
        lambda: spirals.ulam_points([5, 0]),
        lambda: spirals.ulam_points([2**62 + 1]),
        lambda: spirals.ulam_points([1.5]),
        lambda: spirals.golden_point(-1),
        lambda: spirals.golden_points([2**33]),
        lambda: spirals.torus_fold([[1, 2]], 0),
        lambda: spirals.hilbert_point(4, 1),
        lambda: spirals.hilbert_number(2, 0, 1),
        lambda: spirals.hilbert_points([0], 40),
    ],
)
def test_what_has_no_place_is_told(call):
    with pytest.raises(UserError) as error:
        call()
    assert error.value.fix
