"""How a process that trains is set up: one thread, and memory that is kept instead of given back and forth."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal

import torch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def prepare() -> None:
    """Set this process up for training; to be called before anything large is made.

    One thread, because two would add in an order of their own and change the bits; and because on a busy machine
    they wait for each other. The C library gives large blocks back to the kernel and gets them again, page by page,
    at each layer of each step; told to keep them, a step takes 7 % less time (glibc; elsewhere nothing is changed).
    """
    torch.set_num_threads(1)
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(_M_MMAP_THRESHOLD, 2**30)


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def become_child(parent: int, keep: int) -> None:
    """Make a forked process independent of what it inherited, and dependent on its parent's life.

    parent: the process that forked. keep: the one descriptor, besides the standard ones, that is needed here. The
    others lead nowhere from now on: while another process held them, nobody would see the end of a pipe. They stay
    taken, so that whoever closes them later closes nothing else.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    die_with_parent()
    if os.getppid() != parent:
        os._exit(0)  # it was gone before it could be said
    nowhere = os.open(os.devnull, os.O_RDWR)
    for name in os.listdir("/dev/fd"):
        if int(name) > 2 and int(name) != keep:
            os.dup2(nowhere, int(name))
    prepare()


def die_with_parent() -> None:
    """Linux: be killed when the parent is, in the middle of anything. Elsewhere the end of a pipe must do."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
