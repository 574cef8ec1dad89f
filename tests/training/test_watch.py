"""Patience is measured by what was measured, and in time in which Node Zero was awake."""

import pytest

from crystalline.training import watch
from crystalline.training.watch import LEAST_SECONDS, TIMES, UNKNOWN_SECONDS, Watch


class Clock:
    def __init__(self):
        self.time = 1000.0

    def __call__(self):
        return self.time


def test_twenty_times_the_median_of_its_kind_but_never_less_than_half_a_minute():
    w = Watch(Clock())
    for seconds in (1.0, 5.0, 400.0):
        w.finished("compute", seconds)
    w.finished("update", 0.01)
    assert w.limit("compute") == TIMES * 5.0
    assert w.limit("update") == LEAST_SECONDS
    assert w.limit("reduce") == UNKNOWN_SECONDS


def test_the_next_one_gets_twice_the_time_until_an_order_is_finished():
    w = Watch(Clock())
    w.gave_up()
    w.gave_up()
    assert w.limit("compute") == 4 * UNKNOWN_SECONDS
    w.finished("compute", 1.0)
    assert w.limit("compute") == LEAST_SECONDS


@pytest.mark.parametrize("asleep", [60.0, 1e6])
def test_time_in_which_node_zero_was_not_awake_does_not_count(asleep):
    clock = Clock()
    w = Watch(clock)
    for _ in range(10):
        clock.time += 0.2
        w.now()
    clock.time += asleep
    assert w.now() == pytest.approx(2.0 + watch.LONGEST_TURN)
