"""Checkpoints: everything needed to go on as if nothing had happened, in one sealed folder per save.

    checkpoints/step-00000400/
        model.safetensors       the weights, fp32
        optimizer.safetensors   the optimizers' state
        state.json              step, tokens seen
        recipe.json             every setting, settled
        tokenizer.json codes.json
        SHA256SUMS

A checkpoint has its final name only when it is complete and on the disk. Loading checks every byte; a damaged
checkpoint is named and passed over for the one before it.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from crystalline.errors import EXIT_SYSTEM, UserError
from crystalline.model import store
from crystalline.run_folder import RunFolder, new_folder, read_json, reporting_os_errors, write_json
from crystalline.training.optimizers import RangeOptimizer
from crystalline.training.parameters import FlatParameters

OPTIMIZER = "optimizer.safetensors"
STATE = "state.json"


def save(
    run: RunFolder,
    step: int,
    parameters: FlatParameters,
    optimizers: list[RangeOptimizer],
    recipe: dict[str, Any],
    state: dict[str, Any],
    keep: int,
) -> Path:
    """Write the checkpoint of `step`, then remove all but the last `keep` up to it.

    Raises UserError (exit code 5) when the disk does not take it; earlier checkpoints are then untouched.
    """
    folder = run.checkpoints / store.checkpoint_name(step)
    with reporting_os_errors(f"save the checkpoint {folder}"), new_folder(folder) as part:
        try:
            save_file(parameters.named(), part / store.WEIGHTS)
            tensors = {f"{i}.{name}": t for i, o in enumerate(optimizers) for name, t in o.state.items()}
            save_file(tensors, part / OPTIMIZER)
        except SafetensorError as error:  # the library's wrapping of an OSError
            raise UserError(
                f"could not save the checkpoint {folder}",
                str(error),
                "free some disk space or mend permissions, then give the same command again: it continues",
                EXIT_SYSTEM,
            ) from error
        write_json(part / STATE, {"step": step, **state})
        write_json(part / store.RECIPE, recipe)
        for file in sorted(run.tokenizer.glob("*.json")):
            shutil.copy(file, part / file.name)
    folders = store.checkpoint_folders(run)
    # Those of later steps are damaged, or training would have gone on from them: they must not push out good ones.
    later = [f for f in folders if store.step_of(f) > step]
    for old in later + folders[len(later) + keep :]:
        shutil.rmtree(old, ignore_errors=True)
    return folder


def restore(folder: Path, parameters: FlatParameters, optimizers: list[RangeOptimizer]) -> dict[str, Any]:
    """Put the saved weights and optimizer state in place; return the saved `state`, its "step" included."""
    saved = store.read_weights(folder)
    for name, view in parameters.named().items():
        view.copy_(saved[name])
    tensors = load_file(folder / OPTIMIZER)
    for index, optimizer in enumerate(optimizers):
        for name, tensor in optimizer.state.items():
            tensor.copy_(tensors[f"{index}.{name}"])
    state: dict[str, Any] = read_json(folder / STATE)
    return state
