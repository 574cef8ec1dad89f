"""Bases of lattices: exact Gram-Schmidt, LLL reduction, and the checks that prove a result.

A basis is given by its rows, which are independent vectors of whole numbers or fractions. FLINT does the reduction
(floating point with proved error bounds, Nguyen & Stehlé 2009 and its successors) and the exact linear algebra. What
is checked is checked in whole numbers, so that a result is right whatever was rounded on the way.

Words and notation as in Nguyen & Vallée (eds.), "The LLL Algorithm" (2010), and Cohen, "A Course in Computational
Algebraic Number Theory", 2.6.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

from flint import arb, fmpq, fmpz, fmpz_mat, nmod_mat

from crystalline.errors import UserError
from crystalline.lattice.numbers import BITS, certified, decimal_digits

Vector = Sequence[int | Fraction]

MOST_DIMENSIONS = 400
MOST_DIGITS = 10**6  # of all numbers of a matrix together
# A reduction of n vectors with numbers of L digits takes about n⁴ L (L + n) units of time: so many are some minutes.
MOST_WORK = 1.1e13
DELTA = Fraction(99, 100)
MOST_DELTA = Fraction(999, 1000)
# FLINT is asked for a little more than is promised: size reduction is then finished exactly, which can lower |μ| from
# 0.5001 to 0.4999, and the Lovász condition by twice that.
_ETA = 0.5001
_MORE = 0.0005
_PRIME = 2**61 - 1


class Basis:
    """Independent rows, as whole numbers over one denominator: vector i is rows[i] / scale.

    Raises UserError when the rows are no basis: of unequal length, dependent, none at all, or too many.
    """

    def __init__(self, vectors: Sequence[Vector]) -> None:
        _refuse_unfit(vectors)
        scale = fmpz(1)
        for denominator in {value.denominator for vector in vectors for value in vector}:
            scale = scale.lcm(fmpz(denominator))
            _refuse_long(decimal_digits(int(scale)) if scale > 1 else 0, len(vectors) * len(vectors[0]))
        self.scale = int(scale)
        self.rows = [[value.numerator * (self.scale // value.denominator) for value in vector] for vector in vectors]
        _refuse_long(sum(decimal_digits(value) for row in self.rows for value in row))
        dependent = dependent_rows(self.rows)
        if dependent:
            names = ", ".join(str(row + 1) for row in dependent[:10]) + (", ..." if len(dependent) > 10 else "")
            raise UserError(
                "these vectors are no basis",
                f"row{'s' if len(dependent) > 1 else ''} {names} of {len(vectors)} "
                f"{'are' if len(dependent) > 1 else 'is'} zero or a combination of rows before",
                "leave out the dependent rows",
            )

    def changed(self, rows: fmpz_mat) -> Basis:
        """Another basis of the same lattice, which is not looked at again: whole rows over the same scale."""
        other = Basis.__new__(Basis)
        other.scale, other.rows = self.scale, _table(rows)
        return other

    @property
    def rank(self) -> int:
        """How many vectors."""
        return len(self.rows)

    @property
    def dimension(self) -> int:
        """How many coordinates each has."""
        return len(self.rows[0])

    @cached_property
    def matrix(self) -> fmpz_mat:
        """The rows, for FLINT."""
        return fmpz_mat(self.rows)

    @cached_property
    def vectors(self) -> list[list[Fraction]]:
        """The rows over the scale."""
        return [[Fraction(value, self.scale) for value in row] for row in self.rows]

    @cached_property
    def gram_schmidt(self) -> GramSchmidt:
        """Of the rows, not of the vectors."""
        return GramSchmidt.of_rows(self.matrix)

    @cached_property
    def squared_lengths(self) -> list[Fraction]:
        """‖b_i‖² of each vector."""
        return [Fraction(sum(value * value for value in row), self.scale**2) for row in self.rows]

    @cached_property
    def squared_determinant(self) -> Fraction:
        """The square of the volume of the lattice's cell, det(B Bᵀ)."""
        square = self.rank == self.dimension  # the shorter way
        whole = self.matrix.det() ** 2 if square else (self.matrix * self.matrix.transpose()).det()
        return Fraction(int(whole), self.scale ** (2 * self.rank))

    def hermite_factor(self, bits: int = BITS) -> arb:
        """‖b_1‖ / det^(1/n): how short the first vector is for the volume, whatever the unit."""
        square, determinant = self.squared_lengths[0], self.squared_determinant
        return certified(lambda: _real(square).sqrt() / _real(determinant).root(2 * self.rank), bits)

    def orthogonality_defect(self, bits: int = BITS) -> arb:
        """The product of the lengths over the volume: 1 for an orthogonal basis, more for any other."""
        product = math.prod(self.squared_lengths, start=Fraction(1))
        return certified(lambda: _real(product / self.squared_determinant).sqrt(), bits)


