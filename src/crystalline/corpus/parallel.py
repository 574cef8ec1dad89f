"""Work that is the same in any order, divided among processes; a process that dies loses nothing but its time."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from crystalline import processes
from crystalline.errors import EXIT_SYSTEM, UserError

T = TypeVar("T")
MOST_DEATHS = 3  # of processes that had the same task


def each(work: Callable[[T], object], tasks: Sequence[T], workers: int | None = None) -> Iterator[T]:
    """Do `work(task)` for every task, and give each task back when it is done, in no certain order.

    workers: how many processes (by fork); None: one a core. With one, or one task, this process does it itself.
    Raises what `work` raises, once; UserError when the processes that have a task die of it again and again, which is
    how the system answers too little memory. Whatever happens, no process is left behind.
    """
    workers = min(workers or processes.cores(), len(tasks))
    if workers <= 1:
        for task in tasks:
            work(task)
            yield task
        return
    waiting, deaths = list(range(len(tasks)))[::-1], [0] * len(tasks)
    team: dict[Connection, tuple[BaseProcess, int]] = {}
    try:
        while waiting or team:
            while waiting and len(team) < workers:
                pipe, child = _start(work, tasks)
                team[pipe] = child, waiting.pop()
                pipe.send(team[pipe][1])
            for ready in wait(list(team)):
                assert isinstance(ready, Connection)
                child, number = team[ready]
                try:
                    error = ready.recv()
                except (EOFError, ConnectionError):
                    del team[ready]
                    _end(ready, child)
                    deaths[number] += 1
                    if deaths[number] >= MOST_DEATHS:
                        raise UserError(
                            "could not read the text",
                            f"a process was ended by the system {MOST_DEATHS} times at the same place",
                            "close other programs, or set clean.workers = 1; the same command continues",
                            EXIT_SYSTEM,
                        ) from None
                    waiting.append(number)
                    continue
                if error is not None:
                    raise error
                if waiting:
                    team[ready] = child, waiting.pop()
                    ready.send(team[ready][1])
                else:
                    del team[ready]
                    _end(ready, child)
                yield tasks[number]
    finally:
        for pipe, (child, _) in team.items():
            _end(pipe, child)


def _start(work: Callable[[T], object], tasks: Sequence[T]) -> tuple[Connection, BaseProcess]:
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_serve, args=(os.getpid(), theirs, work, tasks))
    child.start()
    theirs.close()
    return ours, child


def _end(pipe: Connection, child: BaseProcess) -> None:
    pipe.close()
    child.kill()
    child.join()


def _serve(parent: int, pipe: Connection, work: Callable[[T], object], tasks: Sequence[T]) -> None:
    """What a process does: tasks by their numbers, until the pipe or the parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then ends this process
    processes.die_with_parent(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)  # it was gone before it could be said
    answer: Any
    try:
        while True:
            number = pipe.recv()
            try:
                work(tasks[number])
                answer = None
            except Exception as error:
                answer = processes.portable(error)
            pipe.send(answer)
    except (EOFError, OSError):
        pass
    os._exit(0)  # nothing of the parent's state here may run its exit handlers
