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


def allowed_cores() -> list[int]:
    """Numbers of the processors that this process may use now; a container or `taskset` can change them."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def cores() -> int:
    """How many processors this process may use."""
    return len(allowed_cores())


def keep_to(pid: int, allowed: list[int]) -> None:
    """Let a process run on these processors only, where the system can do that and the process is there."""
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setaffinity(pid, allowed)


def keep_to_share(number: int, of: int) -> None:
    """Of this machine's processors use only the share of process `number` of several that train on it."""
    every = allowed_cores()
    mine = every[len(every) * number // of : len(every) * (number + 1) // of]
    keep_to(0, mine or [every[number % len(every)]])


def be_child() -> None:
    """Set a forked process up to serve its parent: signals to the group (Ctrl-C, torchrun) are not for it.

    The parent decides what they mean. Linux: the child is killed with the parent, whatever it is doing; elsewhere the
    end of their pipe tells it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.setpgid(0, 0)
    die_with_parent(signal.SIGKILL)


def die_with_parent(number: int) -> None:
    """Linux: get the signal `number` when the parent process ends."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, int(number))  # PR_SET_PDEATHSIG


def become_child(parent: int, keep: int) -> None:
    """Make a forked process independent of what it inherited, and dependent on its parent's life.

    parent: the process that forked. keep: the one descriptor, besides the standard ones, that is needed here. The
    others lead nowhere from now on: while another process held them, nobody would see the end of a pipe. They stay
    taken, so that whoever closes them later closes nothing else.
    """
    be_child()
    if os.getppid() != parent:
        os._exit(0)  # it was gone before it could be said
    nowhere = os.open(os.devnull, os.O_RDWR)
    for name in os.listdir("/dev/fd"):
        if int(name) > 2 and int(name) != keep:
            os.dup2(nowhere, int(name))
    prepare()
