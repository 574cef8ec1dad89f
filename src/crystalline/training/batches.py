"""Which tokens a position of a step learns from: a pure function of (seed, step, position).

The training text is one long stream of tokens, cut into windows of `context` tokens. Each epoch visits every window
once, in an order drawn from the seed; windows are dealt to positions in that order. Nothing is remembered between
steps, so any process can make any batch at any time, and a resumed run needs no data state.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from crystalline.model.transformer import IGNORE
from crystalline.tokens.stream import TokenStream


def shuffled(index: int, size: int, key: int) -> int:
    """Where item `index` of `size` goes in the shuffle `key`: a bijection on 0 .. size-1.

    A four-round Feistel network over the smallest even number of bits, walked until it lands inside the range
    (Black & Rogaway 2002, "Ciphers with Arbitrary Finite Domains"): constant memory, any size.
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    while True:
        left, right = index >> half, index & mask
        for round_ in range(4):
            left, right = right, left ^ (_mix(right, key + round_) & mask)
        index = left << half | right
        if index < size:
            return index


def _mix(value: int, key: int) -> int:
    """64 well-mixed bits (the finalizer of SplitMix64, Steele et al. 2014)."""
    z = (value + key * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    z = ((z ^ z >> 27) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return z ^ z >> 31


def _key(seed: int, epoch: int) -> int:
    return int.from_bytes(hashlib.sha256(f"shuffle {seed} {epoch}".encode()).digest()[:8], "little")


@dataclass(frozen=True)
class Batches:
    """The batches of a run.

    stream: the training tokens.
    context: tokens in a window. micro_batch: windows in a micro-batch. accumulation: micro-batches in a
    position. positions: positions in a step. pad: the token that fills the last, shorter window.
    """

    stream: TokenStream
    seed: int
    context: int
    micro_batch: int
    accumulation: int
    positions: int
    pad: int

    @property
    def windows(self) -> int:
        """Windows in an epoch. Every token but the very first is the target of exactly one."""
        return -(-(len(self.stream) - 1) // self.context)

    @property
    def windows_per_step(self) -> int:
        return self.positions * self.accumulation * self.micro_batch

    def window_numbers(self, step: int, position: int, part: int) -> list[int]:
        """The windows of micro-batch `part` of `position` in `step`."""
        first = ((step * self.positions + position) * self.accumulation + part) * self.micro_batch
        numbers = []
        for place in range(first, first + self.micro_batch):
            epoch, index = divmod(place, self.windows)
            numbers.append(shuffled(index, self.windows, _key(self.seed, epoch)))
        return numbers

    def micro_batch_at(self, step: int, position: int, part: int) -> tuple[np.ndarray, np.ndarray]:
        """(tokens, targets), (micro_batch, context) int64 each. Targets of padding are IGNORE."""
        shape = (self.micro_batch, self.context)
        tokens, targets = np.full(shape, self.pad, np.int64), np.full(shape, IGNORE, np.int64)
        for row, window in enumerate(self.window_numbers(step, position, part)):
            start = window * self.context
            length = min(self.context, len(self.stream) - 1 - start)
            text = self.stream.read(start, length + 1)
            tokens[row, :length], targets[row, :length] = text[:-1], text[1:]
        return tokens, targets

    def targets_in_step(self, step: int) -> int:
        """How many targets a step has: all places, less the padding of the last window each time it comes."""
        return sum(self.targets_in_position(step, position) for position in range(self.positions))

    def targets_in_position(self, step: int, position: int) -> int:
        """How many of them a position has."""
        places = self.accumulation * self.micro_batch * self.context
        short = self.windows * self.context - (len(self.stream) - 1)
        if short == 0:
            return places
        parts = (self.window_numbers(step, position, part) for part in range(self.accumulation))
        return places - short * sum(window == self.windows - 1 for numbers in parts for window in numbers)
