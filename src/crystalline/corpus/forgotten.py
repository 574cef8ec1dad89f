"""The sources of a run that its next corpus is to be without, kept in RUN/forgotten.json."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from crystalline.corpus.files import Skipped
from crystalline.corpus.sources import Found
from crystalline.errors import UserError
from crystalline.run_folder import RunFolder, read_json, reporting_os_errors, write_json

REASON = "forgotten"


def forgotten(run: RunFolder) -> list[dict[str, Any]]:
    """What is to be left out: {"source", "since" (seconds since 1970)}, in the order in which it was asked for."""
    if not run.forgotten.exists():
        return []
    entries: list[dict[str, Any]] = read_json(run.forgotten)["forgotten"]
    return entries


def forget(run: RunFolder, source: str) -> None:
    """Leave out `source` (a file, folder, page or site) from the next corpus on."""
    entries = forgotten(run)
    if all(entry["source"] != source for entry in entries):
        _write(run, [*entries, {"source": source, "since": round(time.time(), 3)}])


def take_back(run: RunFolder, source: str) -> None:
    """Do not leave out `source` any more. UserError when it is not forgotten."""
    entries = forgotten(run)
    rest = [entry for entry in entries if entry["source"] != source]
    if len(rest) == len(entries):
        names = ", ".join(entry["source"] for entry in entries) or "nothing"
        raise UserError(
            f"could not take back {source}",
            f"it is not forgotten in {run.root} ({names} is)",
            f"see what is: cllm forget {run.root} --list",
        )
    _write(run, rest)


def covers(entry: str, source: str) -> bool:
    """Whether to forget `entry` means to forget `source`: it is the same, or lies in that folder, site or archive."""
    return source == entry or source.startswith((entry.rstrip("/") + "/", entry + "!"))


def without(found: Iterable[Found | Skipped], entries: Collection[str]) -> Iterator[Found | Skipped]:
    """What was found, with files and pages that are to be forgotten passed over."""
    for item in found:
        if not isinstance(item, Skipped) and any(covers(entry, item.source) for entry in entries):
            yield Skipped(item.source, REASON)
        else:
            yield item


def _write(run: RunFolder, entries: list[dict[str, Any]]) -> None:
    with reporting_os_errors(f"write {run.forgotten}"):
        write_json(run.forgotten, {"forgotten": entries})
