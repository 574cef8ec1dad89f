"""Orders to a run that is training, from another process: files in the run folder, looked for once a step.

An order is a file `commands/NAME.json`, written whole. Node Zero does it and removes it. Orders that nobody is there
to take are removed when training starts next.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from crystalline.errors import EXIT_USAGE, UserError
from crystalline.run_folder import RunFolder, read_json, reporting_os_errors, write_json

NAMES = ("pause", "resume", "stop", "checkpoint", "workers", "rebalance")


def send(run: RunFolder, name: str, **arguments: Any) -> None:
    """Leave an order for the process that trains `run`. Raises UserError when none does."""
    if not run.is_locked():
        raise UserError(
            f"could not send '{name}' to {run.root}",
            "no process trains it now",
            f"start it: cllm run {run.root}",
            EXIT_USAGE,
        )
    with reporting_os_errors(f"write to {run.commands}"):
        run.commands.mkdir(exist_ok=True)
        write_json(run.commands / f"{name}.json", arguments)


def clear(run: RunFolder) -> None:
    """Forget orders of earlier times."""
    shutil.rmtree(run.commands, ignore_errors=True)


def take(run: RunFolder) -> list[tuple[str, dict[str, Any]]]:
    """The orders that are there, (name, arguments), in the order in which they were given; they are removed."""
    if not run.commands.is_dir():
        return []
    found: list[tuple[str, dict[str, Any]]] = []
    for file in sorted(run.commands.glob("*.json"), key=_written):
        if file.stem in NAMES:
            found.append((file.stem, read_json(file)))
        file.unlink(missing_ok=True)
    return found


def _written(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except FileNotFoundError:
        return 0.0
