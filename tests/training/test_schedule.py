"""The learning rate at known steps."""

import math

import pytest

from crystalline.settings import Scheduler
from crystalline.training.schedule import rate_at


def test_warmup_stays_and_cools_down_linearly():
    s = Scheduler(name="linear", warmup=0.1, cooldown=0.5, minimum=0.0)
    rates = [rate_at(step, 100, s) for step in range(100)]
    assert rates[0] == 1 / 11
    assert rates[9] == 10 / 11
    assert rates[10] == rates[49] == 1.0
    assert rates[50] == pytest.approx(50 / 51)
    assert rates[75] == pytest.approx(25 / 51)
    assert rates[99] == pytest.approx(1 / 51)
    assert all(0 < rate <= 1 for rate in rates)


def test_cosine_is_half_a_cosine_down_to_the_minimum():
    s = Scheduler(name="cosine", warmup=0.0, cooldown=1.0, minimum=0.1)
    for step in (0, 20, 50, 80, 99):
        share = (100 - step) / 101
        assert rate_at(step, 100, s) == pytest.approx(0.1 + 0.9 * 0.5 * (1 - math.cos(math.pi * share)))
    assert rate_at(50, 101, Scheduler(name="cosine", warmup=0, cooldown=1)) == pytest.approx(0.5, abs=0.02)


def test_constant_only_warms_up():
    s = Scheduler(name="constant", warmup=0.02)
    assert [rate_at(step, 100, s) for step in (0, 1, 2, 50, 99)] == [1 / 3, 2 / 3, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("name", ["linear", "cosine", "constant"])
@pytest.mark.parametrize("steps", [1, 2, 3, 7])
def test_short_runs_have_usable_rates(name, steps):
    s = Scheduler(name=name, warmup=0.5, cooldown=1.0)
    assert all(0 < rate_at(step, steps, s) <= 1 for step in range(steps))