@dataclass(frozen=True)
class GramSchmidt:
    """The orthogonalisation b*_i = b_i - Σ_j<i μ_ij b*_j, in whole numbers.

    minors: d_0 = 1, ..., d_n, the leading principal minors of the Gram matrix; ‖b*_i‖² = d_(i+1) / d_i.
    products: λ_ij for j <= i; μ_ij = λ_ij / d_(j+1), and λ_ii = d_(i+1).
    """

    minors: list[int]
    products: list[list[int]]

    @classmethod
    def of_rows(cls, rows: fmpz_mat | list[list[int]]) -> GramSchmidt:
        """Of rows that are independent; only the last may depend on the others."""
        matrix = fmpz_mat(rows)
        gram = matrix * matrix.transpose()
        # Fraction-free elimination of a Gram matrix leaves the λ themselves, and needs no exchange of rows.
        table = gram.fflu()[3].tolist()
        products = [[int(table[j][i]) for j in range(i + 1)] for i in range(len(table))]
        return cls([1, *(row[-1] for row in products)], products)

    def mu(self, i: int, j: int) -> Fraction:
        """μ_ij, for j <= i."""
        return Fraction(self.products[i][j], self.minors[j + 1])

    def squared_norm(self, i: int) -> Fraction:
        """‖b*_i‖²."""
        return Fraction(self.minors[i + 1], self.minors[i])


def is_size_reduced(gso: GramSchmidt) -> bool:
    """|μ_ij| <= 1/2 for all j < i, exactly."""
    return all(2 * abs(value) <= gso.minors[j + 1] for row in gso.products for j, value in enumerate(row[:-1]))


def satisfies_lovasz(gso: GramSchmidt, delta: Fraction = DELTA) -> bool:
    """‖b*_i‖² >= (δ - μ²_(i,i-1)) ‖b*_(i-1)‖² for all i > 0, exactly."""
    d, p, q = gso.minors, delta.numerator, delta.denominator
    # Times d_i d_(i-1): d_(i+1) d_(i-1) >= δ d_i² - λ².
    return all(q * (d[i + 1] * d[i - 1] + gso.products[i][i - 1] ** 2) >= p * d[i] ** 2 for i in range(1, len(d) - 1))


@dataclass(frozen=True)
class Reduced:
    """An LLL-reduced basis, and the unimodular matrix that leads to it: transform · before = after, row by row."""

    basis: Basis
    transform: list[list[int]]

    def inverse(self) -> list[list[int]]:
        """The matrix that leads back; it is unimodular too."""
        # Not inv(integer=True): python-flint 0.9 gives it the wrong sign where the determinant is -1.
        return [[int(value.p) for value in row] for row in fmpz_mat(self.transform).inv().tolist()]


