"""Clock rings: whole numbers on circles of 12, 60, 60 and 100 places, and beyond those 232 on circles of 1,000."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from flint import arb, fmpq
from numpy.typing import ArrayLike, NDArray

from crystalline.errors import UserError
from crystalline.lattice.numbers import BITS, brief, certified

RINGS = (12, 60, 60, 100)
FACE = sum(RINGS)  # 232 numbers, 0 to 231, have a place on the face itself
BEYOND = 1000  # places of each ring outside of it
_STARTS = np.cumsum([0, *RINGS])


@dataclass(frozen=True)
class Place:
    """Where a number is: in ring 0, 1, 2, ... from the inside, on place 0 to size - 1, clockwise from the top."""

    ring: int
    place: int

    @property
    def size(self) -> int:
        """Places of the ring."""
        return RINGS[self.ring] if self.ring < len(RINGS) else BEYOND

    @property
    def radius(self) -> Fraction:
        """1/4, 1/2, 3/4, 1 on the face; each ring beyond is 1/4 farther out."""
        return Fraction(self.ring + 1, 4)

    @property
    def turn(self) -> Fraction:
        """The angle as a part of a turn, counterclockwise from the right as in mathematics: 1/4 - place / size."""
        return (Fraction(1, 4) - Fraction(self.place, self.size)) % 1

    def point(self, bits: int = BITS) -> tuple[arb, arb]:
        """(x, y), as balls."""
        radius = fmpq(self.radius.numerator, self.radius.denominator)
        half_turns = fmpq(2 * self.turn.numerator, self.turn.denominator)
        return (
            certified(lambda: arb.cos_pi_fmpq(half_turns) * radius, bits),
            certified(lambda: arb.sin_pi_fmpq(half_turns) * radius, bits),
        )


def place(n: int) -> Place:
    """The place of the number n >= 0, of any size."""
    if n < 0:
        raise UserError(f"{brief(n)} has no place on the clock", "the rings begin with 0", "give 0 or more")
    if n >= FACE:
        ring, at = divmod(n - FACE, BEYOND)
        return Place(len(RINGS) + ring, at)
    ring = int(np.searchsorted(_STARTS, n, side="right")) - 1
    return Place(ring, n - int(_STARTS[ring]))


def number(at: Place) -> int:
    """The number at a place: the inverse of `place`."""
    if at.ring < 0 or not 0 <= at.place < at.size:
        raise UserError(
            f"there is no place {brief(at.place)} in ring {brief(at.ring)}",
            "rings 0 to 3 have the places 0 to 11, 59, 59 and 99, those beyond 0 to 999",
            "give another place",
        )
    if at.ring < len(RINGS):
        return int(_STARTS[at.ring]) + at.place
    return FACE + BEYOND * (at.ring - len(RINGS)) + at.place


def places(n: ArrayLike) -> NDArray[np.int64]:
    """(ring, place) of each number from 0 to 2^62, shape (..., 2)."""
    array = np.asarray(n, dtype=np.int64)
    if array.size and not (array.min() >= 0 and array.max() <= 2**62):
        raise UserError("could not place these numbers", "they are not all from 0 to 2^62", "give others")
    inner = np.searchsorted(_STARTS, np.minimum(array, FACE - 1), side="right") - 1
    beyond = array - FACE
    ring = np.where(beyond < 0, inner, len(RINGS) + beyond // BEYOND)
    return np.stack([ring, np.where(beyond < 0, array - _STARTS[inner], beyond % BEYOND)], axis=-1)


def hands(n: int) -> tuple[int, int, int]:
    """The residues of n that the hands show: modulo 12, 60 and 100."""
    return n % 12, n % 60, n % 100


def group_angle(group: int) -> tuple[int, int]:
    """Group 0 to 11 of the twelve: its angle in degrees, 30 for each, and its quadrant 0 to 3."""
    if not 0 <= group < 12:
        raise UserError(f"there is no group {brief(group)}", "the twelve groups are 0 to 11", "give one of them")
    return 30 * group, group // 3
