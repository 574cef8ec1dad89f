"""Spheres that touch: the vectors of least length of A2, D3, D4, E8 and the Leech lattice, and the icosahedron.

Equal spheres around the points of a lattice touch where points are nearest; as many touch one as there are vectors of
least length, the kissing number: 6, 12, 24, 240 and 196,560 are the most that is possible in 2, 3, 4, 8 and 24
dimensions. Coordinates are whole numbers over a common root or integer, so that distances and angles are exact.
Source: Conway & Sloane, "Sphere Packings, Lattices and Groups", chapters 1, 4 and 11.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations

import numpy as np
from flint import arb, fmpq
from numpy.typing import NDArray

from crystalline.errors import UserError, suggest
from crystalline.lattice.numbers import BITS, certified
from crystalline.lattice.sphere_tree import DIRECTIONS

Points = NDArray[np.int8]


@dataclass(frozen=True)
class Packing:
    """A lattice packing, by the vectors of least length.

    name, dimension: of the lattice. vectors: (kissing number, coordinates), times √unit; their true squared length is
    `squared_length`. A2 is given by three coordinates, in the plane x + y + z = 0. roots: simple roots of reflections
    that leave the lattice as it is, times √unit; the Leech lattice has none.
    """

    name: str
    dimension: int
    vectors: Points
    unit: int
    roots: Points | None = None

    @property
    def kissing_number(self) -> int:
        """How many spheres touch one."""
        return len(self.vectors)

    @property
    def squared_length(self) -> int:
        """Of the vectors of least length: the square of the distance of the centres of two spheres that touch."""
        return int((self.vectors[0].astype(np.int64) ** 2).sum()) // self.unit

    def products(self) -> dict[Fraction, int]:
        """The cosines of the angles between one vector and all of them, with how often each occurs, largest first.

        They are the same for each vector: the symmetries of the lattice lead from any to any other.
        """
        table = self.vectors.astype(np.int64) @ self.vectors[0].astype(np.int64)
        values, counts = np.unique(table, return_counts=True)
        pairs = zip(values.tolist(), counts.tolist(), strict=True)
        whole = self.squared_length * self.unit
        return {Fraction(value, whole): count for value, count in sorted(pairs, reverse=True)}


def packing(name: str) -> Packing:
    """The packing "a2", "d3", "d4", "e8" or "leech"."""
    makers = {"a2": _a2, "d3": _d3, "d4": _d4, "e8": _e8, "leech": _leech}
    if name not in makers:
        raise UserError(f"there is no packing {name!r} here", "it is not in the list", suggest(name, makers))
    return makers[name]()


def angle(cosine: Fraction, bits: int = BITS) -> arb:
    """The angle in degrees."""
    return certified(lambda: arb(fmpq(cosine.numerator, cosine.denominator)).acos() * 180 / arb.pi(), bits)


def icosahedron() -> NDArray[np.float64]:
    """The twelve corners as unit vectors (12, 3): 63.43 degrees apart, so spheres there touch the middle one only."""
    golden = (1 + 5**0.5) / 2
    corners = [(0, a, b * golden) for a in (1, -1) for b in (1, -1)]
    turned = [corner[-k:] + corner[:-k] for k in range(3) for corner in corners]
    return np.asarray(np.array(turned) / np.sqrt(1 + golden**2))


def icosahedron_angle(bits: int = BITS) -> arb:
    """Between neighbouring corners, in degrees: arctan 2 = 63.4349..."""
    return certified(lambda: arb(2).atan() * 180 / arb.pi(), bits)


def coxeter_plane(roots: Points) -> NDArray[np.float64]:
    """Two orthonormal rows that span the plane which the product of all reflections turns by its smallest angle.

    roots: simple roots (n, coordinates). Seen in this plane the lattice has its highest symmetry: 30-fold for E8,
    12-fold for D4 (Humphreys, "Reflection Groups and Coxeter Groups", 3.17).
    """
    simple = roots.astype(np.float64)
    turn = np.eye(simple.shape[1])
    for root in simple:
        turn = turn @ (np.eye(len(root)) - 2 * np.outer(root, root) / (root @ root))
    values, vectors = np.linalg.eig(turn)
    angles = np.where(values.imag > 1e-9, np.angle(values), np.inf)
    wave = vectors[:, int(np.argmin(angles))]
    # Turned so that the first root lies to the right, whatever phase the eigenvector came with.
    along = simple[0] @ wave
    wave = wave * np.conj(along) / abs(along)
    plane = np.stack([wave.real, wave.imag])
    return np.asarray(plane / np.linalg.norm(plane, axis=1, keepdims=True))


# --- the lattices -----------------------------------------------------------------------------------------


def _a2() -> Packing:
    vectors = [(x, y, -x - y) for x in (-1, 0, 1) for y in (-1, 0, 1) if (x, y) != (0, 0) and abs(x + y) <= 1]
    return Packing("A2", 2, _points(vectors), 1, _points([(1, -1, 0), (0, 1, -1)]))


def _d3() -> Packing:
    return Packing("D3", 3, _points(DIRECTIONS), 1, _points(_simple_d(3)))


def _d4() -> Packing:
    # Its symmetry is that of F4, whose roots are those of D4 and shorter ones. Twice the coordinates.
    f4 = [(0, 2, -2, 0), (0, 0, 2, -2), (0, 0, 0, 2), (1, -1, -1, -1)]
    return Packing("D4", 4, _points(_pairs(4, 2)), 4, _points(f4))


def _e8() -> Packing:
    """Twice the coordinates: (±1, ±1, 0⁶) and (±½)⁸ with an even number of minus signs."""
    halves = 1 - 2 * ((np.arange(256)[:, None] >> np.arange(8)) & 1)
    even = halves[(halves < 0).sum(axis=1) % 2 == 0]
    vectors = np.concatenate([_points(_pairs(8, 2)), even.astype(np.int8)])
    # Those of D7 on the last seven coordinates, and one more that lengthens a short arm of the diagram.
    simple = np.concatenate([_points([[-1] * 8]), 2 * _points(_simple_d(8))[1:]])
    return Packing("E8", 8, vectors, 4, simple)


def _leech() -> Packing:
    """Times √8: (±2⁸, 0¹⁶) on octads with an even number of minus signs, (∓3, ±1²³), (±4², 0²²)."""
    code = golay_code()
    octads = code[code.sum(axis=1) == 8]
    signs = 1 - 2 * ((np.arange(128)[:, None] >> np.arange(7)) & 1)
    signs = np.concatenate([signs, signs.prod(axis=1, keepdims=True)], axis=1)  # an even number of minus signs
    first = np.zeros((len(octads), len(signs), 24), dtype=np.int8)
    places = np.nonzero(octads)[1].reshape(-1, 1, 8)
    np.put_along_axis(
        first, np.broadcast_to(places, (len(octads), len(signs), 8)), 2 * signs[None].astype(np.int8), 2
    )
    # The upper sign on a word of the code, the lower one elsewhere; then one coordinate becomes ∓3.
    ones = (1 - 2 * code).astype(np.int8)
    second = np.where(np.eye(24, dtype=bool), -3 * ones[:, None], ones[:, None])
    third = _points(_pairs(24, 4))
    return Packing("Leech", 24, np.concatenate([first.reshape(-1, 24), second.reshape(-1, 24), third]), 8)


def golay_code() -> NDArray[np.int8]:
    """The 4,096 words of the binary Golay code (4096, 24): any two differ in 8 places or more.

    Spanned by the squares modulo 23, shifted, each with a last bit that makes its weight even.
    """
    squares = {k * k % 23 for k in range(1, 23)}
    shifts = [[int((place - shift) % 23 in squares) for place in range(23)] for shift in range(12)]
    rows = np.array([[*row, sum(row) % 2] for row in shifts])
    choices = np.arange(4096)[:, None] >> np.arange(12) & 1
    return np.asarray(choices @ rows % 2, dtype=np.int8)


def _pairs(n: int, size: int) -> list[list[int]]:
    """All vectors with two coordinates ±size and zeros."""
    found = []
    for i, j in combinations(range(n), 2):
        for a in (size, -size):
            for b in (size, -size):
                vector = [0] * n
                vector[i], vector[j] = a, b
                found.append(vector)
    return found


def _simple_d(n: int) -> list[list[int]]:
    """The simple roots of D_n: e_i - e_(i+1), and e_(n-1) + e_n."""
    roots = [[int(k == i) - int(k == i + 1) for k in range(n)] for i in range(n - 1)]
    return [*roots, [0] * (n - 2) + [1, 1]]


def _points(vectors: object) -> Points:
    return np.array(vectors, dtype=np.int8)
