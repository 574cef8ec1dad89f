"""How far a run is, computed from its events and its lock; nothing is kept for it."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections import deque
from pathlib import Path
from typing import Any

from crystalline.events import read
from crystalline.run_folder import RunFolder, read_json

RECENT = 20  # steps whose median time is the speed


def status(root: str | Path) -> dict[str, Any]:
    """state ("new", "preparing", "training", "paused", "stopped" or "done"), step, steps, loss, bits_per_byte,
    tokens_per_second, seconds_left, spheres, best ({"step", "bits_per_byte"}, where evaluations decide), ended_early,
    drops, rollbacks. What is not known is None."""
    run = RunFolder.open(root)
    recent: deque[dict[str, Any]] = deque(maxlen=RECENT)
    spheres: list[dict[str, float]] = []
    bits_per_byte, order, stage, ended_early, step, best = None, "", False, False, 0, None
    drops = rollbacks = 0
    for event in read(run.events):
        kind = event["kind"]
        stage = stage or kind.startswith("stage.")
        if kind == "training.step":
            recent.append(event)
            step = event["step"]
        elif kind == "training.rollback":
            recent.clear()
            step, rollbacks = event["to"], rollbacks + 1
        elif kind == "training.dropped":
            drops += 1
        elif kind == "training.best":
            best = {"step": event["step"], "bits_per_byte": event["bits_per_byte"]}
        elif kind == "training.ended_early":
            ended_early = True
        elif kind == "training.evaluation":
            bits_per_byte = event["bits_per_byte"]
        elif kind == "training.spheres":
            spheres = event["spheres"]
        elif kind == "training.order" and event["order"] in ("pause", "resume"):
            order = event["order"]
        elif kind == "training.started":
            order, spheres, ended_early = "", [], False
    steps = read_json(run.recipe)["settings"]["training"]["steps"] if run.recipe.exists() else None
    working = run.is_locked()
    seconds = statistics.median(event["seconds"] for event in recent) if recent else None
    tokens = recent[-1]["tokens"] - recent[0]["tokens"] if len(recent) > 1 else 0
    speed = tokens / sum(e["seconds"] for e in list(recent)[1:]) if tokens else None
    if working:
        state = "paused" if order == "pause" else "training" if step and step < (steps or 0) else "preparing"
    elif step:
        state = "done" if step == steps or ended_early else "stopped"
    else:
        state = "stopped" if stage else "new"
    left = (steps - step) * seconds if working and steps and seconds is not None else None
    return {
        "run": str(run.root),
        "state": state,
        "step": step,
        "steps": steps,
        "loss": recent[-1]["loss"] if recent else None,
        "bits_per_byte": bits_per_byte,
        "tokens_per_second": speed if working else None,
        "seconds_left": left,
        "spheres": spheres if working else [],
        "best": best,
        "ended_early": ended_early,
        "drops": drops,
        "rollbacks": rollbacks,
    }


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
