"""The events of a run: one append-only file that every stage writes and every monitor reads.

A line is one JSON object: `v` (format version), `seq` (1, 2, 3, ... within the run), `time` (seconds
since 1970, UTC), `kind` (such as "training.step") and the fields of that kind. Readers may follow
the file while it is written; a half-written last line (after a kill) is never shown to them, and the
next writer cuts it off.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from crystalline.run_folder import reporting_os_errors

VERSION = 1


class EventLog:
    """Writer of one run's events. Hold the run folder's lock while writing.

    path: the events file; created when missing.
    clock: seconds since 1970 (replaced in tests).
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self.path, self._clock = path, clock
        with reporting_os_errors(f"write to {path}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._seq = self._mend()
            self._file = open(path, "ab", buffering=0)
        self.followers: list[Callable[[dict[str, Any]], None]] = []  # told of each event once it is written

    def _mend(self) -> int:
        """Cut a half-written last line off; return the last event's number."""
        if not self.path.exists():
            return 0
        with open(self.path, "rb+") as file:
            size = file.seek(0, os.SEEK_END)
            tail_start = max(0, size - 1_000_000)
            file.seek(tail_start)
            tail = file.read()
            end = tail.rfind(b"\n") + 1
            if end < len(tail):
                file.truncate(tail_start + end)
        whole = (event for line in reversed(tail[:end].splitlines()) if (event := _event(line)))
        return int(next(whole, {"seq": 0})["seq"])

    def write(self, kind: str, **fields: Any) -> None:
        """Append one event. A single write call, so that a reader sees whole lines only."""
        self._seq += 1
        event = {"v": VERSION, "seq": self._seq, "time": round(self._clock(), 3), "kind": kind, **fields}
        line = json.dumps(event, ensure_ascii=False).encode() + b"\n"
        with reporting_os_errors(f"write to {self.path}"):
            if self._file.write(line) != len(line):  # as much as fitted
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        for follower in self.followers:
            follower(event)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> EventLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read(path: Path, kind: str = "") -> Iterator[dict[str, Any]]:
    """The events in `path`, in order; only those whose kind starts with `kind`.

    A missing file has no events. An incomplete last line is passed over, and so is a damaged one.
    """
    return (event for event in Reader(path).new() if event["kind"].startswith(kind))


class Reader:
    """Follows a file of events that another process writes: each call of `new` gives what has come since the last."""

    def __init__(self, path: Path) -> None:
        self.path, self._read = path, 0  # bytes

    def new(self) -> Iterator[dict[str, Any]]:
        """The events that were not given yet, in order. A missing file has none; half a line waits for its end."""
        if not self.path.exists():
            return
        with open(self.path, "rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._read += len(line)
                if event := _event(line):
                    yield event


def _event(line: bytes) -> dict[str, Any] | None:
    """The event in a line; None when the line is damaged: a run is not lost with a line of its history."""
    try:
        event = json.loads(line)
        return event if isinstance(event["seq"], int) and isinstance(event["kind"], str) else None
    except (ValueError, KeyError, TypeError):
        return None
