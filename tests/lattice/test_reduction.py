"""LLL: the conditions hold exactly, the lattice stays the same, and FLINT's own result is no shorter."""

import math
import random
from fractions import Fraction

import pytest
from flint import fmpz_mat
from hypothesis import given, settings
from hypothesis import strategies as st
from timing import least

from crystalline.errors import UserError
from crystalline.lattice import reduction
from crystalline.lattice.numbers import decimal
from crystalline.lattice.reduction import DELTA, Basis, GramSchmidt, lll

HALF = Fraction(1, 2)


def naive_gram_schmidt(rows):
    """(‖b*_i‖², μ) by the definition, in fractions."""
    stars, mus = [], []
    for row in rows:
        star, mu = [Fraction(value) for value in row], []
        for other in stars:
            mu.append(sum(a * b for a, b in zip(row, other, strict=True)) / sum(b * b for b in other))
            star = [a - mu[-1] * b for a, b in zip(star, other, strict=True)]
        stars.append(star)
        mus.append(mu)
    return [sum(a * a for a in star) for star in stars], mus


def knapsack(n, bits, seed):
    draw = random.Random(seed)
    return [[draw.getrandbits(bits)] + [int(i == j) for j in range(n)] for i in range(n)]


def q_ary(n, q, seed):
    draw = random.Random(seed)
    half = n // 2
    rows = [[q * int(i == j) for j in range(n)] for i in range(half)]
    return rows + [
        [draw.randrange(q) for _ in range(half)] + [int(i == j) for j in range(n - half)] for i in range(n - half)
    ]


BASES = {
    "q-ary 40": q_ary(40, 3329, 1),
    "knapsack 40": knapsack(40, 200, 2),
    "knapsack 12": knapsack(12, 60, 3),
    "one vector": [[6, -4, 10]],
    "identity": [[int(i == j) for j in range(9)] for i in range(9)],
    "fractions": [[Fraction(k * k + i, k + 1) for k in range(5)] for i in (0, 3, 7)][:2],
}


def independent(rows):
    return not reduction.dependent_rows(rows)


MATRICES = (
    st.integers(1, 6)
    .flatmap(
        lambda n: st.lists(st.lists(st.integers(-(10**6), 10**6), min_size=n, max_size=n), min_size=1, max_size=n)
    )
    .filter(independent)
)


