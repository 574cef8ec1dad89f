"""Every unit is somebody's, exactly once, and measured times decide whose."""

import random

import numpy as np
import pytest

from crystalline.training import division as module
from crystalline.training.division import UNEVEN, WINDOW, Division


def times(division, seconds, slowness):
    """Seconds that each worker takes when units take `seconds` and workers are so slow."""
    return {w: sum(seconds[u] for u in part) * slowness[w] for w, part in division._parts.items()}


def measure(division, seconds, slowness, steps=WINDOW, noise=None):
    for _ in range(steps):
        found = np.zeros(len(seconds))
        for worker, part in division._parts.items():
            found[part] = np.array(seconds)[part] * slowness[worker]
        division.record(found if noise is None else noise(found))


def imbalance(found):
    return max(found.values()) / (sum(found.values()) / len(found))


@pytest.mark.parametrize("workers", [[0], [0, 1], [1, 3, 4], range(12), range(40)])
def test_each_unit_is_in_one_part(workers):
    division = Division([float(x % 7 + 1) for x in range(30)])
    parts = division.among(workers)
    assert sorted(unit for part in parts.values() for unit in part) == list(range(30))
    assert set(parts) <= set(workers)
    assert all(parts.values())


def test_it_stays_until_the_workers_change():
    division = Division([1.0] * 10)
    first = division.among([0, 1])
    measure(division, [1.0] * 10, {0: 1, 1: 1})
    assert division.among([1, 0]) is first
    assert division.measured
    division.among([0, 1, 2])
    assert not division.measured
    assert division.imbalance is None


def test_a_slow_worker_gets_less():
    seconds = [1.0 + x % 3 for x in range(60)]
    division, slowness = Division(seconds), {0: 3.0, 1: 1.0, 2: 1.0}
    division.among([0, 1, 2])
    measure(division, seconds, slowness)
    assert division.imbalance == pytest.approx(9 / 5, rel=0.05)
    assert division.renew(only_if_better=True)
    assert imbalance(times(division, seconds, slowness)) < 1.05
    assert division.expected() < 1.05
    assert division.imbalance is None, "of the new division nothing is measured yet"


def test_wrong_costs_are_corrected():
    """Half of the units take ten times what was expected; repeated corrections end in an even division."""
    source = random.Random(0)
    seconds = [source.choice([1.0, 10.0]) for _ in range(64)]
    division, slowness = Division([1.0] * 64), {0: 1.0, 1: 1.0, 2: 2.0}
    division.among([0, 1, 2])
    for _ in range(4):
        measure(division, seconds, slowness)
        division.renew()
    assert imbalance(times(division, seconds, slowness)) < 1.1


def test_a_disturbed_step_says_nothing():
    seconds = [1.0] * 20
    division = Division(seconds)
    before = division.among([0, 1])
    measure(division, seconds, {0: 1, 1: 1}, WINDOW - 2)
    measure(division, seconds, {0: 50, 1: 1}, 2)
    assert division.imbalance < 1.01 < UNEVEN
    assert not division.renew(only_if_better=True)
    assert division.among([0, 1]) is before


def test_nothing_changes_when_nothing_would_be_gained():
    division = Division([10.0, 1.0])  # one large unit: as even as it can be
    division.among([0, 1])
    measure(division, [10.0, 1.0], {0: 1, 1: 1})
    assert division.imbalance > UNEVEN
    assert not division.renew(only_if_better=True)
    assert division.renew()


def test_without_measurements_there_is_nothing_to_go_by():
    division = Division([1.0, 2.0])
    division.among([0, 1])
    assert not division.renew()


def test_units_that_took_no_time_at_all():
    division = Division([1.0, 2.0, 3.0])
    division.among([0, 1])
    measure(division, [0.0, 0.0, 0.0], {0: 1, 1: 1})
    assert division.imbalance == 1.0
    assert not division.renew()
    assert sorted(u for part in division.among([0, 1]).values() for u in part) == [0, 1, 2]


def test_fewer_units_than_workers():
    division = Division([1.0])
    assert division.among([0, 1, 2]) == {0: [0]}
    measure(division, [1.0], {0: 1})
    assert division.imbalance == 1.0
    assert module.GAIN < 1
