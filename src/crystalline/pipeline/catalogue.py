"""The runs below a folder and how far each one is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from crystalline.errors import UserError
from crystalline.events import read
from crystalline.model import checkpoints
from crystalline.model.shape import Shape
from crystalline.run_folder import RunFolder

DEPTH = 3  # folders below the one given that are looked at


def runs_below(folder: str | Path) -> list[dict[str, Any]]:
    """One entry a run: name, parameters, step, steps, last bits per byte, problem."""
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise UserError(f"could not look below {root}", "it is not a folder", "give the path of a folder")
    patterns = ["/".join(["*"] * depth + ["manifest.json"]) for depth in range(DEPTH + 1)]
    manifests = {path for pattern in patterns for path in root.glob(pattern)}
    return [_entry(path.parent) for path in sorted(manifests) if (path.parent / "crystalline.toml").exists()]


def _entry(path: Path) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "run": str(path), "parameters": None, "step": 0, "steps": None, "bits_per_byte": None, "problem": None
    }  # fmt: skip
    try:
        run = RunFolder.open(path)
        folders = checkpoints.checkpoint_folders(run)
        if folders:
            recipe = checkpoints.read_recipe(folders[0])
            entry["parameters"] = Shape(**recipe["shape"]).parameters
            entry["step"] = checkpoints.step_of(folders[0])
            entry["steps"] = recipe["settings"]["training"]["steps"]
            for event in read(run.events, "training.evaluation"):
                entry["bits_per_byte"] = event["bits_per_byte"]
    except UserError as error:
        entry["problem"] = error.why
    return entry
