"""Everything a run's folder tells, gathered for a page that one can keep.

`gather` reads, `page.render` writes HTML. Nothing is measured here; what is not known is left out.
"""

from __future__ import annotations

import json
import shlex
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from crystalline import __version__
from crystalline.errors import UserError
from crystalline.events import read
from crystalline.model import checkpoints, store
from crystalline.model.shape import Shape
from crystalline.pipeline import page, spheres
from crystalline.pipeline.curves import Course
from crystalline.pipeline.status import Standing
from crystalline.run_folder import RunFolder, read_json
from crystalline.settings import Settings

# Events that are shown in another form, or say nothing that lasts.
NOT_OF_NOTE = {
    "training.step",
    "training.spheres",
    "training.evaluation",
    "training.sample",
    "training.checkpoint",
    "stage.started",
}
FREE = {"workers", "tensorboard"}  # settings of [training] that change neither weights nor losses


def report(root: str | Path) -> str:
    """The page of the run in `root`, as one HTML document."""
    return page.render(gather(root))


@dataclass
class Report:
    """What a page shows. Fields that are None or empty are not known yet."""

    name: str
    facts: dict[str, Any]  # as in Standing.facts
    made: float  # when, in seconds since 1970
    version: str
    settings_text: str  # crystalline.toml
    recipe: dict[str, Any] | None
    shape: dict[str, int]
    text: dict[str, Any]  # report.json of the corpus
    history: History
    tree: dict[str, Any]  # as in spheres.describe
    scores: list[dict[str, Any]]  # of `cllm eval`, on all held-out text
    checkpoint: str = ""
    weights: str = ""  # SHA-256, or why there is none
    machine: dict[str, Any] = field(default_factory=dict)
    repeat: list[str] = field(default_factory=list)
    repeat_note: str = ""


