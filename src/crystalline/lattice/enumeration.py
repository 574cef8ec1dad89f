"""The closest and the shortest vector of a lattice, exactly: enumeration after Schnorr & Euchner (1994).

The vectors of a lattice are looked through coefficient by coefficient, from the last Gram-Schmidt direction to the
first, nearest first; what is already farther than the best vector is cut off. Distances that decide a cut are whole
numbers, rounded down, so nothing nearer is ever cut; what is kept is compared exactly. Time grows faster than
exponentially with the dimension, so the number of steps has a limit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from flint import fmpz_mat

from crystalline.errors import UserError
from crystalline.lattice.reduction import Basis, GramSchmidt, Vector, lll

MOST_STEPS = 1_000_000  # takes seconds
_GUARD = 32  # bits after the binary point of the sums that decide a cut


@dataclass(frozen=True)
class Found:
    """A vector of the lattice.

    vector: its coordinates. coefficients: in the basis that was given, vector = Σ coefficients[i] b_i.
    squared_distance: from the target; of a short vector its squared length. steps: of the enumeration.
    """

    vector: list[Fraction]
    coefficients: list[int]
    squared_distance: Fraction
    steps: int = 0


def nearest_plane(basis: Basis, target: Vector) -> Found:
    """A vector near `target` (Babai 1986): at most ½ √(Σ ‖b*_i‖²) away from it, or from its part in the span.

    The better the basis is reduced, the nearer.
    """
    rows, goal = _whole(basis, target)
    return _found(basis, _plane(GramSchmidt.of_rows([*rows, goal])), target)


def closest_vector(basis: Basis, target: Vector, most_steps: int = MOST_STEPS) -> Found:
    """The vector nearest to `target`; of several the one that is found first, the same each time.

    Raises UserError when that takes more than `most_steps` steps.
    """
    reduced = lll(basis)
    rows, goal = _whole(reduced.basis, target)
    search = _Search(rows, goal, most_steps)
    best = _plane(search.gso)
    search.bound = search.squared_distance(best) - 1
    for best in search.run():
        search.bound = search.squared_distance(best) - 1
    return _found(basis, _back(best, reduced.transform), target, search.steps)


def shortest_vector(basis: Basis, most_steps: int = MOST_STEPS) -> Found:
    """A vector of least length that is not zero; of several the one that is found first, the same each time.

    Raises UserError when that takes more than `most_steps` steps.
    """
    reduced = lll(basis)
    zero = [0] * basis.dimension
    search = _Search(reduced.basis.rows, zero, most_steps)
    units = [[int(k == i) for k in range(basis.rank)] for i in range(basis.rank)]
    best = min(units, key=search.squared_distance)
    search.bound = search.squared_distance(best) - 1
    for best in search.run():
        search.bound = search.squared_distance(best) - 1
    return _found(basis, _back(best, reduced.transform), zero, search.steps)


def short_vectors(basis: Basis, squared_length: int | Fraction, most_steps: int = MOST_STEPS) -> list[Found]:
    """All vectors that are not zero and at most so long, one of each pair v, -v; the shortest first.

    Fincke & Pohst 1985. Raises UserError when that takes more than `most_steps` steps.
    """
    reduced = lll(basis)
    zero = [0] * basis.dimension
    search = _Search(reduced.basis.rows, zero, most_steps)
    search.bound = math.floor(squared_length * basis.scale**2)
    found = [_found(basis, _back(coefficients, reduced.transform), zero) for coefficients in search.run()]
    return sorted(found, key=lambda one: (one.squared_distance, one.vector))


class _Search:
    """All whole x with ‖target - Σ x_i rows_i‖² <= bound; where the target is zero one of x and -x, and not 0.

    All coordinates are whole numbers, and so are squared distances. `bound` may be lowered on the way.
    """

    def __init__(self, rows: list[list[int]], target: list[int], most_steps: int) -> None:
        self.rows, self.target, self.most_steps = rows, target, most_steps
        self.gso = GramSchmidt.of_rows([*rows, target])
        self.bound = 0
        self.steps = 0

    def squared_distance(self, x: Sequence[int]) -> int:
        """‖target - Σ x_i rows_i‖², exactly."""
        point = _combine(x, self.rows)
        return sum((a - b) ** 2 for a, b in zip(self.target, point, strict=True))

    def run(self) -> Iterator[list[int]]:
        """The coefficients of each, nearest planes first."""
        n, d, products = len(self.rows), self.gso.minors, self.gso.products
        # target - Σ x_i rows_i has in direction b*_k the squared length y² / (d_k d_(k+1)), here y² times a factor
        # that is rounded down in its 64th bit or so.
        shifts = [d[k].bit_length() + d[k + 1].bit_length() + _GUARD for k in range(n)]
        factors = [(1 << shifts[k] + _GUARD) // (d[k] * d[k + 1]) for k in range(n)]
        x, y, change = [0] * n, [0] * n, [0] * n  # change: what the next x differs by; 0: x only grows
        sums = [0] * n + [(d[n + 1] << _GUARD) // d[n]]  # squared lengths in directions k and above, never too large
        zero = [False] * n + [not any(self.target)]  # whether all x from k on are zero, and the target too

        def begin(k: int) -> None:
            left = products[n][k] - sum(x[j] * products[j][k] for j in range(k + 1, n))
            x[k] = (2 * left + d[k + 1]) // (2 * d[k + 1])
            y[k] = left - x[k] * d[k + 1]
            change[k] = 0 if zero[k + 1] else 1 if y[k] > 0 else -1

        k = n - 1
        begin(k)
        while True:
            self.steps += 1
            if self.steps > self.most_steps:
                raise UserError(
                    "could not find the vector within the steps that are allowed",
                    f"the enumeration of a lattice of dimension {n} was not done after {self.most_steps:,} steps",
                    "allow more, or be content with the first vector of the reduced basis or Babai's nearest plane",
                )
            total = sums[k + 1] + (y[k] * y[k] * factors[k] >> shifts[k])
            if total > self.bound << _GUARD:
                k += 1  # the next x on this level would be farther still
                if k == n:
                    return
            elif k > 0:
                sums[k], zero[k] = total, zero[k + 1] and x[k] == 0
                k -= 1
                begin(k)
                continue
            elif not (zero[1] and x[0] == 0) and self.squared_distance(x) <= self.bound:
                yield x.copy()
            step = change[k] or 1
            x[k] += step
            y[k] -= step * d[k + 1]
            if change[k]:
                change[k] = -step - 1 if step > 0 else -step + 1


def _plane(gso: GramSchmidt) -> list[int]:
    """The coefficients of Babai's nearest plane; the last row of `gso` is the target."""
    n, d = len(gso.products) - 1, gso.minors
    x = [0] * n
    for k in range(n - 1, -1, -1):
        left = gso.products[n][k] - sum(x[j] * gso.products[j][k] for j in range(k + 1, n))
        x[k] = (2 * left + d[k + 1]) // (2 * d[k + 1])
    return x


