"""Node Zero: starts the workers, hands out positions, and brings a step from point A to point B to the next weights.

It computes no batch itself. Per step there are two barriers: A, when the positions are handed out, and B, when all
gradients are ready; then the workers combine the sums and update the weights, each its own units.

A worker may die at any moment (kill -9, out of memory). What it had added to its sum is thrown away and its positions
of this step are computed again by others; units it was changing are put back first. The bits are the same.
"""

from __future__ import annotations

import contextlib
import logging
import math
import multiprocessing
import multiprocessing.process
import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

from crystalline.errors import EXIT_SYSTEM, UserError
from crystalline.training.batches import Batches
from crystalline.training.position import PositionResult
from crystalline.training.worker import Sphere, main
from crystalline.training.workspace import UNTOUCHED, Workspace

log = logging.getLogger("crystalline.training")
DEATHS_IN_A_ROW = 5  # workers lost without a finished step in between, after which something is wrong
POLL_SECONDS = 0.2  # how often an order to stop is looked for while workers compute


class Stopped(Exception):
    """The step was given up because somebody asked to stop. The weights are as before it."""


class Team(Protocol):
    """Whoever computes steps. The result does not depend on who it is."""

    def positions(self, step: int, targets_in_step: int) -> list[PositionResult]:
        """Compute all positions of a step. Raises Stopped when asked to stop meanwhile."""

    def reduce(self) -> float:
        """Combine the sums of the positions; the norm of the gradient."""

    def update(self, clip: float, share: float, number: int) -> None:
        """Change the weights."""

    def resize(self, count: int) -> None:
        """Have `count` workers from the next step on."""

    def spheres(self) -> list[dict[str, Any]]:
        """What each worker has done so far."""

    def close(self) -> None:
        """End all processes."""


class Alone:
    """A team without processes: one sphere here, for tests and for other threads' use."""

    def __init__(self, workspace: Workspace, batches: Batches, stop: Callable[[], bool] = lambda: False) -> None:
        self.workspace, self.stop = workspace, stop
        self.sphere = Sphere(workspace, batches, 0)
        self.everything = range(len(workspace.units))

    def positions(self, step: int, targets_in_step: int) -> list[PositionResult]:
        results = []
        for place in range(self.workspace.recipe.settings.training.positions):
            results.append(self.sphere.compute(step, place, targets_in_step))
            if self.stop():
                raise Stopped
        return results

    def reduce(self) -> float:
        self.sphere.reduce(self.everything, [0])
        return _norm(self.workspace)

    def update(self, clip: float, share: float, number: int) -> None:
        self.workspace.memory["marks"].fill_(UNTOUCHED)
        self.sphere.update(self.everything, clip, share, number)

    def resize(self, count: int) -> None:
        log.warning("this run computes in its main process; it has no workers to change")

    def spheres(self) -> list[dict[str, Any]]:
        return []

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class Task:
    """Something for one worker to do. key: names its result."""

    key: int
    order: str
    arguments: tuple[Any, ...]


@dataclass
class Worker:
    """A worker process as Node Zero sees it. Times in seconds, memory in bytes."""

    number: int
    process: multiprocessing.process.BaseProcess
    pipe: Connection
    ready: bool = False
    task: Task | None = None
    places: list[int] = field(default_factory=list)  # positions computed in this step
    positions: int = 0
    steals: int = 0
    busy: float = 0.0
    update: float = 0.0
    memory: int = 0


