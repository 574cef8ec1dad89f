"""The nearest point of Z^n, A2, D_n and E8 to any point, for whole arrays: rounding, in better shapes than cubes.

Conway & Sloane 1982, "Fast quantizing and decoding algorithms for lattice quantizers and codes". Exact up to the
rounding of float64: of two points that are equally near to 15 digits either may come. Also numbers for the points of
E8 around the origin, for codes of a constant number of bits.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crystalline.errors import UserError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

E8_MOST_NORM = 10  # squared radius of the ball whose points have numbers
_HEIGHT = np.sqrt(3) / 2  # of a triangle of A2


def nearest_z(x: ArrayLike) -> Floats:
    """Whole numbers, halves rounded up. x: any shape."""
    return np.floor(_finite(x) + 0.5)


def nearest_a2(x: ArrayLike) -> Floats:
    """Of the hexagonal lattice with the rows (1, 0) and (1/2, √3/2). x: (..., 2)."""
    x = _finite(x, 2)
    # It is two rectangular lattices, the second in the middle of the first one's cells.
    cell, middle = np.array([1.0, 2 * _HEIGHT]), np.array([0.5, _HEIGHT])
    return _nearer(x, nearest_z(x / cell) * cell, nearest_z((x - middle) / cell) * cell + middle)


def nearest_d(x: ArrayLike) -> Floats:
    """Of D_n, the whole points with an even sum of coordinates. x: (..., n), n >= 2."""
    x = _finite(x)
    rounded = nearest_z(x)
    error = x - rounded
    worst = np.argmax(abs(error), axis=-1, keepdims=True)
    # Where the sum is odd, the coordinate that was hardest to round goes the other way.
    other = np.where(np.take_along_axis(error, worst, -1) >= 0, 1.0, -1.0)
    odd = rounded.sum(axis=-1, keepdims=True) % 2
    np.put_along_axis(rounded, worst, np.take_along_axis(rounded, worst, -1) + odd * other, -1)
    return rounded


def nearest_e8(x: ArrayLike) -> Floats:
    """Of E8, which is D8 and D8 + (½)⁸. x: (..., 8)."""
    x = _finite(x, 8)
    return _nearer(x, nearest_d(x), nearest_d(x - 0.5) + 0.5)


# --- numbers for the points of E8 -------------------------------------------------------------------------


def e8_points(most_norm: int = E8_MOST_NORM) -> NDArray[np.int8]:
    """All points of E8 with squared length up to 2, 4, ... 10, times 2, shape (count, 8); the shortest first.

    Point number i of a longer list is that of a shorter one, so numbers stay when the ball grows. There are 1, 241,
    2,401, 9,121, 26,641 and 56,881.
    """
    if most_norm not in range(0, E8_MOST_NORM + 1, 2):
        raise UserError(
            f"there is no list of E8 points up to the squared length {most_norm}",
            f"squared lengths are even, and the list ends at {E8_MOST_NORM}",
            "ask for 0, 2, 4, 6, 8 or 10",
        )
    points, _, _ = _e8_ball()
    return points[: int(np.searchsorted((points.astype(np.int64) ** 2).sum(axis=1), 4 * most_norm, side="right"))]


def e8_numbers(points: ArrayLike) -> Integers:
    """The numbers in `e8_points` of points (..., 8) as nearest_e8 gives them; -1 for those outside the ball."""
    doubled = np.round(2 * _finite(points, 8)).astype(np.int64)
    inside = (doubled**2).sum(axis=-1) <= 4 * E8_MOST_NORM
    keys = _key(np.where(inside[..., None], doubled, 0))
    _, sorted_keys, order = _e8_ball()
    place = np.minimum(np.searchsorted(sorted_keys, keys), len(order) - 1)
    return np.where(inside & (sorted_keys[place] == keys), order[place], -1)


@cache
def _e8_ball() -> tuple[NDArray[np.int8], Integers, Integers]:
    """The points times 2, by length and then by coordinates; their keys in rising order; the number of each key."""
    found = []
    for parity in (0, 1):  # of all coordinates times 2
        values = np.array([v for v in range(-6, 7) if v % 2 == parity])
        points = np.empty((1, 0), dtype=np.int64)
        for _ in range(8):
            points = np.concatenate(
                [np.repeat(points, len(values), 0), np.tile(values, len(points))[:, None]], axis=1
            )
            points = points[(points**2).sum(axis=1) <= 4 * E8_MOST_NORM]
        found.append(points[points.sum(axis=1) % 4 == 0])
    points = np.concatenate(found)
    points = points[np.lexsort([*points.T[::-1], (points**2).sum(axis=1)])]
    keys = _key(points)
    order = np.argsort(keys)
    return points.astype(np.int8), keys[order], order


def _key(doubled: Integers) -> Integers:
    """One number for eight coordinates from -6 to 6."""
    return np.asarray((doubled + 6) @ 13 ** np.arange(8))


def _nearer(x: Floats, a: Floats, b: Floats) -> Floats:
    """Of two candidates for each point the nearer one."""
    first = ((x - a) ** 2).sum(axis=-1, keepdims=True) <= ((x - b) ** 2).sum(axis=-1, keepdims=True)
    return np.where(first, a, b)


def _finite(x: ArrayLike, dimension: int | None = None) -> Floats:
    array = np.asarray(x, dtype=np.float64)
    if not np.isfinite(array).all() or (dimension is not None and array.shape[-1:] != (dimension,)):
        raise UserError(
            "could not find the nearest points",
            f"an array of shape {array.shape} came; needed are finite numbers"
            + (f", {dimension} a point" if dimension else ""),
            "give points of the lattice's dimension",
        )
    return array
