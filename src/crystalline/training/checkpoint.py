"""Checkpoints: everything needed to go on as if nothing had happened, in one sealed folder per save.

    checkpoints/step-00000400/
        model.safetensors       the weights, fp32
        optimizer.safetensors   the optimizers' state
        state.json              step, tokens seen, what the guard and the evaluations remember
        recipe.json             every setting, settled
        tokenizer.json codes.json
        SHA256SUMS

A checkpoint has its final name only when it is complete and on the disk. Loading checks every byte; a damaged
checkpoint is named and passed over for the one before it. `checkpoints/best` leads to the one with the best
evaluation when that is wanted.
"""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from crystalline.errors import EXIT_SYSTEM, UserError
from crystalline.model import checkpoints, store
from crystalline.run_folder import (
    RunFolder,
    damage,
    new_folder,
    read_json,
    remove_folder,
    replace_link,
    reporting_os_errors,
    write_json,
)
from crystalline.tokens.codes import TokenCodes
from crystalline.training.optimizers import RangeOptimizer
from crystalline.training.parameters import FlatParameters

OPTIMIZER = "optimizer.safetensors"
STATE = "state.json"


@dataclass(frozen=True)
class Retention:
    """Which checkpoints stay on disk.

    newest: how many of the newest. anchors: steps that a rollback needs, the most needed first; they are counted
    among the newest, before all but the very newest.
    every: those of its multiples stay for good, if set. best: those of these steps stay too.
    """

    newest: int
    anchors: tuple[int, ...] = ()
    every: int | None = None
    best: frozenset[int] = frozenset()

    def staying(self, steps: list[int]) -> set[int]:
        """Those of `steps`, which come newest first, that stay."""
        ranked = dict.fromkeys(step for step in (*steps[:1], *self.anchors, *steps) if step in steps)
        extra = {step for step in steps if step in self.best or (self.every and step % self.every == 0)}
        return set(list(ranked)[: self.newest]) | extra


def save(
    run: RunFolder,
    step: int,
    parameters: FlatParameters,
    optimizers: list[RangeOptimizer],
    recipe: dict[str, Any],
    state: dict[str, Any],
    retention: Retention,
    codes: TokenCodes | None = None,
) -> Path:
    """Write the checkpoint of `step`, then remove those that need not stay. codes: if they are not those of the run.

    Raises UserError (exit code 5) when the disk does not take it; earlier checkpoints are then untouched.
    """
    folder = run.checkpoints / checkpoints.checkpoint_name(step)
    with reporting_os_errors(f"save the checkpoint {folder}"), new_folder(folder) as part:
        try:
            save_file(parameters.named(), part / checkpoints.WEIGHTS)
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
        write_json(part / checkpoints.RECIPE, recipe)
        for file in sorted(run.tokenizer.glob("*.json")):
            shutil.copy(file, part / file.name)
        if codes is not None:
            codes.save(part)
    prune(run, step, retention)
    return folder


def prune(run: RunFolder, step: int, retention: Retention) -> None:
    """Remove the checkpoints that need not stay, seen from `step`; two whole ones always stay."""
    folders = {checkpoints.step_of(folder): folder for folder in checkpoints.checkpoint_folders(run)}
    # Those of later steps are damaged or given up, or training would have gone on from them: they must not push out
    # good ones.
    staying = retention.staying([s for s in folders if s <= step])
    leaving = [s for s in folders if s not in staying]
    if leaving and all(damage(folders[s]) for s in staying if s != step):
        older_first = sorted(leaving, key=lambda s: s > step)
        whole = next((s for s in older_first if not damage(folders[s])), None)
        leaving = [s for s in leaving if s != whole]
    for s in leaving:
        with contextlib.suppress(OSError):  # what cannot be removed does no harm
            remove_folder(folders[s])


def mark_best(run: RunFolder, step: int | None) -> None:
    """Let `checkpoints/best` lead to the checkpoint of `step`; None, or one that is not there: to none."""
    link = run.checkpoints / checkpoints.BEST
    with reporting_os_errors(f"write to {run.checkpoints}"):
        if step is None or not (run.checkpoints / checkpoints.checkpoint_name(step)).exists():
            link.unlink(missing_ok=True)
        else:
            replace_link(link, checkpoints.checkpoint_name(step))


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