def check(basis, delta):
    """Everything that is promised of a reduced basis, by the definition."""
    found = lll(basis, delta)
    rows, transform = fmpz_mat(found.basis.rows), fmpz_mat(found.transform)
    assert found.basis.scale == basis.scale
    assert transform * basis.matrix == rows
    assert abs(int(transform.det())) == 1
    assert fmpz_mat(found.inverse()) * rows == basis.matrix
    assert rows.hnf() == basis.matrix.hnf()
    norms, mus = naive_gram_schmidt(found.basis.rows)
    assert all(abs(value) <= HALF for mu in mus for value in mu)
    assert all(norms[i] >= (delta - mus[i][i - 1] ** 2) * norms[i - 1] for i in range(1, len(norms)))
    assert reduction.is_size_reduced(found.basis.gram_schmidt)
    assert reduction.satisfies_lovasz(found.basis.gram_schmidt, delta)
    # The first vector's bound, to the power 2n: ‖b_1‖^2n <= (1 / (δ - 1/4))^(n (n - 1) / 2) det².
    n = basis.rank
    bound = (1 / (delta - Fraction(1, 4))) ** (n * (n - 1) // 2) * basis.squared_determinant
    assert found.basis.squared_lengths[0] ** n <= bound
    assert found.basis.squared_determinant == basis.squared_determinant
    return found


@pytest.mark.parametrize("name", BASES)
def test_reduced_exactly(name):
    basis = Basis(BASES[name])
    found = check(basis, DELTA)
    if name in ("q-ary 40", "knapsack 40"):
        theirs = basis.matrix.lll(delta=0.99)
        gram = theirs * theirs.transpose()
        assert int(gram.det()) == found.basis.gram_schmidt.minors[-1]
        assert found.basis.squared_lengths[0] <= 4 * int(gram[0, 0])  # as short, but for luck
    assert check(basis, DELTA).transform == found.transform


@settings(max_examples=60, deadline=None)
@given(rows=MATRICES, delta=st.sampled_from([Fraction(3, 10), Fraction(3, 4), DELTA, Fraction(999, 1000)]))
def test_any_basis_is_reduced_exactly(rows, delta):
    check(Basis(rows), delta)


@settings(max_examples=40, deadline=None)
@given(rows=MATRICES)
def test_gram_schmidt_equals_its_definition(rows):
    gso = Basis(rows).gram_schmidt
    norms, mus = naive_gram_schmidt(rows)
    assert [gso.squared_norm(i) for i in range(len(rows))] == norms
    assert [[gso.mu(i, j) for j in range(i)] for i in range(len(rows))] == mus


def test_size_reduction_is_finished_exactly():
    """Multiples that FLINT's 0.5001 may leave are taken out, also where one makes another necessary."""
    rows = fmpz_mat([[1000, 0, 0], [501, 1000, 0], [499, 501, 1000]])
    steps = reduction.size_reduction(GramSchmidt.of_rows(rows))
    reduced = steps * rows
    assert abs(int(steps.det())) == 1
    assert reduction.is_size_reduced(GramSchmidt.of_rows(reduced))
    assert not reduction.is_size_reduced(GramSchmidt.of_rows(rows))
    assert GramSchmidt.of_rows(reduced).minors == GramSchmidt.of_rows(rows).minors


def test_the_checks_see_what_is_not_reduced():
    assert not reduction.is_size_reduced(GramSchmidt.of_rows([[2, 0], [1001, 2000]]))
    assert reduction.is_size_reduced(GramSchmidt.of_rows([[2, 0], [1, 2]]))  # |μ| is exactly 1/2
    assert not reduction.satisfies_lovasz(GramSchmidt.of_rows([[100, 0], [50, 1]]))
    exactly = GramSchmidt.of_rows([[10, 0], [0, 9]])  # ‖b*_2‖² is 0.81 of ‖b*_1‖²
    assert reduction.satisfies_lovasz(exactly, Fraction(81, 100))
    assert not reduction.satisfies_lovasz(exactly, Fraction(81, 100) + Fraction(1, 10**30))


def test_measures():
    basis = Basis([[3, 0], [1, 2]])
    assert decimal(basis.hermite_factor(), 12) == f"{3 / math.sqrt(6):.12f}"
    assert decimal(basis.orthogonality_defect(), 12) == f"{3 * math.sqrt(5) / 6:.12f}"
    assert decimal(Basis([[2, 0], [0, 2]]).hermite_factor(), 5) == "1.00000"
    assert Basis([[Fraction(1, 2), 0], [0, Fraction(1, 3)]]).squared_determinant == Fraction(1, 36)


def test_as_fast_as_the_library():
    basis = Basis(knapsack(60, 100, 5))

    # About 1.4 times, with the exact checks.
    assert least(lambda: lll(basis)) < 5 * least(lambda: basis.matrix.lll(transform=True))


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "no numbers"),
        ([[]], "no numbers"),
        ([[1, 2], [3]], "row 2 has length 1"),
        ([[0, 0]], "row 1 of 1 is zero"),
        ([[1, 2], [2, 4], [0, 1], [5, 5]], "rows 2, 4 of 4 are"),
        ([[1, 0], [0, 1], [1, 1]], "row 3 of 3"),
        ([[1] * 401], "at most 400"),
        ([[10**600_000, 1], [1, 10**600_000]], "digits"),
        ([[Fraction(1, 10**90_000 + k) for k in range(4)]] * 4, "digits"),
        ([[Fraction(1, 2 + k + 60 * i) for k in range(60)] for i in range(60)], "digits"),
    ],
)
def test_what_is_no_basis_is_told(rows, words):
    with pytest.raises(UserError) as error:
        Basis(rows)
    assert words in str(error.value)


def test_what_would_take_hours_is_refused():
    draw = random.Random(1)
    basis = Basis([[draw.randrange(1000) for _ in range(400)] for _ in range(400)])
    with pytest.raises(UserError) as error:
        lll(basis)
    assert "hours" in error.value.why


@pytest.mark.parametrize("delta", [Fraction(1, 4), Fraction(1), Fraction(0), Fraction(2)])
def test_delta_has_limits(delta):
    with pytest.raises(UserError):
        lll(Basis([[1, 0], [0, 1]]), delta)
