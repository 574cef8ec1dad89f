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
    tokens_per_second, seconds_left, spheres. What is not known is None."""
    run = RunFolder.open(root)
    recent: deque[dict[str, Any]] = deque(maxlen=RECENT)
    spheres: list[dict[str, float]] = []
    bits_per_byte, order, stage = None, "", False
    for event in read(run.events):
        kind = event["kind"]
        stage = stage or kind.startswith("stage.")
        if kind == "training.step":
            recent.append(event)
        elif kind == "training.evaluation":
            bits_per_byte = event["bits_per_byte"]
        elif kind == "training.spheres":
            spheres = event["spheres"]
        elif kind == "training.order" and event["order"] in ("pause", "resume"):
            order = event["order"]
        elif kind == "training.started":
            order, spheres = "", []
    steps = read_json(run.recipe)["settings"]["training"]["steps"] if run.recipe.exists() else None
    step = recent[-1]["step"] if recent else 0
    working = run.is_locked()
    seconds = statistics.median(event["seconds"] for event in recent) if recent else None
    tokens = recent[-1]["tokens"] - recent[0]["tokens"] if len(recent) > 1 else 0
    speed = tokens / sum(e["seconds"] for e in list(recent)[1:]) if tokens else None
    if working:
        state = "paused" if order == "pause" else "training" if recent and step < (steps or 0) else "preparing"
    elif recent:
        state = "done" if step == steps else "stopped"
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
    }


def log_hash(root: str | Path, steps: int) -> str:
    """SHA-256 of what the first `steps` steps have measured: loss, gradient norm, rate, tokens.

    A step that was done again after a kill counts once; that it gives the same numbers is what the hash shows.
    """
    run = RunFolder.open(root)
    names = ("loss", "gradient_norm", "rate", "tokens")
    found = {e["step"]: [e[name] for name in names] for e in read(run.events, "training.step") if e["step"] <= steps}
    return hashlib.sha256(json.dumps(sorted(found.items())).encode()).hexdigest()
