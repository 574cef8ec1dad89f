"""The processes of a team: started, given orders, listened to, kept to cores, ended."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import multiprocessing.process
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from crystalline import processes
from crystalline.errors import EXIT_SYSTEM, UserError
from crystalline.training import process
from crystalline.training.batches import Batches
from crystalline.training.metrics import PARTS, SphereRecord
from crystalline.training.watch import Watch
from crystalline.training.worker import Answer, main
from crystalline.training.workspace import Workspace

log = logging.getLogger("crystalline.training")
POLL_SECONDS = 0.2  # how long an answer is waited for at once
END_SECONDS = 2.0  # that a process gets to leave or to be killed
STATES = {"compute": "computing", **dict.fromkeys(("deliver", "total", "reduce", "update"), "updating")}


@dataclass(frozen=True)
class Task:
    """Something for one worker to do. key: names its result. owner: the worker that should do it; -1: any."""

    key: int
    order: str
    arguments: tuple[Any, ...]
    owner: int = -1


@dataclass
class Worker:
    """A worker process as Node Zero sees it. Times are seconds of the monotonic clock, `patience` of the watch's."""

    record: SphereRecord
    process: multiprocessing.process.BaseProcess
    pipe: Connection
    since: float  # when it was started
    changed: float  # when it got its task or, without one, became free
    patience: float  # when it got its task or was started
    waited: float = 0.0  # seconds before it got its task: its answer will say so too, if it comes
    task: Task | None = None
    ready: bool = False
    generous: bool = False  # its task is a position, to be computed with as much memory as it takes

    @property
    def number(self) -> int:
        return self.record.number

    @property
    def order(self) -> str:
        """What it is at, "" when it waits."""
        return self.task.order if self.task else "" if self.ready else "start"


