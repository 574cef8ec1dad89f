"""Finding and reading a model on disk: the newest whole checkpoint of a run, or a checkpoint folder by itself."""

from __future__ import annotations

import hashlib
import logging
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from crystalline.errors import EXIT_DAMAGED, UserError
from crystalline.model.shape import Shape
from crystalline.model.transformer import Transformer, build
from crystalline.run_folder import RunFolder, damage, read_json
from crystalline.settings import Generation
from crystalline.tokens.codes import TokenCodes

log = logging.getLogger("crystalline.model")
WEIGHTS = "model.safetensors"
RECIPE = "recipe.json"
BEST = "best"  # a link to the checkpoint with the best evaluation
_NAME = re.compile(r"step-\d{8,}")


def checkpoint_name(step: int) -> str:
    """The folder name of the checkpoint after `step` steps."""
    return f"step-{step:08d}"


def step_of(folder: Path) -> int:
    """Optimizer steps done, from the folder's name."""
    return int(folder.name.removeprefix("step-"))


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
    """The folder with the model that `path` (a run folder or a checkpoint folder) means, checked."""
    if (path / WEIGHTS).exists():
        path = path.resolve() if path.is_symlink() else path  # checkpoints/best
        reason = damage(path)
        if reason:
            raise UserError(f"could not load the model in {path}", reason, "use another checkpoint", EXIT_DAMAGED)
        return path
    run = RunFolder.open(path)
    folder = newest_whole(run)
    if folder is None:
        raise UserError(f"there is no model in {path} yet", "it has not been trained", f"train it: cllm run {path}")
    return folder


def read_recipe(folder: Path) -> dict[str, Any]:
    """What the checkpoint in `folder` was trained by, every setting settled."""
    value: dict[str, Any] = read_json(folder / RECIPE)
    return value


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Name -> fp32 tensor."""
    weights: dict[str, Tensor] = load_file(folder / WEIGHTS)
    return weights


def read_model(folder: Path) -> Transformer:
    """The network of a checkpoint folder, ready to predict in the precision it was trained in."""
    recipe = read_recipe(folder)
    shape = Shape(**recipe["shape"])
    dtype = torch.bfloat16 if recipe["settings"]["training"]["precision"] == "bf16" else torch.float32
    model = build(shape, TokenCodes.load(folder), dtype)
    model.load_state_dict(read_weights(folder))
    model.embedding.hold(dtype)
    return model.eval().requires_grad_(False)


def generation_defaults(folder: Path) -> Generation:
    """The [generation] settings that the checkpoint was trained with."""
    return Generation.model_validate(read_recipe(folder)["settings"]["generation"])


def weights_hash(weights: dict[str, Tensor]) -> str:
    """SHA-256 over names, shapes and little-endian fp32 bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().contiguous()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
