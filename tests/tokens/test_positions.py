"""Positions are exact, lead back to their tokens, and make a lattice whose reduced basis is the sunflower's."""

import math
import random
import time
from decimal import Decimal, getcontext

import numpy as np
import pytest
from flint import fmpz_mat
from test_codes import Invented

from crystalline.errors import UserError
from crystalline.tokens.codes import Factor, TokenCodes
from crystalline.tokens.positions import (
    BITS,
    OFFSET,
    ONE,
    Positions,
    UnrolledSpiral,
    golden_fraction,
    nearest_rank,
    spiral_point,
    squared_distance,
)

FIBONACCI = [1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610, 987, 1597]


@pytest.fixture(scope="module")
def positions(codes):
    return Positions(codes)


@pytest.fixture(scope="module")
def unrolled(positions):
    return UnrolledSpiral(positions)


def test_the_golden_fraction_is_exact():
    """(3 - √5)/2 to the last of 256 digits, by whole numbers: 3·2^256 - 2g is √(5·2^512) rounded."""
    g = golden_fraction()
    twice = 3 * ONE - 2 * g  # ≈ √5·2^256, off by at most 1 as g is rounded to a half
    assert (twice - 1) ** 2 < 5 * ONE * ONE < (twice + 1) ** 2
    assert g / ONE == pytest.approx(0.3819660112501051, abs=1e-16)


