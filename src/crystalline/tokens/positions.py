"""Where every token is: an exact point that follows from its code, and from which the code follows.

After the codes; used by similarity and by the map of a vocabulary. A token's position is a vector of whole numbers,
in units of 2⁻²⁵⁶:

- The first two say where its root stands in the plane. The root with the k-th prime stands at √k · (cos, sin) of k
  golden angles, as the k-th seed of a sunflower does (Vogel 1979, "A better way to construct the sunflower head",
  Mathematical Biosciences 44). So each has about π of area to itself, frequent roots stand in the middle, and the
  space that the operators' primes leave free is in the centre.
- Each operator (a space, a capital, an ending) has a direction of its own, upright to all others. A derived form
  stands a quarter of a unit beside what it is derived from, and always nearer to its root than to another: two roots
  are at least 1.6 apart.

The golden angle makes this a lattice in disguise. Cut the spiral open, so that angle and rank become two straight
axes (`UnrolledSpiral`): then every step from one rank to the next is the same vector, and tokens are points of a
lattice. Its LLL-reduced basis is what the eye sees on a sunflower: spiral arms whose ranks grow by Fibonacci numbers.

What it is good for: drawing, an address that is exact and can be reversed, and the closeness in `similarity`. Roots
that stand side by side have similar frequencies or a Fibonacci number between them; that says nothing about what they
mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, cached_property

import numpy as np
from flint import arb, ctx, fmpz, fmpz_mat
from numpy.typing import NDArray

from crystalline.errors import EXIT_USAGE, UserError
from crystalline.lattice.primes import primes_below
from crystalline.tokens.codes import Factor, TokenCodes

BITS = 256  # binary digits after the point
ONE = 1 << BITS  # the unit of length
OFFSET = ONE // 4  # how far an operator moves a token
LARGEST_PRIME = 10**8  # of a root: the 5,761,455th, where vocabularies of a million tokens need the millionth

Position = tuple[int, ...]  # x, y, then for each operator 0 or OFFSET


def certain_round(value: arb) -> int | None:
    """The whole number nearest to a real one that lies in a ball; None when the ball is too large to tell."""
    nearest = (value + arb(0.5)).floor().unique_fmpz()
    return None if nearest is None else int(nearest)


@cache
def golden_fraction() -> int:
    """The golden angle as a fraction of a turn, 1/φ² = (3 − √5)/2 = 0.381966…, in units of 2⁻²⁵⁶, rounded."""
    with ctx.workprec(2 * BITS):
        rounded = certain_round((arb(3) - arb(5).sqrt()) / 2 * arb(fmpz(ONE)))
    assert rounded is not None, "twice the digits are enough for this constant"
    return rounded


def spiral_point(rank: int) -> tuple[int, int]:
    """Where the root with the `rank`-th prime stands: (x, y) in units of 2⁻²⁵⁶, each rounded to the nearest.

    Computed in balls (Johansson 2017, "Arb: efficient arbitrary-precision midpoint-radius interval arithmetic"), with
    more digits until only one whole number can be the nearest. So the result is proven.
    """
    precision = BITS + 64
    while True:
        with ctx.workprec(precision):
            radius = arb(rank).sqrt() * arb(fmpz(ONE))
            sine, cosine = (rank * (3 - arb(5).sqrt())).sin_cos_pi()
            x, y = certain_round(radius * cosine), certain_round(radius * sine)
        if x is not None and y is not None:
            return x, y
        precision *= 2


def nearest_rank(x: int, y: int) -> int:
    """The rank whose spiral point has the radius of this one, (x, y) in units of 2⁻²⁵⁶; 0 near the centre."""
    # Rounding its coordinates changes the square of a point's radius by no more than 2·√k units of 2⁻²⁵⁶.
    return (x * x + y * y + ONE * ONE // 2) // (ONE * ONE)


class Positions:
    """The positions of a vocabulary of V tokens with M operators.

    axes: (M,) the operator of each coordinate after the first two, by size of their primes.
    ranks: (V,) int64: which prime of all, counted from 1, each token's root is.
    plane: (V, 2) float64: where its root stands, in units of length: the exact position rounded once.
    """

    def __init__(self, codes: TokenCodes) -> None:
        self._codes = codes
        self.axes: tuple[Factor, ...] = tuple(f for f in codes.all_factors if f.kind != "root")
        self._axis = {factor.prime: axis for axis, factor in enumerate(self.axes)}
        of_tokens = [codes.root(id_).prime for id_ in range(codes.vocabulary_size)]
        largest = max(of_tokens, default=2)
        if largest > LARGEST_PRIME:
            raise UserError(
                "could not place the tokens",
                f"the prime {largest} of a root is larger than {LARGEST_PRIME:,}, whose place among all is looked up",
                "make the codes anew: delete codes.json and give cllm run RUN",
            )
        roots = np.array(of_tokens, dtype=np.int64)
        self._primes = primes_below(largest + 1)
        self.ranks: NDArray[np.int64] = np.searchsorted(self._primes, roots) + 1
        self._points = {rank: spiral_point(rank) for rank in np.unique(self.ranks).tolist()}
        in_plane = [self._points[rank] for rank in self.ranks.tolist()]
        self.plane = np.array([(x / ONE, y / ONE) for x, y in in_plane], dtype=np.float64).reshape(-1, 2)

    def position(self, token_id: int) -> Position:
        """(2 + M,) whole numbers in units of 2⁻²⁵⁶. No two tokens have the same."""
        factors = self._codes.factors(token_id)
        moved = {self._axis[factor.prime] for factor in factors[1:]}
        offsets = (OFFSET if axis in moved else 0 for axis in range(len(self.axes)))
        return (*self._points[int(self.ranks[token_id])], *offsets)

    def token_at(self, position: Sequence[int]) -> int:
        """The token that stands exactly here. Computed, not looked up: point → rank → prime → code → token.

        Raises UserError when no token does.
        """
        if len(position) == 2 + len(self.axes) and all(offset in (0, OFFSET) for offset in position[2:]):
            rank = nearest_rank(position[0], position[1])
            if self._points.get(rank) == (position[0], position[1]):
                return self.token_with(rank, [offset != 0 for offset in position[2:]])
        raise UserError(
            "no token stands at this position",
            f"it is not the {2 + len(self.axes)} coordinates of a token, to the last digit",
            "look for the nearest token instead",
        )

    def token_with(self, rank: int, operators: Sequence[bool]) -> int:
        """The token of the root with the `rank`-th prime and these of the M operators; UserError if there is none."""
        if not 0 < rank <= len(self._primes):
            raise UserError(
                f"no token has the prime number {rank} as its root",
                f"this vocabulary uses the first {len(self._primes)} primes",
                "give a rank in this range",
            )
        code = int(self._primes[rank - 1])
        for factor, present in zip(self.axes, operators, strict=True):
            code *= factor.prime if present else 1
        return self._codes.token_of(code)

    def nearest(self, point: Sequence[int], k: int = 1) -> list[int]:
        """The k tokens nearest to a point of 2 + M coordinates in units of 2⁻²⁵⁶, nearest first, ties by id.

        Exact: floats only choose who is compared (with room for their error), whole numbers decide.
        """
        if len(point) != 2 + len(self.axes):
            raise UserError(
                f"could not look near a point of {len(point)} coordinates",
                f"this vocabulary has positions of {2 + len(self.axes)}",
                "give two for the plane and one for each operator",
                EXIT_USAGE,
            )
        k = checked_count(k)
        x, y, *offsets = (coordinate / ONE for coordinate in point)
        # |offsets of the token - offsets of the point|² = its own part + what each operator it has changes.
        gains = np.array([0.0625 - 0.5 * offset for offset in offsets])
        squared = (self.plane[:, 0] - x) ** 2 + (self.plane[:, 1] - y) ** 2
        squared += sum(offset * offset for offset in offsets) + self.operators @ gains
        k = min(k, len(squared))
        limit = np.partition(squared, k - 1)[k - 1]
        room = 1e-12 * (1 + limit + x * x + y * y + float(np.abs(gains).sum()))
        near = np.flatnonzero(squared <= limit + room).tolist()
        return sorted(near, key=lambda id_: (squared_distance(self.position(id_), point), id_))[:k]

    @cached_property
    def operators(self) -> NDArray[np.float32]:
        """(V, M): 1 where a token has an operator, else 0."""
        table = np.zeros((self._codes.vocabulary_size, len(self.axes)), dtype=np.float32)
        for id_ in range(len(table)):
            table[id_, [self._axis[factor.prime] for factor in self._codes.factors(id_)[1:]]] = 1
        return table


class UnrolledSpiral:
    """The lattice of tokens, and its LLL-reduced basis.

    Cut open at rank K, one turn of the spiral is 2π√K long, and a rank is 1/(2√K) higher than the one before: both as
    in the plane around there. So the lattice has the basis

        turn      (2π√K, 0, 0, …)                   the same place after a whole turn
        step      (2π√K/φ², 1/(2√K), 0, …)          from one rank to the next
        operator  (0, 0, …, 1/4, …)                 one for each of the M operators

    in whole multiples of 2⁻²⁵⁶, and the token with rank k after t turns and with its operators is k · step − t · turn
    + their vectors. K is the rank that half of the tokens have not passed.

    basis, reduced: (2 + M, 2 + M) whole numbers, rows are vectors. transform: whole numbers with determinant ±1;
    transform × basis = reduced.
    """

    def __init__(self, positions: Positions, rank: int | None = None) -> None:
        self._positions = positions
        self.rank = max(1, int(np.median(positions.ranks))) if rank is None else rank
        size = 2 + len(positions.axes)
        with ctx.workprec(2 * BITS):
            root = arb(self.rank).sqrt()
            turn = certain_round(2 * arb.pi() * root * arb(fmpz(ONE)))
            rise = certain_round(arb(fmpz(ONE)) / (2 * root))
        assert turn is not None
        assert rise is not None
        rows = [[0] * size for _ in range(size)]
        rows[0][0] = turn
        rows[1][:2] = [(turn * golden_fraction() + ONE // 2) // ONE, rise]
        for axis in range(2, size):
            rows[axis][axis] = OFFSET
        self.basis = fmpz_mat(rows)
        self.reduced, self.transform = self.basis.lll(True)
        self._inverse = fmpz_mat([[int(x.p) for x in row] for row in self.transform.inv().tolist()])

    def coordinates(self, ids: Sequence[int]) -> list[list[int]]:
        """(N, 2 + M): of each token what multiples of the basis' vectors it is."""
        turn, step = int(self.basis[0, 0]), int(self.basis[1, 0])
        table = self._positions.operators[ids].astype(np.int64).tolist()
        ranks = self._positions.ranks[ids].tolist()
        return [[-(rank * step // turn), rank, *has] for rank, has in zip(ranks, table, strict=True)]

    def reduced_coordinates(self, ids: Sequence[int]) -> list[list[int]]:
        """(N, 2 + M): the same of the reduced basis."""
        if not len(ids):
            return []
        product = fmpz_mat(self.coordinates(ids)) * self._inverse
        return [[int(x) for x in row] for row in product.tolist()]

    def tokens_at(self, coordinates: Sequence[Sequence[int]]) -> list[int]:
        """The tokens with these coordinates in the reduced basis: the inverse of `reduced_coordinates`.

        Raises UserError when one of them is no token's.
        """
        if not len(coordinates):
            return []
        plain = (fmpz_mat([list(row) for row in coordinates]) * self.transform).tolist()
        return [self._token([int(x) for x in row]) for row in plain]

    def _token(self, plain: Sequence[int]) -> int:
        turns, rank, *has = plain
        turn, step = int(self.basis[0, 0]), int(self.basis[1, 0])
        if turns != -(rank * step // turn) or not {0, 1}.issuperset(has):
            raise UserError(
                "no token has these coordinates",
                "they are those of another point of the lattice",
                "use coordinates as `reduced_coordinates` gives them",
            )
        return self._positions.token_with(rank, [there == 1 for there in has])


def squared_distance(a: Sequence[int], b: Sequence[int]) -> int:
    """Of two points with the same number of coordinates, exactly, in units of 2⁻⁵¹²."""
    return sum((p - q) ** 2 for p, q in zip(a, b, strict=True))


def checked_count(k: int) -> int:
    """`k`, when so many neighbours can be asked for; else a UserError."""
    if k < 1:
        raise UserError(
            f"could not look for {k} neighbours", "that is less than one", "ask for 1 or more", EXIT_USAGE
        )
    return k