class Crew:
    """The worker processes of one team, and the records of its spheres."""

    def __init__(self, workspace: Workspace, batches: Batches) -> None:
        self.workspace, self.batches = workspace, batches
        self.members: list[Worker] = []
        self.records: dict[int, SphereRecord] = {}
        self.watch = Watch()

    # --- life and death -------------------------------------------------------------------------------------

    def start(self, number: int) -> bool:
        """Fork a worker. It inherits the shared memory and the network; nothing is sent or loaded.

        Returns whether the system could: with too little memory, or too many processes, there must be fewer workers.
        Raises UserError when there would be none.
        """
        ours, theirs = multiprocessing.Pipe()
        others = [worker.pipe for worker in self.members] + [ours]
        began = time.monotonic()
        child = multiprocessing.get_context("fork").Process(
            target=main, args=(theirs, others, self.workspace, self.batches, number, began), daemon=True,
            name=f"sphere-{number}",
        )  # fmt: skip
        try:
            child.start()
        except OSError as error:
            ours.close()
            if self.members:
                log.warning("worker %d could not be started (%s)", number, error.strerror)
                return False
            raise UserError(
                "training stopped",
                f"no worker process could be started ({error.strerror})",
                "close other programs or allow more processes, or train without workers (--workers 0)",
                EXIT_SYSTEM,
            ) from error
        finally:
            theirs.close()
        record = self.records.setdefault(number, SphereRecord(number))
        record.begin(child.pid or 0)
        self.members.append(Worker(record, child, ours, since=began, changed=began, patience=self.watch.now()))
        return True

    def fill(self, count: int) -> bool:
        """Start workers until there are `count`; whether the system gave so many."""
        while len(self.members) < count:
            taken = {worker.number for worker in self.members}
            if not self.start(next(number for number in range(count) if number not in taken)):
                break
        self.keep_to_cores()
        return len(self.members) >= count

    def end(self, worker: Worker) -> None:
        """Make sure that a process does nothing any more."""
        worker.process.kill()
        worker.process.join(END_SECONDS)  # one that waits for a disk is gone later, but computes no more

    def dismiss(self, worker: Worker) -> None:
        """Let a worker without a task go."""
        worker.pipe.close()  # the worker reads the end of the pipe and leaves
        worker.process.join(END_SECONDS)
        self.end(worker)
        self.forget(worker, worker.order)

    def forget(self, worker: Worker, order: str) -> None:
        """Strike off a worker whose process has ended. order: what it was at."""
        now = time.monotonic()
        worker.record.ended(order, worker.waited, now - worker.changed, now - worker.since)
        worker.pipe.close()
        self.members.remove(worker)

    def close(self) -> None:
        for worker in self.members:
            worker.pipe.close()
        end = time.monotonic() + END_SECONDS
        for worker in self.members:
            worker.process.join(max(0.0, end - time.monotonic()))
        for worker in self.members:
            self.end(worker)
        self.members = []

    # --- orders and answers ---------------------------------------------------------------------------------

    def give(self, worker: Worker, task: Task, *more: Any) -> None:
        """Send a task to a worker that has none. more: arguments of the order besides the task's."""
        now = time.monotonic()
        worker.waited, worker.changed, worker.patience, worker.task = (
            now - worker.changed,
            now,
            self.watch.now(),
            task,
        )
        worker.record.state = STATES[task.order]
        with contextlib.suppress(OSError):  # dead: the end of its pipe says so in a moment
            worker.pipe.send((task.order, (*task.arguments, *more)))

    def heard(self) -> list[Worker]:
        """Workers that have answered or died: the pipe of a dead one is at its end."""
        by_pipe = {worker.pipe: worker for worker in self.members}
        return [by_pipe[pipe] for pipe in wait(list(by_pipe), POLL_SECONDS)]  # type: ignore[index]

    def silent(self) -> list[Worker]:
        """Workers that have been at something for so long that they hang."""
        now = self.watch.now()
        return [w for w in self.members if w.order and now - w.patience > self.watch.limit(w.order)]

    def listen(self, worker: Worker) -> tuple[Task | None, Any]:
        """A worker's answer: the task that it is about, None when it has only started, and the result or exception.

        Raises EOFError or OSError when it is dead.
        """
        answer: Answer = worker.pipe.recv()
        worker.record.took(worker.order, answer)
        worker.record.state, worker.changed, worker.waited = "waiting", time.monotonic(), 0.0
        if not isinstance(answer.result, BaseException):
            self.watch.finished(worker.order, answer.busy)
        worker.ready = True
        return worker.task, answer.result

    # --- where and how ----------------------------------------------------------------------------------------

    def keep_to_cores(self) -> None:
        """One worker for each core stays on its own. Fewer may move: another run could have the same idea."""
        cores = processes.allowed_cores()
        for index, worker in enumerate(sorted(self.members, key=lambda worker: worker.number)):
            own = len(self.members) == len(cores)
            worker.record.core = cores[index] if own else None
            process.keep_to(worker.record.pid, [cores[index]] if own else cores)

    def told(self) -> list[dict[str, Any]]:
        """The records of those who are there, in the order of their numbers."""
        workers = sorted(self.members, key=lambda worker: worker.number)
        # Looking at memory takes milliseconds, in which nobody computes: at new ones, and else at one each time.
        longest_ago = min(workers, key=lambda worker: worker.record.memory_read, default=None)
        for worker in workers:
            if worker.record.memory is None or worker is longest_ago:
                worker.record.read_memory()
        return [worker.record.told(worker.since, worker.order, worker.changed) for worker in workers]

    def times(self) -> dict[str, float]:
        """Seconds that all workers have spent until now, by `metrics.PARTS`; what they are at is not counted yet."""
        now = time.monotonic()
        waiting = {worker.number: now - worker.changed for worker in self.members if not worker.order}
        times = [record.times(waiting.get(number, 0.0)) for number, record in self.records.items()]
        return {part: sum(time[part] for time in times) for part in PARTS}
