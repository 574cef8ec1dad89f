"""Closest and shortest vectors against brute force and against lattices whose answers are published."""

import random
from fractions import Fraction

import numpy as np
import pytest

from crystalline.errors import UserError
from crystalline.lattice import packings
from crystalline.lattice.enumeration import closest_vector, nearest_plane, short_vectors, shortest_vector
from crystalline.lattice.nearest_point import nearest_e8
from crystalline.lattice.reduction import Basis, dependent_rows, lll


def random_basis(draw, n, m, size=9):
    while True:
        rows = [[draw.randint(-size, size) for _ in range(m)] for _ in range(n)]
        if not dependent_rows(rows):
            return Basis(rows)


def brute_force(basis, target, nonzero=False):
    """The least squared distance, with as many coefficients of the reduced basis as can matter.

    A coefficient of the best vector differs from that of the target by at most ‖dual vector‖ · distance in the span,
    and the nearest plane tells a distance that is large enough.
    """
    reduced = lll(basis).basis
    rows = np.array([[float(value) for value in row] for row in reduced.vectors])
    if nonzero:
        reach = float(min(reduced.squared_lengths)) ** 0.5
        middle = np.zeros(len(rows))
    else:
        middle = np.linalg.lstsq(rows.T, np.array([float(value) for value in target]), rcond=None)[0]
        outside = ((middle @ rows - [float(value) for value in target]) ** 2).sum()
        reach = max(0.0, float(nearest_plane(reduced, target).squared_distance) - outside) ** 0.5
    dual = np.linalg.norm(np.linalg.pinv(rows), axis=0)
    ranges = [range(int(np.floor(m - d * reach - 1e-6)), int(np.ceil(m + d * reach + 1e-6)) + 1)
              for m, d in zip(middle, dual, strict=True)]  # fmt: skip
    scale = int(np.lcm.reduce([reduced.scale, *(Fraction(value).denominator for value in target)]))
    whole = np.array(reduced.rows, dtype=np.int64) * (scale // reduced.scale)
    goal = np.array([int(value * scale) for value in target], dtype=np.int64)
    choices = np.stack(np.meshgrid(*[np.arange(r.start, r.stop) for r in ranges], indexing="ij"), axis=-1)
    choices = choices.reshape(-1, len(ranges))
    if nonzero:
        choices = choices[choices.any(axis=1)]
    return Fraction(int((((choices @ whole) - goal) ** 2).sum(axis=1).min()), scale**2)


def combine(basis, coefficients):
    return [
        sum(c * row[k] for c, row in zip(coefficients, basis.vectors, strict=True)) for k in range(basis.dimension)
    ]


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6])
def test_equals_brute_force(n):
    draw = random.Random(n)
    for trial in range(30):
        basis = random_basis(draw, n, n + trial % 3)
        target = [Fraction(draw.randint(-300, 300), draw.choice((1, 2, 3, 7))) for _ in range(basis.dimension)]
        found = closest_vector(basis, target)
        assert found.squared_distance == brute_force(basis, target)
        assert found.vector == combine(basis, found.coefficients)
        assert found.squared_distance == sum((a - b) ** 2 for a, b in zip(found.vector, target, strict=True))
        short = shortest_vector(basis)
        assert short.squared_distance == brute_force(basis, [0] * basis.dimension, nonzero=True)
        assert short.vector == combine(basis, short.coefficients)
        assert any(short.coefficients)


def test_nearest_plane_keeps_its_bound():
    draw = random.Random(7)
    for _ in range(40):
        n = draw.randint(1, 8)
        basis = random_basis(draw, n, n)
        target = [Fraction(draw.randint(-999, 999), 10) for _ in range(n)]
        found = nearest_plane(basis, target)
        bound = sum((basis.gram_schmidt.squared_norm(i) for i in range(n)), start=Fraction(0)) / 4
        assert found.squared_distance <= bound
        assert found.vector == combine(basis, found.coefficients)
        assert closest_vector(basis, target).squared_distance <= found.squared_distance


def test_vectors_of_the_lattice_are_their_own_nearest():
    basis = random_basis(random.Random(1), 8, 10, 99)
    vector = combine(basis, [3, -1, 4, 1, -5, 9, -2, 6])
    found = closest_vector(basis, vector)
    assert (found.vector, found.squared_distance) == (vector, 0)
    assert found.coefficients == [3, -1, 4, 1, -5, 9, -2, 6]


def e8():
    roots = packings.packing("e8").roots.tolist()
    return Basis([[Fraction(value, 2) for value in root] for root in roots])


@pytest.mark.parametrize(("name", "count"), [("a2", 6), ("d3", 12), ("d4", 24), ("e8", 240)])
def test_kissing_numbers(name, count):
    packing = packings.packing(name)
    rows = packing.vectors.tolist()
    chosen = []  # the lattice is spanned by its shortest vectors; D4's roots here are those of F4
    for row in rows:
        if not dependent_rows([*chosen, row]):
            chosen.append(row)
    if name in ("d4", "e8"):
        chosen = (
            packing.roots.tolist() if name == "e8" else [[2, -2, 0, 0], [0, 2, -2, 0], [0, 0, 2, -2], [0, 0, 2, 2]]
        )
    square = packing.squared_length * packing.unit
    found = short_vectors(Basis(chosen), square)
    listed = {tuple(int(value) for value in one.vector) for one in found}
    assert 2 * len(listed) == count == packing.kissing_number
    assert listed | {tuple(-value for value in vector) for vector in listed} == set(map(tuple, rows))
    assert shortest_vector(Basis(chosen)).squared_distance == square


def test_theta_series_of_e8_by_enumeration():
    found = short_vectors(e8(), 6)
    counts = {norm: 2 * sum(one.squared_distance == norm for one in found) for norm in range(1, 7)}
    assert counts == {1: 0, 2: 240, 3: 0, 4: 2160, 5: 0, 6: 6720}
    assert [one.squared_distance for one in found] == sorted(one.squared_distance for one in found)


def test_closest_in_e8_equals_the_decoder():
    basis, draw = e8(), np.random.default_rng(2)
    for x in draw.normal(size=(30, 8)).round(3):
        target = [Fraction(str(value)) for value in x]
        decoded = [Fraction(value) for value in nearest_e8(x)]
        distance = sum((a - b) ** 2 for a, b in zip(decoded, target, strict=True))
        assert closest_vector(basis, target).squared_distance == distance


def test_the_leech_lattice_has_minimum_4():
    rows = []
    for vector in packings.packing("leech").vectors[::997].tolist():
        if not dependent_rows([*rows, vector]):
            rows.append(vector)
    basis = Basis(rows)
    assert basis.rank == 24
    assert shortest_vector(basis, 100_000).squared_distance == 32


def test_enumeration_has_a_limit_of_steps():
    draw = random.Random(3)
    basis = Basis([[draw.getrandbits(400)] + [int(i == j) for j in range(70)] for i in range(70)])
    for call in (shortest_vector, lambda b, n: closest_vector(b, [draw.getrandbits(400)] + [0] * 70, n)):
        with pytest.raises(UserError) as error:
            call(basis, 2000)
        assert "2,000 steps" in str(error.value)


def test_a_target_of_another_dimension_is_told():
    with pytest.raises(UserError) as error:
        closest_vector(Basis([[1, 0], [0, 1]]), [1, 2, 3])
    assert "length 3" in str(error.value)
