"""Kissing numbers, least distances and angles, all exact; the Golay code; the plane of E8's thirty-fold symmetry."""

from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest

from crystalline.errors import UserError
from crystalline.lattice import packings
from crystalline.lattice.numbers import decimal


@pytest.mark.parametrize(("name", "count", "square"), [("a2", 6, 2), ("d3", 12, 2), ("d4", 24, 2), ("e8", 240, 2)])
def test_spheres_touch_and_never_overlap(name, count, square):
    packing = packings.packing(name)
    vectors = packing.vectors.astype(np.int64)
    assert packing.kissing_number == len(np.unique(vectors, axis=0)) == count
    assert set((vectors**2).sum(axis=1)) == {square * packing.unit}
    between = [int(((a - b) ** 2).sum()) for a, b in combinations(vectors, 2)]
    assert min(between) == square * packing.unit  # the angle is at least 60 degrees, and somewhere it is 60
    # Each sees the same angles as the first one.
    table = np.sort(vectors @ vectors.T, axis=1)
    assert (table == table[0]).all()
    assert sum(packing.products().values()) == count


def test_how_many_at_which_angle():
    assert packings.packing("d3").products() == {1: 1, Fraction(1, 2): 4, 0: 2, -Fraction(1, 2): 4, -1: 1}
    assert packings.packing("e8").products() == {1: 1, Fraction(1, 2): 56, 0: 126, -Fraction(1, 2): 56, -1: 1}
    assert decimal(packings.angle(Fraction(1, 2)), 30).rstrip("0") == "60."


def test_leech():
    packing = packings.packing("leech")
    vectors = packing.vectors
    assert vectors.nbytes < 5e6
    assert packing.kissing_number == len(np.unique(vectors, axis=0)) == 196_560
    assert set((vectors.astype(np.int64) ** 2).sum(axis=1)) == {32}
    quarter, half = Fraction(1, 4), Fraction(1, 2)
    published = {1: 1, half: 4600, quarter: 47104, 0: 93150, -quarter: 47104, -half: 4600, -1: 1}
    assert packing.products() == published  # Conway & Sloane, table 4.13
    for chosen in np.random.default_rng(0).integers(0, len(vectors), 8):
        products = np.bincount(vectors.astype(np.int64) @ vectors[chosen].astype(np.int64) + 32, minlength=65)
        assert sorted(products[products > 0].tolist()) == sorted(published.values())


def test_golay_code():
    code = packings.golay_code()
    assert len(np.unique(code, axis=0)) == 4096
    weights = np.bincount(code.sum(axis=1), minlength=25)
    assert {k: n for k, n in enumerate(weights.tolist()) if n} == {0: 1, 8: 759, 12: 2576, 16: 759, 24: 1}
    some = code[np.random.default_rng(1).integers(0, 4096, (200, 2))]
    members = set(map(bytes, code))
    assert all(bytes(a ^ b) in members for a, b in some)


def test_icosahedron():
    corners = packings.icosahedron()
    table = corners @ corners.T
    assert np.allclose(np.diag(table), 1)
    assert np.allclose(np.sort(table, axis=1), [-1] + [-(5**-0.5)] * 5 + [5**-0.5] * 5 + [1])
    assert decimal(packings.icosahedron_angle(), 2) == "63.43"


@pytest.mark.parametrize(("name", "rings"), [("a2", [6]), ("d4", [12, 12]), ("e8", [30] * 8)])
def test_the_coxeter_plane_shows_the_symmetry(name, rings):
    packing = packings.packing(name)
    plane = packings.coxeter_plane(packing.roots)
    assert np.allclose(plane @ plane.T, np.eye(2))
    radius = np.linalg.norm(packing.vectors @ plane.T, axis=1)
    assert np.unique(np.round(radius, 6), return_counts=True)[1].tolist() == rings
    first = packing.roots[0] @ plane.T
    assert first[0] > 0
    assert abs(first[1]) < 1e-9


def test_an_unknown_packing_is_told():
    with pytest.raises(UserError) as error:
        packings.packing("e9")
    assert "'e8'" in error.value.fix
