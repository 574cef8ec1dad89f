"""How far a run is, computed from its events and its lock; nothing is kept for it."""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections import deque
from pathlib import Path
from typing import Any

from crystalline.events import Reader, read
from crystalline.run_folder import RunFolder, read_json

RECENT = 20  # steps whose median time is the speed
CURVE_POINTS = 256  # most points of the loss that are kept to draw it small


def status(root: str | Path) -> dict[str, Any]:
    """The facts of the run in `root`, as in `Standing.facts`."""
    standing = Standing(root)
    standing.catch_up()
    return standing.facts()


class Standing:
    """What the events of a run add up to. `take` each event in order, or `catch_up` with the file; then ask."""

    def __init__(self, root: str | Path) -> None:
        self.run = RunFolder.open(root)
        self._reader = Reader(self.run.events)
        self._last: dict[str, Any] = {}  # step
        self._recent: deque[dict[str, Any]] = deque(maxlen=RECENT)  # steps since training was started last
        self._started: dict[str, Any] = {}
        self._evaluation: dict[str, Any] = {}
        self._spheres: dict[str, Any] = {}
        self._curve = Curve()
        self._dropped: set[tuple[int, int]] = set()  # (rollbacks before it, step)
        self._rollbacks = 0
        self._best: dict[str, Any] | None = None
        self._ended_early = False
        self._order, self._stage = "", False
        self._recipe: dict[str, Any] | None = None

    def catch_up(self) -> bool:
        """Take what is new in the file of events; whether there was something."""
        found = False
        for event in self._reader.new():
            self.take(event)
            found = True
        return found

    def take(self, event: dict[str, Any]) -> None:
        """Add the next event."""
        kind = event["kind"]
        self._stage = self._stage or kind.startswith("stage.")
        if kind == "training.step":
            self._take_step(event)
        elif kind == "training.evaluation":
            self._evaluation = event
        elif kind == "training.spheres":
            self._spheres = event
        elif kind == "training.order" and event["order"] in ("pause", "resume"):
            self._order = event["order"]
        elif kind == "training.dropped":
            self._dropped.add((self._rollbacks, event["step"]))
        elif kind == "training.rollback":
            self._rollbacks += 1
            self._forget_after(event["to"])
            self._last = self._recent[-1] if self._recent else {"step": event["to"]}
        elif kind == "training.best":
            self._best = {"step": event["step"], "bits_per_byte": event["bits_per_byte"]}
        elif kind == "training.ended_early":
            self._ended_early = True
        elif kind in ("training.planned", "training.started"):
            self._recipe = None  # there may be another one now
            if kind == "training.started":
                self._order, self._spheres, self._started, self._ended_early = "", {}, event, False
                self._recent.clear()
        elif kind == "training.finished":
            self._recent.clear()

    def _take_step(self, event: dict[str, Any]) -> None:
        self._forget_after(event["step"] - 1)  # after a kill, steps are done again
        self._recent.append(event)
        self._last = event
        self._curve.add(event["step"], event["loss"])
        if event["gradient_norm"] is None or event["loss"] is None:
            self._dropped.add((self._rollbacks, event["step"]))

    def _forget_after(self, step: int) -> None:
        while self._recent and self._recent[-1]["step"] > step:
            self._recent.pop()
        self._curve.forget_after(step)

    def recipe(self) -> dict[str, Any] | None:
        """recipe.json of the run; None before it is there."""
        if self._recipe is None and self.run.recipe.exists():
            self._recipe = read_json(self.run.recipe)
        return self._recipe

    def facts(self) -> dict[str, Any]:
        """What is known now; what is not is None.

        state: "new", "preparing", "training", "paused", "stopped" or "done". step, steps, tokens, drops, rollbacks:
        counts. loss: nats per token of the last step, perplexity: e to that. curve: (step, loss) over the run.
        gradient_norm, rate (the share of the peak rates), learning_rate (of the matrices). bits_per_byte,
        held_out_perplexity, evaluated_step: of the last evaluation; best: {"step", "bits_per_byte"} of the best
        one, if the best is kept. ended_early: the evaluations got no better. While a process works in the run:
        tokens_per_second, peak_share (model FLOPs utilization, 1 is the measured matrix peak of all workers), memory
        in bytes (what processes share counted once), seconds_left, spheres.
        """
        last, working = self._last, self.run.is_locked()
        step, steps = last.get("step", 0), self._steps()
        speed = self._speed() if working else None
        return {
            "run": str(self.run.root),
            "state": self._state(working, step, steps),
            "step": step,
            "steps": steps,
            "tokens": last.get("tokens"),
            "loss": last.get("loss"),
            "perplexity": _exp(last.get("loss")),
            "curve": self._curve.points,
            "gradient_norm": last.get("gradient_norm"),
            "rate": last.get("rate"),
            "learning_rate": self._learning_rate(last.get("rate")),
            "bits_per_byte": self._evaluation.get("bits_per_byte"),
            "held_out_perplexity": _exp(self._evaluation.get("cross_entropy")),
            "evaluated_step": self._evaluation.get("step"),
            "tokens_per_second": speed,
            "peak_share": self._peak_share(speed),
            "memory": self.memory if working else None,
            "seconds_left": self._seconds_left(step, steps) if working else None,
            "best": self._best,
            "ended_early": self._ended_early,
            "drops": len(self._dropped),
            "rollbacks": self._rollbacks,
            "spheres": self.spheres() if working else [],
        }

    @property
    def memory(self) -> int | None:
        """Bytes that all processes of the run had in memory when last recorded; what they share counts once."""
        return self._spheres.get("memory")

    def spheres(self) -> list[dict[str, Any]]:
        """The workers as last recorded since training started, each with `share`: busy, of the time it was there.

        Only `number` is certain to be known of each: older runs recorded less.
        """
        began, now = self._started.get("time"), self._spheres.get("time")
        elapsed = now - began if began is not None and now is not None else None
        return [{**sphere, "share": busy_share(sphere, elapsed)} for sphere in self._spheres.get("spheres", [])]

    def _state(self, working: bool, step: int, steps: int | None) -> str:
        if working:
            if self._order == "pause":
                return "paused"
            return "training" if self._recent else "preparing"
        if self._last:
            return "done" if step == steps or self._ended_early else "stopped"
        return "stopped" if self._stage else "new"

    def _steps(self) -> int | None:
        recipe = self.recipe()
        return recipe["settings"]["training"]["steps"] if recipe else None

    def _speed(self) -> float | None:
        """Tokens a second over the recent steps."""
        if len(self._recent) < 2:
            return None
        tokens = self._recent[-1]["tokens"] - self._recent[0]["tokens"]
        seconds = sum(event["seconds"] for event in list(self._recent)[1:])
        return tokens / seconds if tokens and seconds else None

    def _seconds_left(self, step: int, steps: int | None) -> float | None:
        if not steps or not self._recent:
            return None
        return (steps - step) * float(statistics.median(event["seconds"] for event in self._recent))

    def _peak_share(self, speed: float | None) -> float | None:
        """Operations that the model needs for the tokens of a second, as a share of what the workers could do."""
        one = self._started.get("peak_flops")
        workers = len(self._spheres.get("spheres", [])) or self._started.get("workers")
        if not (speed and one and workers):
            return None
        return float(speed * self._started["flops_per_token"] / (one * workers))

    def _learning_rate(self, rate: float | None) -> float | None:
        recipe = self.recipe()
        return float(rate * recipe["settings"]["optimizer"]["learning_rate"]) if recipe and rate is not None else None


