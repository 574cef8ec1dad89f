"""The nearest points of Z^n, A2, D4, E8: against every neighbour, by their second moments, and as numbers."""

import numpy as np
import pytest

from crystalline.errors import UserError
from crystalline.lattice import packings
from crystalline.lattice.nearest_point import e8_numbers, e8_points, nearest_a2, nearest_d, nearest_e8, nearest_z

A2 = np.array([[1, 0], [0.5, 3**0.5 / 2]])
EIGHT = packings.packing("e8").vectors / 2
HEXAGON = np.array([A2[0], A2[1], A2[1] - A2[0]])
# name -> decoder, dimension, what makes points uniform over whole cells, volume of a cell, neighbours, second moment.
# A2: 5/(36√3), D4: 13/(120√2), E8: 929/12960 (Conway & Sloane 1982).
LATTICES = {
    "Z": (nearest_z, 1, np.eye(1), 1.0, np.array([[1.0], [-1.0]]), 1 / 12),
    "A2": (nearest_a2, 2, A2, 3**0.5 / 2, np.concatenate([HEXAGON, -HEXAGON]), 5 / (36 * 3**0.5)),
    "D4": (nearest_d, 4, 2 * np.eye(4), 2.0, packings.packing("d4").vectors / 2, 13 / (120 * 2**0.5)),
    "E8": (nearest_e8, 8, 2 * np.eye(8), 1.0, EIGHT, 929 / 12960),
}


def in_lattice(name, points):
    if name == "A2":
        points = points @ np.linalg.inv(A2)
        return np.abs(points - np.round(points)).max() < 1e-9
    doubled = np.round(2 * points)
    whole = np.abs(2 * points - doubled).max() == 0
    if name == "E8":
        same = ((doubled % 2) == (doubled[..., :1] % 2)).all()
        return whole and same and (doubled.sum(axis=-1) % 4 == 0).all()
    return whole and (doubled % 2 == 0).all() and (name == "Z" or (doubled.sum(axis=-1) % 4 == 0).all())


@pytest.mark.parametrize("name", LATTICES)
def test_no_neighbour_is_nearer(name):
    """A point of the lattice is the nearest one if none of its neighbours is nearer: they bound its Voronoi cell."""
    nearest, n, _, _, neighbours, _ = LATTICES[name]
    x = np.random.default_rng(4).normal(scale=3, size=(3000, n))
    found = nearest(x)
    assert in_lattice(name, found)
    squared = ((x - found) ** 2).sum(axis=-1)
    around = ((x - found)[:, None] - neighbours) ** 2
    assert (squared[:, None] <= around.sum(axis=-1) + 1e-9).all()
    assert np.array_equal(nearest(found), found)
    assert np.array_equal(nearest(x.reshape(3, 1000, n)), found.reshape(3, 1000, n))


@pytest.mark.parametrize("name", LATTICES)
def test_second_moments(name):
    nearest, n, cell, volume, _, truth = LATTICES[name]
    x = np.random.default_rng(5).random((200_000, n)) @ cell
    moments = ((x - nearest(x)) ** 2).sum(axis=-1) / n / volume ** (2 / n)
    assert abs(moments.mean() - truth) < 4 * moments.std() / len(moments) ** 0.5
    assert truth == pytest.approx({"Z": 0.08333, "A2": 0.08019, "D4": 0.07660, "E8": 0.07168}[name], abs=6e-6)


def test_deep_holes_and_ties_still_give_lattice_points():
    for name, (nearest, n, *_) in LATTICES.items():
        ties = np.array([[0.5] * n, [0.25] * n, [1.0] + [0.0] * (n - 1), [-0.5] * n, [1e6 + 0.5] * n])
        assert in_lattice(name, nearest(ties)), name


def test_theta_series_of_e8_by_counting():
    norms = (e8_points().astype(np.int64) ** 2).sum(axis=1)
    assert np.bincount(norms // 8).tolist() == [1, 240, 2160, 6720, 17520, 30240]
    cubes = [sum(d**3 for d in range(1, n + 1) if n % d == 0) for n in range(1, 6)]
    assert np.bincount(norms // 8)[1:].tolist() == [240 * c for c in cubes]  # 240 σ₃(n)
    assert in_lattice("E8", e8_points() / 2)


def test_numbers_of_e8_points_there_and_back():
    points = e8_points()
    assert len(points) == 56_881
    assert np.array_equal(e8_numbers(points / 2), np.arange(len(points)))
    for norm, count in ((0, 1), (2, 241), (4, 2401), (6, 9121), (8, 26_641)):
        assert np.array_equal(e8_points(norm), points[:count])
    x = np.random.default_rng(6).normal(size=(2000, 8))
    found = nearest_e8(x)
    numbers = e8_numbers(found)
    inside = (found**2).sum(axis=1) <= 10
    assert np.array_equal(numbers >= 0, inside)
    assert np.array_equal(points[numbers[inside]] / 2, found[inside])
    assert e8_numbers([1, 0, 0, 0, 0, 0, 0, 0]) == -1  # not in the lattice


@pytest.mark.parametrize(
    "call",
    [
        lambda: nearest_e8(np.zeros((3, 7))),
        lambda: nearest_a2([1.0, 2.0, 3.0]),
        lambda: nearest_z([np.nan]),
        lambda: nearest_d([1.0, np.inf]),
        lambda: e8_points(12),
        lambda: e8_points(3),
    ],
)
def test_what_is_no_point_is_told(call):
    with pytest.raises(UserError):
        call()
