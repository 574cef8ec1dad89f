"""Clock rings: 232 places and rings of a thousand beyond, there and back."""

from fractions import Fraction

import numpy as np
import pytest
from flint import arb

from crystalline.errors import UserError
from crystalline.lattice import clock
from crystalline.lattice.clock import Place


def test_the_rings_are_a_bijection():
    n = np.arange(10**6)
    found = clock.places(n)
    assert len(np.unique(found[:, 0] * 1000 + found[:, 1])) == len(n)
    for number in [*range(2500), 10**6 - 1]:
        assert clock.place(number) == Place(*found[number].tolist())
        assert clock.number(clock.place(number)) == number
    assert clock.number(clock.place(10**50)) == 10**50


def test_where_rings_begin():
    assert [clock.place(n) for n in (0, 11, 12, 71, 72, 131, 132, 231, 232, 1231, 1232)] == [
        Place(0, 0), Place(0, 11), Place(1, 0), Place(1, 59), Place(2, 0), Place(2, 59), Place(3, 0), Place(3, 99),
        Place(4, 0), Place(4, 999), Place(5, 0),
    ]  # fmt: skip
    assert [Place(ring, 0).radius for ring in range(5)] == [Fraction(k, 4) for k in (1, 2, 3, 4, 5)]


def test_it_goes_clockwise_from_the_top():
    assert [Place(0, place).turn for place in (0, 3, 6, 9)] == [Fraction(1, 4), 0, Fraction(3, 4), Fraction(1, 2)]
    x, y = Place(3, 25).point()  # three o'clock, on the outer ring
    assert (x, y) == (1, 0)
    x, y = Place(0, 1).point()  # one o'clock, at 60 degrees
    assert x.contains(arb("0.125"))
    assert (64 * y * y).contains(3)


def test_hands_and_groups():
    assert clock.hands(144_000) == (0, 0, 0)
    assert clock.hands(143_999) == (11, 59, 99)
    assert [clock.group_angle(g) for g in (0, 2, 3, 11)] == [(0, 0), (60, 0), (90, 1), (330, 3)]


@pytest.mark.parametrize(
    "call",
    [
        lambda: clock.place(-1),
        lambda: clock.places([-1]),
        lambda: clock.number(Place(0, 12)),
        lambda: clock.number(Place(-1, 0)),
        lambda: clock.number(Place(4, 1000)),
        lambda: clock.group_angle(12),
    ],
)
def test_what_is_not_on_the_clock_is_told(call):
    with pytest.raises(UserError):
        call()