class Curve:
    """A few points of a long curve: when there are too many, each two neighbours become their mean."""

    def __init__(self, most: int = CURVE_POINTS) -> None:
        self.most, self.points = most, list[tuple[float, float]]()
        self._each = 1  # steps that a point stands for
        self._open: list[tuple[float, float]] = []  # of the point that is not full yet

    def add(self, x: float, y: float | None) -> None:
        """Add a measurement; None is none."""
        if y is None:
            return
        self._open.append((x, y))
        if len(self._open) == self._each:
            self.points.append(_mean(self._open))
            self._open = []
        if len(self.points) >= self.most:
            self.points = [_mean(self.points[i : i + 2]) for i in range(0, len(self.points), 2)]
            self._each *= 2

    def forget_after(self, x: float) -> None:
        """Forget what was measured beyond `x`."""
        while self.points and self.points[-1][0] > x:
            self.points.pop()
        self._open = [point for point in self._open if point[0] <= x]


def _mean(points: list[tuple[float, float]]) -> tuple[float, float]:
    return sum(x for x, _ in points) / len(points), sum(y for _, y in points) / len(points)


def busy_share(sphere: dict[str, Any], elapsed: float | None) -> float | None:
    """The share of its time that a worker has computed, positions or updates; 0 to 1, None when it is not known.

    elapsed: seconds since training started, for records without the times of waiting.
    """
    if "busy" not in sphere:
        return None
    busy = sphere["busy"] + sphere.get("update", 0.0)
    if "idle" in sphere:
        elapsed = busy + sphere["idle"] + sphere.get("sync", 0.0)
    return min(1.0, busy / elapsed) if elapsed else None


def _exp(nats: float | None) -> float | None:
    """Perplexity of a cross-entropy; as large as a number can be when it is beyond that."""
    return math.exp(min(nats, 700.0)) if nats is not None else None


def log_hash(root: str | Path, steps: int) -> str:
    """SHA-256 of what the first `steps` steps have measured: loss, gradient norm, rate, tokens.

    A step that was done again after a kill counts once; that it gives the same numbers is what the hash shows. Steps
    that were given up by going back to a checkpoint do not count.
    """
    run = RunFolder.open(root)
    names = ("loss", "gradient_norm", "rate", "tokens")
    found: dict[int, list[float | None]] = {}
    for event in read(run.events, "training."):
        if event["kind"] == "training.step" and event["step"] <= steps:
            found[event["step"]] = [event[name] for name in names]
        elif event["kind"] == "training.rollback":
            found = {step: facts for step, facts in found.items() if step <= event["to"]}
    return hashlib.sha256(json.dumps(sorted(found.items())).encode()).hexdigest()