def cosine_and_sine(angle):
    """By their Taylor series in decimals."""
    total = [Decimal(0), Decimal(0)]
    term, n = Decimal(1), 0
    while n < 10 or abs(term) > Decimal(10) ** -110:
        total[n % 2] += term * (-1) ** (n // 2)
        n += 1
        term = term * angle / n
    return total


@pytest.mark.parametrize("rank", [1, 2, 4, 89, 12345, 1_000_003])
def test_spiral_points_agree_with_decimal_arithmetic(rank):
    """An independent computation with 120 digits gives the same whole numbers, or the other side of a half."""
    getcontext().prec = 120
    pi = Decimal(0)
    for k in range(90):  # Bailey, Borwein & Plouffe
        eight = 8 * k
        pi += (
            Decimal(4) / (eight + 1) - Decimal(2) / (eight + 4) - Decimal(1) / (eight + 5) - Decimal(1) / (eight + 6)
        ) / Decimal(16) ** k
    turns = rank * (3 - Decimal(5).sqrt()) / 2
    angle = 2 * pi * (turns - int(turns))
    for exact, part in zip(spiral_point(rank), cosine_and_sine(angle), strict=True):
        assert abs(Decimal(exact) - Decimal(rank).sqrt() * part * ONE) <= Decimal("0.5000001")


def test_every_position_leads_back_to_its_token(positions, codes):
    ids = range(codes.vocabulary_size)
    found = [positions.position(id_) for id_ in ids]
    assert len(set(found)) == len(ids)
    assert [positions.token_at(position) for position in found] == list(ids)
    for id_ in random.Random(0).sample(ids, 200):
        x, y, *offsets = found[id_]
        assert spiral_point(int(positions.ranks[id_])) == (x, y)
        assert nearest_rank(x, y) == positions.ranks[id_]
        moved = [axis.prime for axis, offset in zip(positions.axes, offsets, strict=True) if offset == OFFSET]
        assert math.prod(moved) * codes.root(id_).prime == codes.code(id_)
        assert positions.plane[id_].tolist() == [x / ONE, y / ONE]


def test_ranks_are_those_of_the_primes(positions, codes):
    from sympy import primepi

    for id_ in random.Random(1).sample(range(codes.vocabulary_size), 30):
        assert positions.ranks[id_] == primepi(codes.root(id_).prime)


def test_a_form_is_nearer_to_its_root_than_to_any_other(positions, codes):
    ranks = np.unique(positions.ranks)
    points = np.array([[value / ONE for value in spiral_point(int(rank))] for rank in ranks])
    squared = ((points[:, None] - points) ** 2).sum(axis=2) + 1e9 * np.eye(len(points))
    assert math.sqrt(squared.min()) > 1.6  # so also with the same operators away from another root
    for id_ in random.Random(2).sample(range(codes.vocabulary_size), 300):
        operators = len(codes.factors(id_)) - 1
        root = codes.family(id_)[0]
        if len(codes.factors(root)) == 1:
            assert squared_distance(positions.position(id_), positions.position(root)) == operators * OFFSET**2


def test_nearest_is_exact(positions):
    """Against whole numbers for every token: near tokens, far away, between two, and on a tie."""
    rng = random.Random(3)
    size = len(positions.ranks)
    everyone = [positions.position(id_) for id_ in range(size)]
    points = [everyone[id_] for id_ in rng.sample(range(size), 8)]
    points += [tuple(c + rng.randrange(-ONE, ONE) for c in everyone[rng.randrange(size)]) for _ in range(8)]
    points += [tuple(rng.randrange(-90 * ONE, 90 * ONE) for _ in everyone[0])]
    points += [tuple((a + b) // 2 for a, b in zip(everyone[900], everyone[1800], strict=True))]
    points += [(0,) * len(everyone[0]), (10**40 * ONE, *everyone[0][1:])]
    for point in points:
        order = sorted(range(size), key=lambda id_: (squared_distance(everyone[id_], point), id_))
        for k in (1, 7):
            assert positions.nearest(point, k) == order[:k]
    assert len(positions.nearest(points[0], 10**6)) == size


def test_the_reduced_basis_is_of_the_same_lattice_and_reduced(unrolled):
    assert abs(int(unrolled.transform.det())) == 1
    assert unrolled.transform * unrolled.basis == unrolled.reduced
    assert unrolled.basis.hnf() == unrolled.reduced.hnf()  # the same lattice, by another road
    # In the plane it is reduced in Lagrange's sense (to LLL's 0.51 instead of 0.5); the operators are upright to it.
    plane = [row for row in unrolled.reduced.tolist() if any(row[:2])]
    assert len(plane) == 2
    (a, b), (c, d) = ((int(row[0]), int(row[1])) for row in plane)
    assert 100 * abs(a * c + b * d) <= 51 * min(a * a + b * b, c * c + d * d)
    others = sorted([int(x) for x in row] for row in unrolled.reduced.tolist() if not any(row[:2]))
    assert all(sorted(map(abs, row))[-2:] == [0, OFFSET] for row in others)


@pytest.mark.parametrize("rank", [20, 100, 777, 3000, 8192, 40_000, 100_000])
def test_the_reduced_basis_is_the_arms_of_the_sunflower(positions, rank):
    """The two short vectors lead to ranks that differ by neighbouring Fibonacci numbers (Jean 1994, Phyllotaxis)."""
    unrolled = UnrolledSpiral(positions, rank)
    plane = [i for i, row in enumerate(unrolled.reduced.tolist()) if any(row[:2])]
    steps = sorted(abs(int(unrolled.transform[i, 1])) for i in plane)
    at = FIBONACCI.index(steps[0])
    assert steps[1] == FIBONACCI[at + 1]
    # And it is what stands next to a seed there: a token's nearest seeds are so many ranks away.
    x, y = spiral_point(rank)
    near = sorted(range(1, 1000), key=lambda step: squared_distance(spiral_point(rank + step), (x, y)))
    assert set(near[:1]) <= {FIBONACCI[at - 1], *steps, FIBONACCI[at + 2]}


def test_reduced_coordinates_lead_back(unrolled, positions):
    ids = list(range(len(positions.ranks)))
    coordinates = unrolled.reduced_coordinates(ids)
    assert unrolled.tokens_at(coordinates) == ids
    vectors = fmpz_mat(coordinates) * unrolled.reduced  # both bases speak of the same points
    assert vectors == fmpz_mat(unrolled.coordinates(ids)) * unrolled.basis
    turn = int(unrolled.basis[0, 0])
    for row in vectors.tolist()[::50]:
        assert 0 <= int(row[0]) < turn  # within one turn
    assert unrolled.reduced_coordinates([]) == unrolled.tokens_at([]) == []


def test_what_is_no_position_is_told(positions, unrolled):
    x, y, *offsets = positions.position(500)
    wrong = [
        (x + 1, y, *offsets),
        (x, y, *offsets, 0),
        (x, y, 1, *offsets[1:]),
        (0, 0, *offsets),
        (x, y, *[OFFSET] * len(offsets)),  # a root with all operators is no token
        (10**90, 10**90, *offsets),
        (),
    ]
    for position in wrong:
        with pytest.raises(UserError, match="no token"):
            positions.token_at(position)
    (coordinates,) = unrolled.reduced_coordinates([500])
    for change in range(len(coordinates)):
        shifted = [c + 10**9 * (i == change) for i, c in enumerate(coordinates)]
        with pytest.raises(UserError, match="no token"):
            unrolled.tokens_at([shifted])
    for k in (0, -3):
        with pytest.raises(UserError, match=f"{k} neighbours"):
            positions.nearest(positions.position(1), k)
    with pytest.raises(UserError, match="1 coordinates"):
        positions.nearest([5])


def test_sixteen_thousand_tokens_are_quickly_laid_out():
    """The promise is 1,000 laid out in 1 s and reduced in 5 s; this is sixteen times as many in that time."""
    codes = TokenCodes.build(Invented(16384))
    began = time.process_time()
    positions = Positions(codes)
    assert positions.plane.shape == (16384, 2)
    laid_out = time.process_time() - began
    coordinates = UnrolledSpiral(positions).reduced_coordinates(range(16384))
    assert len(coordinates) == 16384
    assert laid_out < 1
    assert time.process_time() - began < 5


def test_a_prime_beyond_all_vocabularies_is_told(codes):
    """Such a file of codes is no good, and must not take gigabytes to find out."""
    last = codes.all_factors[-1]
    for prime in (10**9 + 7, 2**89 - 1):
        strange = TokenCodes(
            [Factor(2, "space", " "), Factor(3, "root", "a"), Factor(prime, "root", "b")], [3, prime]
        )
        with pytest.raises(UserError, match=str(prime)):
            Positions(strange)
    assert last.prime < 10**6


def test_digits():
    assert BITS == 256
    assert 2**BITS == ONE == 4 * OFFSET