def lll(basis: Basis, delta: Fraction = DELTA) -> Reduced:
    """Reduce a basis: |μ_ij| <= 1/2 and Lovász's condition for `delta` hold exactly (Lenstra, Lenstra & Lovász 1982).

    delta: more than 1/4, at most 0.999; the nearer to 1, the shorter the vectors. The result is the same each time.
    """
    if not Fraction(1, 4) < delta <= MOST_DELTA:
        raise UserError(
            f"could not reduce with delta {float(delta):g}", "it is not above 0.25 and at most 0.999", "use 0.99"
        )
    _refuse_work(basis)
    rows, transform = basis.matrix.lll(True, float(delta) + _MORE, _ETA)
    found = basis.changed(rows)
    if not is_size_reduced(found.gram_schmidt):
        steps = size_reduction(found.gram_schmidt)
        found, transform = basis.changed(steps * rows), steps * transform
    if not (is_size_reduced(found.gram_schmidt) and satisfies_lovasz(found.gram_schmidt, delta)):
        raise ArithmeticError("FLINT's reduction is not what it promises")
    # That of the lattice, so of both; and sooner computed from shorter numbers.
    found.squared_determinant = Fraction(found.gram_schmidt.minors[-1], basis.scale ** (2 * basis.rank))
    basis.squared_determinant = found.squared_determinant
    return Reduced(found, _table(transform))


def size_reduction(gso: GramSchmidt) -> fmpz_mat:
    """The matrix that makes all |μ_ij| at most ½: it takes multiples of earlier rows from later ones; b*_i stay."""
    d, n = gso.minors, len(gso.products)
    steps = fmpz_mat(n, n, [0] * n**2)
    done: list[list[int]] = []  # the λ of finished rows
    for i, row in enumerate(gso.products):
        steps[i, i] = 1
        for j in range(i - 1, -1, -1):
            if 2 * abs(row[j]) > d[j + 1]:
                times = (2 * row[j] + d[j + 1]) // (2 * d[j + 1])
                row = [a - times * b for a, b in zip(row, done[j], strict=False)] + row[j + 1 :]
                for k in range(j + 1):
                    steps[i, k] -= times * steps[j, k]
        done.append(row)
    return steps


def dependent_rows(rows: Sequence[Sequence[int]]) -> list[int]:
    """The numbers, from 0, of the rows that are combinations of rows before them."""
    matrix = fmpz_mat([list(row) for row in rows])
    if nmod_mat(matrix, _PRIME).rank() == len(rows):  # the quick way; what is dependent is so modulo a prime too
        return []
    reduced, _, rank = matrix.transpose().rref()
    if rank == len(rows):
        return []
    pivots = {next(k for k in range(len(rows)) if reduced[i, k] != 0) for i in range(rank)}
    return [k for k in range(len(rows)) if k not in pivots]


def _refuse_unfit(vectors: Sequence[Vector]) -> None:
    if not vectors or not vectors[0]:
        raise UserError("there is no matrix", "it has no numbers", "give one row of numbers for each vector")
    for number, vector in enumerate(vectors, start=1):
        if len(vector) != len(vectors[0]):
            raise UserError(
                "this is no matrix",
                f"row {number} has length {len(vector)}, the first row {len(vectors[0])}",
                "give every row as many numbers",
            )
    if max(len(vectors), len(vectors[0])) > MOST_DIMENSIONS:
        raise UserError(
            "this matrix is too large",
            f"it has {len(vectors)} rows of {len(vectors[0])}; at most {MOST_DIMENSIONS} are taken",
            "use fewer dimensions",
        )


def _refuse_long(digits: int, times: int = 1) -> None:
    if digits * times > MOST_DIGITS:
        raise UserError(
            "this matrix is too large",
            f"written over one denominator it has some {digits * times:,} digits; {MOST_DIGITS:,} are taken",
            "use fewer or shorter numbers",
        )


def _refuse_work(basis: Basis) -> None:
    lengths = [decimal_digits(value) for row in basis.rows for value in row]
    # Between the longest and the mean: often only one column has long numbers.
    digits = math.sqrt(max(lengths) * sum(lengths) / len(lengths))
    if basis.rank**4 * digits * (digits + basis.rank) > MOST_WORK:
        raise UserError(
            "could not reduce this basis",
            f"{basis.rank} vectors with numbers of up to {max(lengths):,} digits can take hours",
            "use fewer vectors or shorter numbers",
        )


def _real(x: Fraction) -> arb:
    return arb(fmpq(x.numerator, x.denominator))


def _table(matrix: fmpz_mat) -> list[list[int]]:
    return [[int(value) for value in row] for row in matrix.tolist()]
