"""How a process that trains is set up: one thread, and memory that is kept instead of given back and forth."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any, TypeVar

import torch

from crystalline import processes

T = TypeVar("T")

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


def keep_to(pid: int, allowed: list[int]) -> None:
    """Let a process run on these processors only, where the system can do that and the process is there."""
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setaffinity(pid, allowed)


def keep_to_share(number: int, of: int) -> None:
    """Of this machine's processors use only the share of process `number` of several that train on it."""
    keep_to(0, list(share(processes.allowed_cores(), number, of)))


def share(things: Sequence[T], number: int, of: int) -> Sequence[T]:
    """What process `number` of several gets of these; where there are too few, one that others get too."""
    mine = things[len(things) * number // of : len(things) * (number + 1) // of]
    return mine or [things[number % len(things)]] if things else things


def be_child() -> None:
    """Set a forked process up to serve its parent: signals to the group (Ctrl-C, torchrun) are not for it.

    The parent decides what they mean. Linux: the child is killed with the parent, whatever it is doing; elsewhere the
    end of their pipe tells it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.setpgid(0, 0)
    processes.die_with_parent(signal.SIGKILL)


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


def in_child(work: Callable[..., T], *arguments: Any) -> T:
    """The result of `work(*arguments)`, computed in a forked process: what it starts, such as CUDA, ends with it.

    Raises what `work` raises, and ChildProcessError when the process dies.
    """
    ours, theirs = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=_answer, args=(theirs, work, arguments), daemon=True)
    child.start()
    theirs.close()
    try:
        done, answer = ours.recv()
    except EOFError:
        child.join()
        raise ChildProcessError(f"a process ended without an answer (exit code {child.exitcode})") from None
    finally:
        ours.close()
        child.kill()
        child.join()
    if not done:
        raise answer
    result: T = answer
    return result


def _answer(pipe: Connection, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    be_child()
    try:
        answer = True, work(*arguments)
    except Exception as error:
        answer = False, processes.portable(error)
    pipe.send(answer)
    os._exit(0)  # nothing of the parent's state here may run its exit handlers
