"""What several workers gain, and what they cost. Only where cores are idle: otherwise somebody else is measured."""

import statistics
import time
from contextlib import closing

import numpy as np
import pytest

from crystalline import processes
from crystalline.model.library import library
from crystalline.model.transformer import Transformer
from crystalline.settings import Model, Settings
from crystalline.training import process
from crystalline.training.batches import Batches
from crystalline.training.load import OtherLoad
from crystalline.training.node_zero import Workers
from crystalline.training.recipe import has_bf16, settle
from crystalline.training.workspace import Workspace

pytestmark = pytest.mark.slow
STEPS = 6


class RandomTokens:
    """As much of a token stream as `Batches` uses."""

    def __init__(self, vocabulary):
        self.tokens = np.random.default_rng(0).integers(0, vocabulary, 1_000_001).astype(np.uint16)

    def __len__(self):
        return len(self.tokens)

    def read(self, start, count):
        return self.tokens[start : start + count]


def idle_cores():
    """Cores that nobody uses now."""
    load = OtherLoad()
    for _ in range(4):
        load.look([])
        time.sleep(1.1)
    return processes.cores() - load.cores


@pytest.fixture(scope="module", autouse=True)
def _quiet():
    if (idle := idle_cores()) < 1.7:
        pytest.skip(f"needs two idle cores, there are {idle:.1f}")


@pytest.fixture(scope="module")
def four_million():
    """A network of 4 M weights with twelve positions of 1,024 tokens."""
    process.prepare()
    settings = Settings(model=Model(layers=4, width=256, heads=4, hidden=704, context=256))
    recipe = settle(settings, "4M", 4096, 0, {}, steps=1000)
    model = Transformer(recipe.shape, None, recipe.dtype)
    model.initialize(0)
    workspace = Workspace(model, recipe, spheres=12)
    return workspace, Batches(RandomTokens(4096), 0, 256, 4, 1, 12, pad=0)


def step(team, batches, number):
    team.positions(number, batches.targets_in_step(number))
    norm = team.reduce()
    team.update(min(1.0, 1.0 / norm), 1e-3, number + 1)


def seconds_a_step(team, batches):
    times = []
    for number in range(STEPS + 1):
        began = time.perf_counter()
        step(team, batches, number)
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def test_two_workers_are_much_faster_than_one(four_million):
    """At least 1.6 times: medians of three turns, each of one and of two."""
    workspace, batches = four_million
    ratios = []
    for _ in range(3):
        with closing(Workers(workspace, batches, 1)) as team:
            one = seconds_a_step(team, batches)
        with closing(Workers(workspace, batches, 2)) as team:
            two = seconds_a_step(team, batches)
        ratios.append(one / two)
    assert statistics.median(ratios) >= 1.6, ratios


@pytest.mark.skipif(not has_bf16() or library() is None, reason="a step is slower here, so the share says nothing")
def test_exact_sums_and_barriers_are_a_small_part_of_a_step(four_million):
    """At most 5 %: adding to the sums, combining them, and waiting for each other."""
    workspace, batches = four_million
    shares = []
    with closing(Workers(workspace, batches, 2)) as team:
        for number in range(3 * STEPS):
            step(team, batches, number)
            shares.append(team.shares())
    middle = {part: statistics.median(share[part] for share in shares[1:]) for part in shares[0]}
    assert middle["sum"] + middle["reduce"] + middle["sync"] <= 0.05, middle
