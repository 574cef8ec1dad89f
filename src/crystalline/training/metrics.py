"""What each sphere has done: counts, losses, and where its time went."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

from crystalline.training.load import proportional_memory
from crystalline.training.position import PositionResult
from crystalline.training.worker import Answer

PARTS = ("compute", "sum", "reduce", "update", "sync", "idle")  # of a worker's time


@dataclass
class SphereRecord:
    """The record of a sphere; it goes on when its process is replaced by another.

    positions and tokens (targets) count what went into a step, so not what a dead worker had to leave to others.
    All times are in seconds. The worker measures, without a gap: `waited` (for orders), `busy` (positions; `summing`
    is the part of it spent with the exact sum) and `update` (its units; `reducing` is the part spent combining sums).
    Node Zero measures `sync`, the part of `waited` in which this worker had nothing left to do while others still
    worked on the same part of the step. The rest of `waited` is idle: on the way from order to order, while Node Zero
    decides, saves or is paused, and the start of the process. So busy + update + idle + sync is its wall time.
    """

    number: int
    pid: int = 0
    state: str = "starting"  # "starting", "waiting", "computing" or "updating"
    core: int | None = None  # that it is kept to; None: any that the run may use
    places: list[int] = field(default_factory=list)  # positions computed in this step
    delivered: int = 0  # how many of these are in the sum that others see, for a worker with a device of its own
    targets: int = 0  # in these
    nats: float = 0.0  # sum of -ln p over these
    loss: float | None = None  # mean of that, in nats per token
    positions: int = 0
    tokens: int = 0
    steals: int = 0  # positions beyond its even share of a step: taken over from slower ones
    busy: float = 0.0
    summing: float = 0.0
    update: float = 0.0
    reducing: float = 0.0
    waited: float = 0.0
    sync: float = 0.0
    seconds: float = 0.0  # wall time of processes that have ended
    messages: int = 0  # orders and answers
    errors: int = 0  # exceptions, deaths and hangs together
    deaths: int = 0
    hung: int = 0
    memory: int | None = None  # bytes; pages that several processes share in equal parts, None: not read yet
    memory_read: float = 0.0  # when, by the monotonic clock
    peak: int = 0  # bytes, what is shared counted in full

    def begin_step(self) -> None:
        """A new step: nothing is done of it."""
        self.places, self.delivered, self.targets, self.nats = [], 0, 0, 0.0

    def took(self, order: str, answer: Answer) -> None:
        """Add the times of an answer. order: "start" or one of `worker.main`."""
        self.messages += 1 if order == "start" else 2
        self.peak = answer.memory
        self.waited += answer.waited
        if order == "start":
            self.waited += answer.busy
        elif order == "compute":
            self.busy += answer.busy
            self.summing += answer.summing
        else:
            self.update += answer.busy
            self.reducing += answer.busy if order in ("deliver", "total", "reduce") else 0.0

    def computed(self, place: int, result: PositionResult, targets: int, fair: int) -> None:
        """Count a position. fair: its even share of a step."""
        self.places.append(place)
        self.positions += 1
        self.steals += len(self.places) > fair
        self.targets += targets
        self.tokens += targets
        self.nats += result.loss
        self.loss = self.nats / self.targets if self.targets and math.isfinite(self.nats) else None

    def begin(self, pid: int) -> None:
        """A process starts to be this sphere."""
        self.pid, self.state, self.memory = pid, "starting", None

    def undone(self) -> None:
        """What it has done of this step is done again by others."""
        self.positions -= len(self.places)
        self.tokens -= self.targets
        self.begin_step()

    def ended(self, order: str, waited: float, seconds: float, wall: float) -> None:
        """Its process has ended after `wall` seconds.

        What it has not told: that it `waited`, and was then for `seconds` at an order, or still waited ("").
        """
        self.seconds += wall
        self.waited += waited
        if order == "compute":
            self.busy += seconds
        elif order in ("deliver", "total", "reduce", "update"):
            self.update += seconds
        else:
            self.waited += seconds

    def read_memory(self) -> None:
        """Look how much memory its process has now."""
        self.memory, self.memory_read = proportional_memory(self.pid), time.monotonic()

    def told(self, since: float, order: str, changed: float) -> dict[str, Any]:
        """The record in words and numbers that JSON has.

        since: when its process began. order: what it is at, "" when it waits, and changed: since when, by the
        monotonic clock.

        memory: bytes when last read; pages that several processes share in equal parts (Pss) where the system tells,
        else the peak with what is shared counted in full.
        """
        now = time.monotonic()
        names = (
            "number",
            "pid",
            "state",
            "core",
            "places",
            "positions",
            "tokens",
            "loss",
            "steals",
            "busy",
            "update",
        )
        waiting = 0.0 if order else now - changed  # what it is at is counted when it is done
        return {name: getattr(self, name) for name in names} | {
            "idle": self.times(waiting)["idle"],
            "sync": self.sync,
            "seconds": self.seconds + now - since,
            "summing": self.summing,
            "reducing": self.reducing,
            **{name: getattr(self, name) for name in ("messages", "errors", "deaths", "hung")},
            "memory": self.memory or self.peak,
        }

    def times(self, waiting: float = 0.0) -> dict[str, float]:
        """Seconds by PARTS. waiting: for how long it has waited since its last answer."""
        return {
            "compute": self.busy - self.summing,
            "sum": self.summing,
            "reduce": self.reducing,
            "update": self.update - self.reducing,
            "sync": self.sync,
            "idle": max(0.0, self.waited + waiting - self.sync),
        }
