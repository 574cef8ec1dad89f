"""Who reduces and who updates which units: parts that take about equal time, by what was measured.

The division changes no bits: each unit is worked on by itself, and norms are added up in a constant order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence

import numpy as np

WINDOW = 16  # steps whose medians are believed: one disturbed step says nothing
UNEVEN = 1.25  # slowest part over the mean one, beyond which a division is made anew without an order
GAIN = 0.9  # and only if the slowest part is then expected to take less than this share of its time


class Division:
    """The division of units among workers. costs: expected time of each unit, in any measure, until it is known."""

    def __init__(self, costs: Sequence[float]) -> None:
        self._costs = np.array(costs, dtype=np.float64)
        self._slowness: dict[int, float] = {}  # of a worker: 1 is an average one
        self._workers: set[int] = set()
        self._parts: dict[int, list[int]] = {}
        self._measured: deque[np.ndarray] = deque(maxlen=WINDOW)  # seconds of each unit in steps of this division

    def among(self, workers: Collection[int]) -> dict[int, list[int]]:
        """Worker number -> its units. It stays the same until the workers change or it is made anew."""
        if set(workers) != self._workers:
            self._workers = set(workers)
            self._parts = self._divided(self._costs, self._slowness)
            self._measured.clear()
        return self._parts

    def record(self, seconds: np.ndarray) -> None:
        """Note how long each unit has taken in a step in which each worker did its part."""
        self._measured.append(seconds.copy())

    @property
    def measured(self) -> bool:
        """Whether enough steps were measured since the division was made."""
        return len(self._measured) == WINDOW

    @property
    def imbalance(self) -> float | None:
        """Time of the slowest worker over the mean of all; 1 is even. None when nothing was measured yet."""
        if not self._measured:
            return None
        return _imbalance(self._times())

    def renew(self, only_if_better: bool = False) -> bool:
        """Divide anew by what was measured. only_if_better: unless little would be gained. Whether it was done."""
        if not self._measured:
            return False
        seconds, times = np.median(np.stack(self._measured), axis=0), self._times()
        if not seconds.any():  # a clock that is too coarse
            return False
        costs, slowness = self._learned(seconds)
        parts = self._divided(costs, slowness)
        if only_if_better and _slowest(parts, costs, slowness) > GAIN * max(times):
            return False
        self._costs, self._slowness, self._parts = costs, self._slowness | slowness, parts
        self._measured.clear()
        return True

    def expected(self) -> float:
        """The imbalance that this division should have."""
        return _imbalance([self._slowness.get(w, 1.0) * self._costs[part].sum() for w, part in self._parts.items()])

    def _times(self) -> list[float]:
        """Median seconds that each worker takes for its part."""
        steps = np.stack(self._measured)
        return [float(np.median(steps[:, part].sum(axis=1))) for part in self._parts.values()]

    def _learned(self, seconds: np.ndarray) -> tuple[np.ndarray, dict[int, float]]:
        """Costs of units and slowness of workers that explain the measured seconds of each unit.

        A worker is slow when its units took longer than they should by what was known before; what is left is the
        units' own.
        """
        pace = seconds.sum() / self._costs.sum()
        slowness = {
            w: float(seconds[part].sum() / (self._costs[part].sum() * pace)) for w, part in self._parts.items()
        }
        costs = seconds.copy()
        for worker, part in self._parts.items():
            costs[part] /= max(slowness[worker], 1e-9)
        return np.maximum(costs, 1e-9), slowness

    def _divided(self, costs: np.ndarray, slowness: dict[int, float]) -> dict[int, list[int]]:
        """The largest unit first, each to the worker that would be ready with it first (Graham 1969)."""
        parts: dict[int, list[int]] = {worker: [] for worker in sorted(self._workers)}
        ready = dict.fromkeys(parts, 0.0)
        for unit in np.argsort(-costs, kind="stable").tolist():
            end = {w: ready[w] + costs[unit] * slowness.get(w, 1.0) for w in parts}
            first = min(end, key=lambda w: (end[w], w))
            parts[first].append(unit)
            ready[first] = end[first]
        return {worker: sorted(part) for worker, part in parts.items() if part}


def _slowest(parts: dict[int, list[int]], costs: np.ndarray, slowness: dict[int, float]) -> float:
    return max(float(costs[part].sum()) * slowness.get(worker, 1.0) for worker, part in parts.items())


def _imbalance(times: Sequence[float]) -> float:
    return max(times) * len(times) / sum(times) if sum(times) > 0 else 1.0