class Workers:
    """A team of processes.

    count: how many to keep. stop: asked now and then while waiting.
    """

    def __init__(
        self, workspace: Workspace, batches: Batches, count: int, stop: Callable[[], bool] = lambda: False
    ) -> None:
        self.workspace, self.batches, self.stop = workspace, batches, stop
        self.count = count = min(count, workspace.spheres)  # more than there are positions would have nothing to do
        self.team: list[Worker] = []
        self.deaths = 0  # since the last finished step
        for number in range(count):
            self._start(number)

    # --- the three parts of a step ------------------------------------------------------------------------

    def positions(self, step: int, targets_in_step: int) -> list[PositionResult]:
        for worker in self.team:
            worker.places = []
        places = range(self.workspace.recipe.settings.training.positions)
        tasks = [Task(place, "compute", (step, place, targets_in_step)) for place in places]
        by_place = {task.key: task for task in tasks}

        def lost(worker: Worker) -> list[Task]:
            """All that a dead worker had added to its sum is gone with it."""
            return [by_place[place] for place in worker.places]

        results = self._carry_out(tasks, lost, stoppable=True)
        return [results[place] for place in places]

    def reduce(self) -> float:
        contributors = [worker.number for worker in self.team if worker.places]
        tasks = [Task(i, "reduce", (units, contributors)) for i, units in enumerate(self._shares())]
        # A worker that dies now leaves its finished sum behind in the shared memory: only its task is lost.
        self._carry_out(tasks, lambda worker: [])
        return _norm(self.workspace)

    def update(self, clip: float, share: float, number: int) -> None:
        marks = self.workspace.memory["marks"]
        marks.fill_(UNTOUCHED)
        arguments = (clip, share, number)
        tasks = [Task(i, "update", (units, *arguments)) for i, units in enumerate(self._shares())]
        next_key = len(tasks)

        def lost(worker: Worker) -> list[Task]:
            """Put back what was half changed; what is left of its units is a task for another."""
            nonlocal next_key
            self.workspace.undo(worker.number)
            assert worker.task is not None
            rest = [unit for unit in worker.task.arguments[0] if marks[unit] == UNTOUCHED]
            worker.task = None
            next_key += 1
            return [Task(next_key, "update", (rest, *arguments))]

        self._carry_out(tasks, lost)
        self.deaths = 0

    def _shares(self) -> list[list[int]]:
        """All units, in as many parts of about equal cost as there are workers."""
        units = self.workspace.units
        parts: list[list[int]] = [[] for _ in range(max(1, len(self.team)))]
        loads = [0.0] * len(parts)
        for index in sorted(range(len(units)), key=lambda i: -units[i][1].cost):
            lightest = loads.index(min(loads))
            parts[lightest].append(index)
            loads[lightest] += units[index][1].cost
        return [sorted(part) for part in parts if part]

    # --- handing out and waiting ----------------------------------------------------------------------------

    def _carry_out(
        self, tasks: list[Task], lost: Callable[[Worker], list[Task]], stoppable: bool = False
    ) -> dict[int, Any]:
        """Have all tasks done by whoever is free. lost: what must be done again when a worker dies."""
        waiting = deque(tasks)
        results: dict[int, Any] = {}
        fair = -(-len(tasks) // max(1, len(self.team)))  # more than this, and a worker has taken over from another
        stopping = False
        while waiting or any(worker.task for worker in self.team):
            for worker in self.team:
                if waiting and worker.ready and worker.task is None:
                    self._give(worker, waiting.popleft())
            for worker in self._heard():
                try:
                    done = self._listen(worker, results)
                except (EOFError, OSError):  # it died, whatever it was doing
                    again = lost(worker) + ([worker.task] if worker.task else [])
                    waiting.extend(again)
                    for repeat in again:
                        results.pop(repeat.key, None)
                    self._replace(worker)
                    continue
                if done is not None and done.order == "compute":
                    worker.places.append(done.key)
                    worker.positions += 1
                    worker.steals += len(worker.places) > fair
            if stoppable and not stopping and self.stop():
                stopping = True
                waiting.clear()
        if stopping:
            raise Stopped
        return results

    def _give(self, worker: Worker, task: Task) -> None:
        worker.task = task
        with contextlib.suppress(OSError):  # dead: the end of its pipe says so in a moment
            worker.pipe.send((task.order, task.arguments))

    def _heard(self) -> list[Worker]:
        """Workers that have answered or died: the pipe of a dead one is at its end."""
        by_pipe = {worker.pipe: worker for worker in self.team}
        return [by_pipe[pipe] for pipe in wait(list(by_pipe), POLL_SECONDS)]  # type: ignore[index]

    def _listen(self, worker: Worker, results: dict[int, Any]) -> Task | None:
        """Take a worker's answer; the task that it has finished. Raises EOFError or OSError when it is dead."""
        answer, seconds, worker.memory = worker.pipe.recv()
        if not worker.ready:
            worker.ready = True
            return None
        task, worker.task = worker.task, None
        assert task is not None
        if isinstance(answer, BaseException):
            raise answer
        results[task.key] = answer
        if task.order == "compute":
            worker.busy += seconds
        else:
            worker.update += seconds
        return task

    # --- life and death -------------------------------------------------------------------------------------

    def _start(self, number: int) -> None:
        """Fork a worker. It inherits the shared memory and the network; nothing is sent or loaded."""
        ours, theirs = multiprocessing.Pipe()
        others = [worker.pipe for worker in self.team] + [ours]
        context = multiprocessing.get_context("fork")
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        core = cores[number] if self.count <= len(cores) else -1
        process = context.Process(
            target=main, args=(theirs, others, self.workspace, self.batches, number, core), daemon=True,
            name=f"sphere-{number}",
        )  # fmt: skip
        process.start()
        theirs.close()
        self.team.append(Worker(number, process, ours))

    def resize(self, count: int) -> None:
        count = max(1, min(count, self.workspace.spheres))
        for worker in sorted(self.team, key=lambda worker: worker.number)[count:]:
            worker.pipe.close()
            worker.process.join()
            self.team.remove(worker)
        self.count = count
        taken = {worker.number for worker in self.team}
        for number in range(count):
            if number not in taken:
                self._start(number)

    def spheres(self) -> list[dict[str, Any]]:
        """For each worker: number, pid, positions and steals so far, places: the positions of the last step, seconds
        busy and updating, peak memory."""
        names = ("number", "positions", "steals", "busy", "update", "memory")
        return [
            {
                "pid": worker.process.pid or 0,
                "places": sorted(worker.places),
                **{name: getattr(worker, name) for name in names},
            }
            for worker in sorted(self.team, key=lambda worker: worker.number)
        ]

    def _replace(self, dead: Worker) -> None:
        """Start another process in the place of one that died."""
        self._forget(dead)
        self.deaths += 1
        log.warning("worker %d died (exit code %s); another takes over", dead.number, dead.process.exitcode)
        if self.deaths >= DEATHS_IN_A_ROW:
            raise UserError(
                "training stopped",
                f"{self.deaths} workers died within one step (the last with exit code {dead.process.exitcode})",
                "look for lack of memory (dmesg), then give the same command again with fewer --workers",
                EXIT_SYSTEM,
            )
        self._start(dead.number)

    def _forget(self, worker: Worker) -> None:
        worker.process.join(5)
        worker.pipe.close()
        self.team.remove(worker)

    def close(self) -> None:
        for worker in self.team:
            worker.pipe.close()  # the worker reads the end of the pipe and leaves
        for worker in self.team:
            worker.process.join(2)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        self.team = []


def _norm(workspace: Workspace) -> float:
    """The norm of the gradient, from the squares of its units in their constant order."""
    return math.sqrt(math.fsum(workspace.memory["squares"].tolist()))