def _whole(basis: Basis, target: Vector) -> tuple[list[list[int]], list[int]]:
    """Rows and target in whole numbers, over one denominator that is left out."""
    if len(target) != basis.dimension:
        raise UserError(
            "the target does not fit the matrix",
            f"it has length {len(target)}, the rows of the matrix {basis.dimension}",
            "give the target as many numbers as a row",
        )
    scale = math.lcm(basis.scale, *(value.denominator for value in target))
    rows = [[value * (scale // basis.scale) for value in row] for row in basis.rows]
    return rows, [int(value * scale) for value in target]


def _found(basis: Basis, coefficients: list[int], target: Vector, steps: int = 0) -> Found:
    vector = [Fraction(value, basis.scale) for value in _combine(coefficients, basis.rows)]
    square = sum(((a - b) ** 2 for a, b in zip(target, vector, strict=True)), start=Fraction(0))
    return Found(vector, coefficients, square, steps)


def _back(coefficients: list[int], transform: list[list[int]]) -> list[int]:
    """Coefficients in the basis before the reduction."""
    return _combine(coefficients, transform)


def _combine(coefficients: Sequence[int], rows: list[list[int]]) -> list[int]:
    """Σ coefficients[i] rows[i]."""
    return [int(value) for value in (fmpz_mat([list(coefficients)]) * fmpz_mat(rows)).entries()]
