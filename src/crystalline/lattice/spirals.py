"""Spirals and curves through the whole numbers: Ulam, golden angle, logarithmic, Archimedean, Hilbert; torus fold.

Where places are whole numbers they are exact: of one number of any size, and of arrays below 2^62. Where they are
real, one number gives balls (see `numbers`), and an array gives float64 with the error bound that its function
states.
"""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
from flint import arb
from numpy.typing import ArrayLike, NDArray

from crystalline.errors import UserError
from crystalline.lattice import numbers
from crystalline.lattice.numbers import BITS, brief, certified

Whole = TypeVar("Whole", int, NDArray[np.int64])
Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

LARGEST = 2**62  # no array of whole numbers may hold more
LARGEST_GOLDEN = 2**32  # of golden_points
LARGEST_LOGARITHMIC = 14_000  # of logarithmic_points: φ^1400 is near the largest float
# 2^96 / φ², the golden angle as a fraction of a turn, in two parts of 64 and 32 bits.
_TURN = int(((3 * 2**100 - math.isqrt(5 * 2**200)) // 2) // 2**4)
_TURN_HIGH, _TURN_LOW = np.uint64(_TURN >> 32), np.uint64(_TURN & (2**32 - 1))


# --- Ulam's spiral ----------------------------------------------------------------------------------------
#
# Number 1 in the middle, 2 to the right of it, then up, left, down: layer k is the square of the numbers
# (2k - 1)² < n <= (2k + 1)², which ends at its lower right corner (k, -k).


def ulam_point(n: int) -> tuple[int, int]:
    """(x, y) of the number n >= 1, of any size."""
    if n < 1:
        raise UserError(
            f"{brief(n)} has no place on the spiral", "Ulam's spiral begins with 1", "give a whole number from 1 up"
        )
    k = (math.isqrt(n - 1) + 1) // 2
    back = (
        2 * k + 1
    ) ** 2 - n  # steps back from the end of the layer: along the bottom, the left, the top, the right
    along = [min(max(back - 2 * k * side, 0), 2 * k) for side in range(4)]
    return k - along[0] + along[2], -k + along[1] - along[3]


def ulam_points(n: ArrayLike) -> Integers:
    """(x, y) of each number, shape (..., 2). n: whole numbers from 1 to 2^62."""
    n = _within(n, 1, LARGEST)
    root = np.sqrt(n - 1).astype(np.int64)  # of numbers above 2^52 possibly one too large or too small
    root -= root * root > n - 1
    root += (root + 1) * (root + 1) <= n - 1
    k = (root + 1) // 2
    back = (2 * k + 1) ** 2 - n
    along = [np.clip(back - 2 * k * side, 0, 2 * k) for side in range(4)]
    return np.stack([k - along[0] + along[2], -k + along[1] - along[3]], axis=-1)


def ulam_number(x: int, y: int) -> int:
    """The number at (x, y): the inverse of `ulam_point`."""
    k = max(abs(x), abs(y))
    if y == -k:
        back = k - x
    elif x == -k:
        back = 3 * k + y
    elif y == k:
        back = 5 * k + x
    else:
        back = 7 * k - y
    return (2 * k + 1) ** 2 - back


def ulam_numbers(points: ArrayLike) -> Integers:
    """The numbers at `points`, shape (..., 2): the inverse of `ulam_points`. Coordinates up to 2^30 in size."""
    points = _within(points, -(2**30), 2**30)
    x, y = points[..., 0], points[..., 1]
    k = np.maximum(abs(x), abs(y))
    back = np.select([y == -k, x == -k, y == k], [k - x, 3 * k + y, 5 * k + x], 7 * k - y)
    return np.asarray((2 * k + 1) ** 2 - back)


# --- spirals with real coordinates ------------------------------------------------------------------------


def golden_point(k: int, bits: int = BITS) -> tuple[arb, arb]:
    """Point k >= 0 of the sunflower: radius √k, angle k times the golden angle (Vogel 1979). For any size of k."""
    _refuse_negative(k)
    return _polar(lambda: arb(k).sqrt(), lambda: k * (3 - arb(5).sqrt()), bits)


def golden_points(k: ArrayLike) -> Floats:
    """(x, y) of each k from 0 to 2^32, shape (..., 2); each coordinate within 2^-50 √k of the true one.

    The angle is counted in 2^-64 parts of a turn in whole numbers, so that it loses nothing as k grows.
    """
    k = _within(k, 0, LARGEST_GOLDEN)
    steps = k.astype(np.uint64)
    turns = steps * _TURN_HIGH + (steps * _TURN_LOW >> np.uint64(32))  # modulo 2^64: whole turns drop out
    angle = turns.astype(np.int64).astype(np.float64) * (2 * math.pi * 2.0**-64)  # from -π to π
    return np.asarray(np.sqrt(k)[..., None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1))


def logarithmic_point(k: int, bits: int = BITS) -> tuple[arb, arb]:
    """Point k of the spiral with radius φ^(k / 10) and angle k / 2; a turn takes 4π steps."""
    return _polar(lambda: ((1 + arb(5).sqrt()) / 2) ** (arb(k) / 10), lambda: arb(k) / 2 / arb.pi(), bits)


def logarithmic_points(k: ArrayLike) -> Floats:
    """(x, y) of each k up to 14,000 in size, shape (..., 2); within (|k| + 20) 2^-53 of the radius."""
    k = _within(k, -LARGEST_LOGARITHMIC, LARGEST_LOGARITHMIC)
    radius = np.exp(k * (math.log((1 + math.sqrt(5)) / 2) / 10))
    return np.asarray(radius[..., None] * np.stack([np.cos(k / 2), np.sin(k / 2)], axis=-1))


def archimedean_point(k: int, bits: int = BITS) -> tuple[arb, arb]:
    """Point k of the spiral with radius k / 4π and angle k / 2: its windings are 1 apart."""
    return _polar(lambda: arb(k) / 4 / arb.pi(), lambda: arb(k) / 2 / arb.pi(), bits)


def archimedean_points(k: ArrayLike) -> Floats:
    """(x, y) of each k, shape (..., 2), for |k| up to 2^53; within 2^-49 of the radius."""
    k = _within(k, -(2**53), 2**53)
    radius = k / (4 * math.pi)
    return np.asarray(radius[..., None] * np.stack([np.cos(k / 2), np.sin(k / 2)], axis=-1))


# --- the torus, and Hilbert's curve -----------------------------------------------------------------------


def torus_fold(points: ArrayLike, period: int) -> Integers:
    """Both coordinates modulo `period` >= 1: the plane of whole points wound around a torus."""
    if not 1 <= period <= LARGEST:
        raise UserError(
            f"could not fold with the period {brief(period)}", "a period is from 1 to 2^62", "give another one"
        )
    return np.asarray(_within(points, -LARGEST, LARGEST) % period)


def hilbert_point(d: int, order: int) -> tuple[int, int]:
    """Place d of Hilbert's curve through the square of 2^order by 2^order points: 0 <= d < 4^order; from (0, 0)."""
    if not 0 <= d < 4**order:
        raise UserError(
            f"Hilbert's curve of order {order} has no place {brief(d)}",
            f"its places are 0 to 4^{order} - 1",
            "give one of them, or a higher order",
        )
    return _hilbert_point(d, order)


def hilbert_points(d: ArrayLike, order: int) -> Integers:
    """(x, y) of each place, shape (..., 2); order at most 31."""
    d = _within(d, 0, 4 ** _order(order) - 1)
    return np.stack(_hilbert_point(d, order), axis=-1)


def hilbert_number(x: int, y: int, order: int) -> int:
    """The place of (x, y), 0 <= x, y < 2^order: the inverse of `hilbert_point`."""
    if not (0 <= x < 2**order and 0 <= y < 2**order):
        raise UserError(
            f"({brief(x)}, {brief(y)}) is not on Hilbert's curve of order {order}",
            f"its coordinates are 0 to 2^{order} - 1",
            "give such a point, or a higher order",
        )
    return _hilbert_number(x, y, order)


def hilbert_numbers(points: ArrayLike, order: int) -> Integers:
    """The places of `points`, shape (..., 2): the inverse of `hilbert_points`."""
    points = _within(points, 0, 2 ** _order(order) - 1)
    return _hilbert_number(points[..., 0], points[..., 1], order)


# Both ways without branches, so that one text serves a number and an array: in each quarter the curve is turned,
# which is an exchange of x and y, for one of them after a reflection (bits flipped).


def _hilbert_point(d: Whole, order: int) -> tuple[Whole, Whole]:
    x = y = d & 0
    for level in range(order):
        right = d >> (2 * level + 1) & 1
        up = (d >> (2 * level) & 1) ^ right
        x, y = _turn(x, y, right, up, level)
        x, y = x | right << level, y | up << level
    return x, y


def _hilbert_number(x: Whole, y: Whole, order: int) -> Whole:
    d = x & 0
    for level in range(order - 1, -1, -1):
        right, up = x >> level & 1, y >> level & 1
        d = d << 2 | right << 1 | (right ^ up)
        x, y = _turn(x & (1 << level) - 1, y & (1 << level) - 1, right, up, level)
    return d


def _turn(x: Whole, y: Whole, right: Whole, up: Whole, level: int) -> tuple[Whole, Whole]:
    flipped = -(right & (up ^ 1)) & (1 << level) - 1
    x, y = x ^ flipped, y ^ flipped
    exchanged = (x ^ y) & -(up ^ 1)
    return x ^ exchanged, y ^ exchanged


def _order(order: int) -> int:
    if not 0 <= order <= 31:
        raise UserError(f"could not use the order {order}", "for arrays it is from 0 to 31", "give a lower order")
    return order


def _polar(radius: numbers.Compute, half_turns: numbers.Compute, bits: int) -> tuple[arb, arb]:
    """The point at this radius and angle; the angle in units of π."""
    return (
        certified(lambda: radius() * half_turns().cos_pi(), bits),
        certified(lambda: radius() * half_turns().sin_pi(), bits),
    )


def _refuse_negative(k: int) -> None:
    if k < 0:
        raise UserError(f"there is no point {brief(k)}", "points are counted from 0", "give 0 or more")


def _within(values: ArrayLike, least: int, most: int) -> Integers:
    array = np.asarray(values)
    if array.dtype.kind not in "iu":
        raise UserError(
            "could not place these numbers", f"they are {array.dtype}, not whole numbers below 2^63", "give integers"
        )
    if array.size and not (int(array.min()) >= least and int(array.max()) <= most):
        raise UserError(
            "could not place these numbers", f"they are not all from {least:,} to {most:,}", "give others"
        )
    return array.astype(np.int64, copy=False)
