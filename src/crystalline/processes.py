"""What every room needs that has processes of its own: how many fit, that they end together, and their errors."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import traceback


def allowed_cores() -> list[int]:
    """Numbers of the processors that this process may use now; a container or `taskset` can change them."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def cores() -> int:
    """How many processors this process may use."""
    return len(allowed_cores())


def die_with_parent(number: int) -> None:
    """Linux: get the signal `number` when the parent process ends."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, int(number))  # PR_SET_PDEATHSIG


def portable(error: Exception) -> Exception:
    """The exception as it can be sent: with words for where it happened, without the memory that its frames hold."""
    error.add_note("in another process:\n" + "".join(traceback.format_tb(error.__traceback__)))
    error.__traceback__ = error.__context__ = error.__cause__ = None
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever its class does not bear
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
