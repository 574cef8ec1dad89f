"""What the machine is doing: cores that other processes keep busy, memory of a process, kills for lack of memory.

All of it is read from /proc. On systems without it there is the load average, and the rest is not known.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from crystalline import processes

PROC = Path("/proc")
LOOK_SECONDS = 1.0  # between two readings; the kernel counts in hundredths of a second
SMOOTHING_SECONDS = 5.0  # a burst that is much shorter changes nothing
TOO_MANY, ROOM = 0.5, 0.25  # cores; the distance between them keeps workers from coming and going


class OtherLoad:
    """How many cores other processes keep busy, smoothed over some seconds.

    proc: where the kernel's files are; clock: seconds (both replaced in tests).
    """

    def __init__(self, proc: Path = PROC, clock: Callable[[], float] = time.monotonic) -> None:
        self._proc, self._clock = proc, clock
        self._last: tuple[float, float, dict[int, float]] | None = None  # when, busy seconds of all, of each own
        self.cores: float | None = None  # None: not known yet

    def look(self, own: Iterable[int]) -> float | None:
        """The load, read again if the last time is long enough ago. own: process numbers that do not count."""
        now = self._clock()
        if self._last is not None and now - self._last[0] < LOOK_SECONDS:
            return self.cores
        mine = {pid: cpu_seconds(pid, self._proc) for pid in own}
        busy = _busy_seconds(self._proc, processes.allowed_cores())
        if busy is None:
            self.cores = max(0.0, os.getloadavg()[0] - len(mine) + 1)  # Node Zero itself only waits
        elif self._last is not None:
            then, busy_then, mine_then = self._last
            # A process that was not there before has done all its work since.
            by_own = sum(seconds - mine_then.get(pid, 0.0) for pid, seconds in mine.items())
            measured = max(0.0, (busy - busy_then - by_own) / (now - then))
            weight = 1 - math.exp(-(now - then) / SMOOTHING_SECONDS)
            self.cores = measured if self.cores is None else self.cores + weight * (measured - self.cores)
        self._last = now, busy or 0.0, mine
        return self.cores


def fitting(count: int, others: float, cores: int) -> int:
    """How many workers fit beside `others` busy cores of `cores`, when there are `count` now. At least 1."""
    while count > 1 and count + others > cores + TOO_MANY:
        count -= 1
    while count < cores and count + 1 + others <= cores + ROOM:
        count += 1
    return min(count, cores)


def cpu_seconds(pid: int, proc: Path = PROC) -> float:
    """Processor time that a process has used, 0 when it is not there."""
    try:
        fields = (proc / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError):
        return 0.0


def proportional_memory(pid: int) -> int | None:
    """Bytes of a process in memory, a page that n processes share counted as 1/n of a page; None if not known.

    The kernel's Pss. Over all processes of a run it adds up to what the run takes. Reading it walks all pages of the
    process: some milliseconds of processor time for each GB.
    """
    return kernel_number(PROC / str(pid) / "smaps_rollup", "Pss:", 1024)


def memory_kills() -> int:
    """How many processes the kernel has killed for lack of memory since it started; 0 where it does not tell."""
    return kernel_number(PROC / "vmstat", "oom_kill", 1) or 0


def _busy_seconds(proc: Path, cores: Iterable[int]) -> float | None:
    """Seconds for which these cores have been busy since the machine started. None: it does not tell."""
    names = {f"cpu{core}" for core in cores}
    try:
        lines = [line.split() for line in (proc / "stat").read_text().splitlines()]
        # user, nice, system, idle, iowait, irq, softirq; what follows is in `user` already or not ours to see.
        busy = [sum(map(int, (*fields[1:4], *fields[6:8]))) for fields in lines if fields and fields[0] in names]
    except (OSError, ValueError):
        return None
    return sum(busy) / os.sysconf("SC_CLK_TCK") if busy else None


def kernel_number(path: Path, name: str, unit: int) -> int | None:
    """The number of a line "NAME 123 ..." times `unit`."""
    try:
        for line in path.read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * unit
    except (OSError, ValueError, IndexError):  # not Linux, or the process has ended
        pass
    return None