class History:
    """The events of a run as it stands: what was done again after a kill or a rollback counts once, as done last."""

    def __init__(self) -> None:
        self._rows: list[tuple[float, ...]] = []
        self.evaluations: list[dict[str, Any]] = []
        self.samples: list[dict[str, Any]] = []
        self.notes: list[dict[str, Any]] = []
        self.checkpoints: list[dict[str, Any]] = []
        self.starts: list[dict[str, Any]] = []

    def take(self, event: dict[str, Any]) -> None:
        """Add the next event."""
        kind = event["kind"]
        if kind == "training.step":
            self._take_step(event)
        elif kind == "training.evaluation":
            self.evaluations.append(event)
        elif kind == "training.sample":
            self.samples.append(event)
        elif kind == "training.checkpoint":
            self.checkpoints.append(event)
        elif kind == "training.rollback":
            self._forget_after(event["to"])
        elif kind == "training.planned":
            self.starts = []  # another recipe: whatever was trained before was not this
        elif kind == "training.started":
            self.starts.append(event)
        if kind not in NOT_OF_NOTE:
            self.notes.append(event)

    def _take_step(self, event: dict[str, Any]) -> None:
        self._forget_after(event["step"] - 1)
        numbers = (event["loss"], event["gradient_norm"], event["rate"], event["tokens"], event["seconds"])
        self._rows.append((event["step"], *(np.nan if value is None else value for value in numbers)))

    def _forget_after(self, step: int) -> None:
        while self._rows and self._rows[-1][0] > step:
            self._rows.pop()
        for found in (self.evaluations, self.samples):
            while found and found[-1]["step"] > step:
                found.pop()

    def courses(self) -> dict[str, Course]:
        """loss, gradient_norm, rate (share of the peak), tokens (seen so far), seconds, tokens_per_second."""
        table = np.array(self._rows, np.float64).reshape(-1, 6)
        step, *columns = table.T
        found = dict(zip(("loss", "gradient_norm", "rate", "tokens", "seconds"), columns, strict=True))
        new = np.diff(found["tokens"], prepend=0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            found["tokens_per_second"] = new / found["seconds"]
        return {name: Course(step, y) for name, y in found.items()}


def gather(root: str | Path) -> Report:
    """Read the run folder. It may be in any state, also in use by another process."""
    run = RunFolder.open(root)
    standing, history = Standing(root), History()
    for event in read(run.events):
        standing.take(event)
        history.take(event)
    recipe = standing.recipe()
    made = Report(
        name=run.root.resolve().name,
        facts={**standing.facts(), "memory": standing.memory},
        made=time.time(),
        version=__version__,
        settings_text=run.settings.read_text("utf-8", "replace") if run.settings.exists() else "",
        recipe=recipe,
        shape=_shape(recipe),
        text=_json(run.corpus / "report.json"),
        history=history,
        tree=spheres.describe(standing),
        scores=sorted(
            (score for file in run.evaluation.glob("*.json") if (score := _json(file))), key=lambda s: s["step"]
        ),
    )
    made.checkpoint, made.weights = _weights(run)
    if recipe:
        started = history.starts[-1] if history.starts else {}
        made.machine = {**recipe.get("machine", {}), **started.get("machine", {})}
        made.repeat, made.repeat_note = repeat(recipe, history.starts, made.weights, str(run.start))
    return made


def _shape(recipe: dict[str, Any] | None) -> dict[str, int]:
    if not recipe:
        return {}
    shape = Shape(**recipe["shape"])
    return {
        **recipe["shape"],
        "parameters": shape.parameters,
        "block_parameters": shape.block_parameters,
        "flops_per_token": shape.flops_per_token,
    }


def _weights(run: RunFolder) -> tuple[str, str]:
    """The newest whole checkpoint's name, and the hash of its weights."""
    try:
        folder = checkpoints.newest_whole(run)
        return (folder.name, store.weights_hash(store.read_weights(folder))) if folder else ("", "")
    except UserError as error:
        return "", f"not known: {error.why}"
    except OSError as error:  # the run that is training has removed it meanwhile
        return "", f"not known: {error}"


def _json(path: Path) -> dict[str, Any]:
    """What is in a file of the run; nothing when it is not there or damaged."""
    try:
        value = read_json(path)
    except UserError:
        return {}
    return value if isinstance(value, dict) else {}


def repeat(
    recipe: dict[str, Any], starts: list[dict[str, Any]], weights: str, start: str = ""
) -> tuple[list[str], str]:
    """The commands that train the same weights again, on the same kind of machine, and what to know of them.

    start: the folder of the model that training starts from, if it was imported.
    """
    settings = Settings.model_validate(recipe["settings"])
    sources = " ".join(f"--from {shlex.quote(source)}" for source in settings.corpus.source)
    lengths = [start["steps"] for start in starts] or [settings.training.steps]
    flags = []
    for section, table in settings.model_dump(exclude_defaults=True).items():
        for name, value in table.items():
            if (section, name) == ("corpus", "source") or (section == "training" and name in FREE):
                continue
            if (section, name) == ("training", "steps"):
                value = lengths[0]
            assignment = f"{section}.{name}={json.dumps(value, ensure_ascii=False)}"
            flags.append(f"--set {shlex.quote(assignment)}")
    # A model that was imported lies in the run, as the folder that training starts from.
    made = f"cllm import {shlex.quote(start)} again" if start and "start" in recipe["text"] else "cllm new again"
    commands = [" \\\n  ".join([f"{made} {sources}", *flags]), "cllm run again"]
    note = ""
    for before, after in pairwise(starts):
        if after["steps"] != before["steps"]:
            commands.append(f"cllm run again --steps {after['steps']}")
            if after["step"] != before["steps"]:
                note = (
                    f"The length was changed from {before['steps']:,} to {after['steps']:,} steps at step "
                    f"{after['step']:,}, before the end: the learning rates before that step follow the first "
                    f"length, so the first command must be stopped at step {after['step']:,}."
                )
    hash_line = "cllm hash again"
    commands.append(hash_line + (f"   # {weights}" if len(weights) == 64 else ""))
    return commands, note
