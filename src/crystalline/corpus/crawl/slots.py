"""Crawler: who works on a crawl now. A worker holds a numbered lock, which the kernel frees when its process ends."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

from crystalline.errors import EXIT_BUSY, UserError
from crystalline.run_folder import reporting_os_errors

SLOTS = 64  # most workers on one crawl


class Slot:
    """A numbered lock on a crawl's folder: its holder is one worker."""

    def __init__(self, number: int, handle: TextIO) -> None:
        self.number, self._handle = number, handle

    def release(self) -> None:
        """Give the lock back (the kernel does it too, when the process ends)."""
        self._handle.close()

    @classmethod
    def take(cls, folder: Path, numbers: Iterable[int], patience: float = 0.0) -> Slot:
        """The first free one of `numbers`; waits up to `patience` seconds. Raises UserError when none is."""
        numbers = list(numbers)
        end = time.monotonic() + patience
        with reporting_os_errors(f"lock {folder}"):
            folder.mkdir(parents=True, exist_ok=True)
            while True:
                for number in numbers:
                    if handle := _locked(folder, number):
                        return cls(number, handle)
                if time.monotonic() >= end:
                    raise UserError(
                        f"could not start in {folder}",
                        "another process crawls into this folder",
                        "wait until it ends or stop it, or crawl along with it: --join",
                        EXIT_BUSY,
                    )
                time.sleep(0.05)


def in_use(folder: Path) -> list[int]:
    """The numbers of the workers that crawl into this folder now."""
    found = []
    for path in folder.glob("lock-*"):
        number = int(path.name[5:])
        if handle := _locked(folder, number):
            handle.close()
        else:
            found.append(number)
    return sorted(found)


def _locked(folder: Path, number: int) -> TextIO | None:
    handle = open(folder / f"lock-{number}", "a")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        return None
    return handle
