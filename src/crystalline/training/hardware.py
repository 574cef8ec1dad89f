"""What this machine has and can do: processor, cores, memory, and the fastest matrix product measured on it."""

from __future__ import annotations

import functools
import multiprocessing
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch

from crystalline import processes
from crystalline.training import device as devices
from crystalline.training import load, process

SIDES = (512, 1024)  # of the square matrices multiplied; smaller ones do not reach the peak, larger ones no more
GPU_SIDES = (4096, 8192)
PROBE_SECONDS = 0.4


@functools.cache
def matrix_peak(dtype: torch.dtype, seconds: float = PROBE_SECONDS, device: torch.device | None = None) -> float:
    """The best rate of multiplying square matrices of `dtype`, in floating-point operations a second: of one thread,
    or of a GPU, which is used in a child process.

    The reference that the share of the peak is taken of ("model FLOPs utilization", Chowdhery et al. 2022, arXiv
    2204.02311, appendix B): a product and its addition are two operations. Takes at most about `seconds`, and less
    once repeating brings nothing new. Nothing random is drawn and no setting is changed but the one thread that
    training has anyway: the weights that are trained afterwards are the same to the bit.
    """
    if device is not None:
        return process.in_child(_matrix_peak, dtype, seconds, GPU_SIDES, device)
    return _matrix_peak(dtype, seconds, SIDES, torch.device("cpu"))


def _matrix_peak(dtype: torch.dtype, seconds: float, sides: tuple[int, ...], device: torch.device) -> float:
    process.prepare()
    devices.prepare(device)
    finish: Callable[[], object] = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    best, ends = 0.0, time.perf_counter() + seconds
    for side in sides:
        # Ordinary numbers: zeros may be multiplied faster, and very small ones are.
        a = torch.linspace(-1, 1, side * side).reshape(side, side).to(device, dtype)
        product = torch.empty_like(a)
        took, since_better = 0.0, 0
        # The first products set up the library and wake the unit; five in a row that are no better end it.
        while best == 0 or (since_better < 5 and time.perf_counter() + took < ends):
            began = time.perf_counter()
            torch.mm(a, a, out=product)
            finish()
            took = time.perf_counter() - began
            rate = 2 * side**3 / took
            since_better = 0 if rate > 1.01 * best else since_better + 1
            best = max(best, rate)
    return best


def describe() -> dict[str, str | int | None]:
    """The processor's name, how many cores this process may use, and the machine's memory in bytes."""
    return {"processor": _processor(), "cores": processes.cores(), "memory": _memory()}


def resident_memory() -> int | None:
    """Bytes in memory of this process and those it has started, what they share counted once; None if not known.

    Linux counts the proportional set size: a page that n processes share is a 1/n part of each.
    """
    pids = [os.getpid(), *(child.pid for child in multiprocessing.active_children())]
    parts = [load.proportional_memory(pid) for pid in pids if pid]
    return sum(part for part in parts if part is not None) if parts[0] is not None else None


def _memory() -> int | None:
    return load.kernel_number(load.PROC / "meminfo", "MemTotal:", 1024)


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
