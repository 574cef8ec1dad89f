"""The learning rate at known steps."""

import math

import pytest
import torch

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


def test_step_is_torchs_multistep():
    s = Scheduler(name="step", warmup=0.0, step_at=[0.5, 0.9, 0.3], step_factor=0.2)
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    reference = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[30, 50, 90], gamma=0.2)
    for step in range(100):
        assert rate_at(step, 100, s) == pytest.approx(reference.get_last_lr()[0], rel=1e-12)
        optimizer.step()
        reference.step()


def test_step_warms_up_and_stays_above_the_minimum():
    s = Scheduler(name="step", warmup=0.1, minimum=0.05)
    rates = [rate_at(step, 100, s) for step in (0, 9, 10, 49, 50, 74, 75, 99)]
    assert rates == [1 / 11, 10 / 11, 1.0, 1.0, 0.1, 0.1, 0.05, 0.05]


@pytest.mark.parametrize("name", ["linear", "cosine", "constant", "step"])
@pytest.mark.parametrize("steps", [1, 2, 3, 7])
def test_short_runs_have_usable_rates(name, steps):
    s = Scheduler(name=name, warmup=0.5, cooldown=1.0)
    assert all(0 < rate_at(step, steps, s) <= 1 for step in range(steps))
