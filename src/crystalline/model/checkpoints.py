"""Finding checkpoints on disk: the newest whole one of a run, or a checkpoint folder by itself. Reads no weights."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

from crystalline.errors import EXIT_DAMAGED, UserError
from crystalline.model import packed
from crystalline.run_folder import RunFolder, damage, read_json
from crystalline.settings import Generation

log = logging.getLogger("crystalline.model")
WEIGHTS = "model.safetensors"
RECIPE = "recipe.json"
BEST = "best"  # a link to the checkpoint with the best evaluation
_NAME = re.compile(r"step-\d{8,}")


def checkpoint_name(step: int) -> str:
    """The folder name of the checkpoint after `step` steps."""
    return f"step-{step:08d}"


def step_of(folder: Path) -> int:
    """Optimizer steps done, from the folder's name; 0 for an imported model."""
    return int(folder.name.removeprefix("step-")) if _NAME.fullmatch(folder.name) else 0


def checkpoint_folders(run: RunFolder) -> list[Path]:
    """Checkpoint folders of a run, newest first. Half-written ones have another name and are not among them."""
    if not run.checkpoints.is_dir():
        return []
    return sorted((p for p in run.checkpoints.iterdir() if _NAME.fullmatch(p.name)), reverse=True)


def newest_whole(run: RunFolder) -> Path | None:
    """The newest checkpoint folder whose every byte is as written; None when there is no checkpoint at all.

    Damaged ones are reported and passed over. Raises UserError (exit code 4) when all are damaged.
    """
    reasons = []
    folders = checkpoint_folders(run)
    for folder in folders:
        reason = damage(folder)
        if not reason:
            return folder
        reasons.append(reason)
        log.warning("checkpoint %s is damaged (%s); using the one before it", folder.name, reason)
    if folders:
        raise UserError(
            f"no checkpoint of {run.root} can be used",
            "; ".join(reasons),
            f"restore {run.checkpoints} from a backup, or delete it to train from the beginning",
            EXIT_DAMAGED,
        )
    return None


def find(path: Path) -> Path:
    """The folder with the model that `path` (a run folder, a checkpoint folder, a .cllm file) means, checked.

    Of a run folder without a checkpoint it is the model that its training starts from, if it has one.
    """
    if path.is_file():
        return packed.unpack(path)
    if (path / "config.json").exists() and not (path / RECIPE).exists():
        raise UserError(
            f"could not load the model in {path}",
            "it is a folder of the transformers library",
            f"make a run of it: cllm import {path} RUN",
        )
    if (path / WEIGHTS).exists():
        path = path.resolve() if path.is_symlink() else path  # checkpoints/best
        reason = damage(path)
        if reason:
            raise UserError(f"could not load the model in {path}", reason, "use another checkpoint", EXIT_DAMAGED)
        return path
    run = RunFolder.open(path)
    folder = newest_whole(run)
    if folder is None and run.start.exists():
        return find(run.start)
    if folder is None:
        raise UserError(f"there is no model in {path} yet", "it has not been trained", f"train it: cllm run {path}")
    return folder


def read_recipe(folder: Path) -> dict[str, Any]:
    """What the checkpoint in `folder` was trained by, every setting settled."""
    value: dict[str, Any] = read_json(folder / RECIPE)
    return value


def generation_defaults(folder: Path) -> Generation:
    """The [generation] settings that the checkpoint was trained with."""
    return Generation.model_validate(read_recipe(folder)["settings"]["generation"])
