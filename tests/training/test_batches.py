"""Batches are a pure function of seed, step and position; every token is learned from once an epoch."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crystalline.model.transformer import IGNORE
from crystalline.training.batches import Batches, shuffled


class Stream:
    """A token stream whose tokens are their own places."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def read(self, start: int, count: int) -> np.ndarray:
        assert start >= 0
        assert start + count <= self.length
        return np.arange(start, start + count)


def batches(length: int = 1000, **changes) -> Batches:
    options = {"seed": 1, "context": 16, "micro_batch": 2, "accumulation": 1, "positions": 12, "pad": 99_999}
    return Batches(Stream(length), **{**options, **changes})


def targets_of(b: Batches, steps: range) -> list[int]:
    found = []
    for step in steps:
        for position in range(b.positions):
            for part in range(b.accumulation):
                _, targets = b.micro_batch_at(step, position, part)
                found += targets[targets != IGNORE].tolist()
    return found


@given(st.integers(1, 5000), st.integers(0, 2**64 - 1))
def test_the_shuffle_is_a_bijection(size, key):
    places = range(size) if size < 300 else range(0, size, size // 200)
    images = [shuffled(index, size, key) for index in places]
    assert all(0 <= image < size for image in images)
    assert len(set(images)) == len(images)


def test_the_shuffle_covers_a_large_range_and_mixes_it():
    images = [shuffled(index, 10_000, 7) for index in range(10_000)]
    assert sorted(images) == list(range(10_000))
    assert abs(float(np.corrcoef(range(10_000), images)[0, 1])) < 0.05


@pytest.mark.parametrize("length", [1000, 993, 17, 1 + 16 * 24, 5000])
def test_every_token_is_a_target_exactly_once_an_epoch(length):
    b = batches(length)
    steps = -(-b.windows // b.windows_per_step) * 3
    seen = Counter()
    windows = Counter(
        w for step in range(steps) for p in range(12) for w in b.window_numbers(step, p, 0)
    )  # fmt: skip
    for place in range(b.windows * 2):  # two epochs, wherever step boundaries fall
        step, rest = divmod(place, b.windows_per_step)
        position, row = divmod(rest, b.micro_batch)
        _, targets = b.micro_batch_at(step, position, 0)
        seen.update(targets[row][targets[row] != IGNORE].tolist())
    assert seen == Counter(dict.fromkeys(range(1, length), 2))
    assert windows


def test_targets_are_the_next_tokens():
    tokens, targets = batches(5000).micro_batch_at(3, 5, 0)
    assert tokens.shape == targets.shape == (2, 16)
    assert np.array_equal(tokens + 1, targets)


def test_order_depends_on_seed_and_epoch_only():
    a, b, other = batches(5000), batches(5000), batches(5000, seed=2)
    assert all(
        np.array_equal(x, y) for x, y in zip(a.micro_batch_at(7, 3, 0), b.micro_batch_at(7, 3, 0), strict=True)
    )
    assert targets_of(a, range(1)) != targets_of(other, range(1))
    first = [a.window_numbers(s, p, 0) for s in range(5) for p in range(12)]
    assert first != [a.window_numbers(s, p, 0) for s in range(13, 18) for p in range(12)]


def test_accumulation_and_positions_only_regroup_the_same_windows():
    small = batches(5000, micro_batch=1, accumulation=4)
    large = batches(5000, micro_batch=4, accumulation=1)
    assert targets_of(small, range(3)) == targets_of(large, range(3))


@pytest.mark.parametrize("length", [2, 3, 16, 17, 18, 40, 1000])
def test_short_texts_have_targets_everywhere_and_are_counted(length):
    b = batches(length)
    for step in range(4):
        counted = 0
        for position in range(12):
            _, targets = b.micro_batch_at(step, position, 0)
            assert ((targets != IGNORE).sum(1) > 0).all(), "a row without anything to learn from"
            counted += int((targets != IGNORE).sum())
        assert counted == b.targets_in_step(step)
