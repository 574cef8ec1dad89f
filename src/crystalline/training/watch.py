"""How long a worker may be silent before it counts as hung."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable

LEAST_SECONDS = 30.0
TIMES = 20  # times the median of that kind of order
UNKNOWN_SECONDS = 600.0  # for a kind of order that nobody has finished yet
LONGEST_TURN = 1.0  # seconds; Node Zero looks up five times a second when it is awake


class Watch:
    """The patience of Node Zero.

    Its clock counts only time in which Node Zero itself was awake: after a laptop was closed, a machine frozen, or a
    run held with Ctrl-Z, no worker has been silent for long. clock: seconds; one that stands still while the machine
    sleeps is not enough, since a freezer stops processes and not the clock.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last, self._awake = clock(), 0.0
        self._taken: dict[str, deque[float]] = {}
        self._doublings = 0

    def now(self) -> float:
        """Seconds for which Node Zero has been awake. To be called at every turn."""
        now = self._clock()
        self._awake += min(now - self._last, LONGEST_TURN)
        self._last = now
        return self._awake

    def finished(self, order: str, seconds: float) -> None:
        """Note how long an order of this kind took."""
        self._taken.setdefault(order, deque(maxlen=50)).append(seconds)
        self._doublings = 0

    def limit(self, order: str) -> float:
        """Seconds after which a worker that does such an order is given up."""
        taken = self._taken.get(order)
        limit = max(LEAST_SECONDS, TIMES * statistics.median(taken)) if taken else UNKNOWN_SECONDS
        return float(limit * 2**self._doublings)

    def gave_up(self) -> None:
        """Be more patient with the next one, until an order is finished: perhaps it was only slow."""
        self._doublings += 1
