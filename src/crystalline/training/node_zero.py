"""Node Zero: starts the workers, hands out positions, and brings a step from point A to point B to the next weights.

It computes no batch itself. Per step there are two barriers: A, when the positions are handed out, and B, when all
gradients are ready; then the workers combine the sums and update the weights, each its own units.

A worker may die at any moment (kill -9, out of memory) or hang. What it had added to its sum is thrown away and its
positions of this step are computed again by others; units it was changing are put back first. The bits are the same.
"""

from __future__ import annotations

import contextlib
import logging
import math
import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import wait
from typing import Any, Protocol

from crystalline import processes
from crystalline.errors import EXIT_SYSTEM, UserError, is_out_of_memory
from crystalline.training import load
from crystalline.training.batches import Batches
from crystalline.training.crew import Crew, Task, Worker
from crystalline.training.division import UNEVEN, Division
from crystalline.training.load import OtherLoad
from crystalline.training.metrics import PARTS
from crystalline.training.position import PositionResult
from crystalline.training.worker import Sphere
from crystalline.training.workspace import TOTAL, UNTOUCHED, Workspace

log = logging.getLogger("crystalline.training")
DEATHS_IN_A_ROW = 5  # workers lost without a finished step in between, after which something is wrong
KILLS_IN_A_ROW = 2  # of them by SIGKILL, after which it is taken for the kernel's, which has too little memory
STOP_SECONDS = 1.0  # that a worker still gets for its position when training is stopped

# How many workers: a number, "auto" (one a core, or a GPU) or "free" (one for each core that nobody else uses).
Wanted = int | str
Tell = Callable[..., None]  # told of what happens to a team, as (kind of event, facts by name)


class Stopped(Exception):
    """The step was given up because somebody asked to stop. The weights are as before it."""


class Team(Protocol):
    """Whoever computes steps. The result does not depend on who it is."""

    def positions(self, step: int, targets_in_step: int) -> list[PositionResult]:
        """Compute all positions of a step. Raises Stopped when asked to stop meanwhile."""

    def reduce(self) -> float:
        """Combine the sums of the positions into the gradient; its norm."""

    def update(self, clip: float, share: float, number: int) -> None:
        """Change the weights."""

    def resize(self, wanted: Wanted) -> None:
        """Have so many workers from the next step on."""

    def rebalance(self) -> None:
        """Divide the work of the update anew by the times measured, and keep workers to the cores allowed now."""

    def spheres(self) -> list[dict[str, Any]]:
        """What each worker has done so far, as `SphereRecord.told`."""

    def shares(self) -> dict[str, float]:
        """Where the workers' time since the last call went, as shares of it; they add up to 1.

        compute: forward and backward. sum: exact sums of positions. reduce: combining them. update: the optimizer.
        sync: ready with a part of a step before others (barriers). idle: the rest. Empty when not measured.
        """

    def close(self) -> None:
        """End all processes."""


class LocalTeam(Team, Protocol):
    """A team on one machine, which can also do a part of a step (training/cluster.py)."""

    def positions(self, step: int, targets_in_step: int, places: Sequence[int] | None = None) -> list[PositionResult]:
        """Compute these positions of a step, by default all."""

    def total(self) -> None:
        """Add the sums of the positions up in the workspace's TOTAL."""

    def reduce(self, total: bool = False) -> float:
        """Combine the sums of the positions, or take the workspace's TOTAL, as the gradient; its norm."""


class Alone:
    """A team without processes: one sphere here, for tests and for other threads' use."""

    def __init__(self, workspace: Workspace, batches: Batches, stop: Callable[[], bool] = lambda: False) -> None:
        self.workspace, self.stop = workspace, stop
        self.sphere = Sphere(workspace, batches, 0)
        self.everything = range(len(workspace.units))
        self.frugal = False
        self.filled: list[int] = []  # the sphere, when its sum has positions of this step

    def positions(self, step: int, targets_in_step: int, places: Sequence[int] | None = None) -> list[PositionResult]:
        if places is None:
            places = range(self.workspace.recipe.settings.training.positions)
        try:
            return self._positions(step, targets_in_step, places)
        except (MemoryError, RuntimeError, OSError) as error:
            if not is_out_of_memory(error):
                raise
            if self.frugal:
                raise _too_little_memory() from error
        log.warning("there was not enough memory; positions are computed with less from now on, which takes longer")
        self.frugal = True
        return self.positions(step, targets_in_step, places)

    def _positions(self, step: int, targets_in_step: int, places: Sequence[int]) -> list[PositionResult]:
        results: list[PositionResult] = []
        for place in places:
            results.append(self.sphere.compute(step, place, targets_in_step, not results, self.frugal))
            if self.stop():
                raise Stopped
        self.sphere.deliver()
        self.filled = [0] if results else []
        return results

    def total(self) -> None:
        self.sphere.total(self.everything, self.filled)

    def reduce(self, total: bool = False) -> float:
        self.sphere.reduce(self.everything, [TOTAL] if total else self.filled)
        return _norm(self.workspace)

    def update(self, clip: float, share: float, number: int) -> None:
        self.workspace.memory["marks"].fill_(UNTOUCHED)
        self.sphere.update(self.everything, clip, share, number)

    def resize(self, wanted: Wanted) -> None:
        log.warning("this run computes in its main process; it has no workers to change")

    def rebalance(self) -> None:
        log.warning("this run computes in its main process; there is nothing to divide")

    def spheres(self) -> list[dict[str, Any]]:
        return []

    def shares(self) -> dict[str, float]:
        return {}

    def close(self) -> None:
        pass


class Workers:
    """A team of processes.

    wanted: how many to keep. stop: asked now and then while waiting. tell: told of everything that happens to the
    team: "training.workers" when their number changes, "training.worker_lost", "training.rebalanced".
    """

    def __init__(
        self,
        workspace: Workspace,
        batches: Batches,
        wanted: Wanted,
        stop: Callable[[], bool] = lambda: False,
        tell: Tell = lambda kind, **facts: None,
    ) -> None:
        self.workspace, self.batches, self.stop, self.tell = workspace, batches, stop, tell
        self.crew = Crew(workspace, batches)
        self.wanted, self.most = wanted, workspace.spheres  # more than there are positions would have nothing to do
        self.frugal = False  # positions are computed with less memory
        self.deaths, self.kills = 0, 0  # since the last finished step
        self.memory_kills = load.memory_kills()
        self.others = OtherLoad()
        costs = [unit.cost for _, unit in workspace.units]
        self.sizes = [float(unit.end - unit.start) for _, unit in workspace.units]
        self.divisions = {"reduce": Division(self.sizes), "update": Division(costs)}  # and "total" in a cluster
        self.shares_told: dict[str, float] = dict.fromkeys(PARTS, 0.0)
        try:
            if not self.crew.fill(self._count(wanted)):
                self.most = len(self.team)
        except BaseException:
            self.close()
            raise

    @property
    def team(self) -> list[Worker]:
        """The workers that are there now."""
        return self.crew.members

    # --- the three parts of a step ------------------------------------------------------------------------

    def positions(self, step: int, targets_in_step: int, places: Sequence[int] | None = None) -> list[PositionResult]:
        self._follow_free_cores()
        for worker in self.team:
            worker.record.begin_step()
        if places is None:
            places = range(self.workspace.recipe.settings.training.positions)
        tasks = [Task(place, "compute", (step, place, targets_in_step)) for place in places]
        by_place = {task.key: task for task in tasks}
        fair = -(-len(tasks) // len(self.team))  # more than this, and a worker has taken over from another

        def done(worker: Worker, task: Task, result: Any) -> None:
            if task.order == "deliver":
                worker.record.delivered = len(worker.record.places)
                return
            targets = self.batches.targets_in_position(step, task.key)
            worker.record.computed(task.key, result, targets, fair)

        def lost(worker: Worker) -> list[Task]:
            """All that a dead worker had added to its sum is gone with it."""
            if worker.task is not None and worker.task.order == "deliver":
                worker.task = None
            places = worker.record.places
            worker.record.undone()
            return [by_place[place] for place in places]

        results: dict[int, Any] = {}
        while tasks:
            results |= self._carry_out(tasks, lost, done, stoppable=True)
            tasks = self._deliveries()
        return [results[place] for place in places]

    def _deliveries(self) -> list[Task]:
        """What brings sums from devices to where all see them; again when positions of a lost one were done again."""
        records = [worker.record for worker in self.team] if self.workspace.devices else []
        late = [record.number for record in records if record.delivered < len(record.places)]
        return [Task(-1 - number, "deliver", (), number) for number in late]

    def total(self) -> None:
        self._combine("total", self._contributors())

    def reduce(self, total: bool = False) -> float:
        self._combine("reduce", [TOTAL] if total else self._contributors())
        return _norm(self.workspace)

    def _contributors(self) -> list[int]:
        return [worker.number for worker in self.team if worker.record.places]

    def _combine(self, order: str, sums: list[int]) -> None:
        # A worker that dies now leaves its finished sum behind in the shared memory: only its task is lost.
        self._divide_and_carry_out(order, (sums,), lambda worker: [])

    def update(self, clip: float, share: float, number: int) -> None:
        marks = self.workspace.memory["marks"]
        marks.fill_(UNTOUCHED)
        arguments = (clip, share, number)
        next_key = self.workspace.spheres

        def lost(worker: Worker) -> list[Task]:
            """Put back what was half changed; what is left of its units is a task for another."""
            nonlocal next_key
            self.workspace.undo(worker.number)
            if worker.task is None:
                return []
            rest = [unit for unit in worker.task.arguments[0] if marks[unit] == UNTOUCHED]
            worker.task = None
            next_key += 1
            return [Task(next_key, "update", (rest, *arguments))]

        self._divide_and_carry_out("update", arguments, lost)
        self.deaths = self.kills = 0
        self._rebalance_if_uneven()

    def _divide_and_carry_out(
        self, order: str, arguments: tuple[Any, ...], lost: Callable[[Worker], list[Task]]
    ) -> None:
        """Have all units reduced or updated, each worker its part, and note how long each took."""
        ready = [worker.number for worker in self.team if worker.ready] or [worker.number for worker in self.team]
        division = self.divisions.setdefault(order, Division(self.sizes))
        deaths, as_divided = self.deaths, True

        def done(worker: Worker, task: Task, result: Any) -> None:
            nonlocal as_divided
            as_divided &= worker.number == task.owner

        parts = division.among(ready)
        self._carry_out([Task(w, order, (units, *arguments), w) for w, units in parts.items()], lost, done)
        if as_divided and deaths == self.deaths:
            division.record(self.workspace.memory[f"seconds.{order}"].numpy())

    # --- handing out and waiting ----------------------------------------------------------------------------

    def _carry_out(
        self,
        tasks: list[Task],
        lost: Callable[[Worker], list[Task]],
        done: Callable[[Worker, Task, Any], None],
        stoppable: bool = False,
    ) -> dict[int, Any]:
        """Have all tasks done by whoever is free. done: called for each; lost: what must be done again when a worker
        is lost, besides what it was at."""
        waiting = deque(tasks)
        results: dict[int, Any] = {}
        began = time.monotonic()
        while waiting or any(worker.task for worker in self.team):
            self._hand_out(waiting)
            gone: list[tuple[Worker, str]] = []
            for worker in self.crew.heard():
                try:
                    task, result = self.crew.listen(worker)
                except (EOFError, OSError):
                    gone.append((worker, "died"))  # whatever it was doing
                    continue
                if isinstance(result, BaseException):
                    worker.record.errors += 1
                    if not is_out_of_memory(result):
                        raise result
                    gone.append((worker, "memory"))
                elif task is not None:
                    worker.task = None
                    results[task.key] = result
                    done(worker, task, result)
            known = [worker for worker, _ in gone]
            gone += [(worker, "hung") for worker in self.crew.silent() if worker not in known]
            for worker, why in gone:
                self.crew.end(worker)  # before its numbers are put in order: it must not write any more
                order, again = worker.order, lost(worker) + ([worker.task] if worker.task else [])
                waiting.extend(again)
                for repeat in again:
                    results.pop(repeat.key, None)
                self._replace(worker, why, order)
            if stoppable and self.stop():
                self._give_up()
                raise Stopped
        ended = time.monotonic()
        for worker in self.team:
            worker.record.sync += ended - max(began, worker.changed) if worker.ready else 0.0
        return results

    def _give_up(self) -> None:
        """End the step, in which no weights are changed: whoever is not ready in a moment need not be."""
        end = time.monotonic() + STOP_SECONDS
        busy = {worker.pipe: worker for worker in self.team if worker.task}
        while busy and (left := end - time.monotonic()) > 0:
            for pipe in wait(list(busy), left):
                worker = busy.pop(pipe)  # type: ignore[call-overload]
                with contextlib.suppress(EOFError, OSError):
                    self.crew.listen(worker)
                worker.task = None
        for worker in busy.values():
            self.crew.end(worker)

    def _hand_out(self, waiting: deque[Task]) -> None:
        """Give each free worker a task: one of its own, or one whose owner is not there."""
        there = {worker.number for worker in self.team if worker.ready}
        for worker in self.team:
            if worker.ready and worker.task is None:
                fit = (task for task in waiting if task.owner == worker.number or task.owner not in there)
                if (task := next(fit, None)) is not None:
                    waiting.remove(task)
                    computing = task.order == "compute"
                    worker.generous = computing and not self.frugal
                    self.crew.give(worker, task, *((not worker.record.places, self.frugal) if computing else ()))

    # --- how many, and on which cores -------------------------------------------------------------------------

    def resize(self, wanted: Wanted) -> None:
        self.wanted, self.most, self.frugal = wanted, self.workspace.spheres, False
        self._become(self._count(wanted), "order")

    def _count(self, wanted: Wanted) -> int:
        """How many workers to have now."""
        count = (len(self.workspace.devices) or processes.cores()) if isinstance(wanted, str) else wanted
        return max(1, min(count, self.most))

    def _follow_free_cores(self) -> None:
        if self.wanted != "free" or self.workspace.devices:
            return
        # What this run has started itself, such as an evaluation, does not count.
        pids = {process.pid for process in multiprocessing.active_children() if process.pid is not None}
        others = self.others.look({os.getpid(), *pids})
        if others is not None:
            count = load.fitting(len(self.team), others, processes.cores())
            self._become(min(count, self.most), "free cores", others=round(others, 2))

    def _become(self, count: int, why: str, **facts: float) -> None:
        """Have `count` workers. Only between steps."""
        before = len(self.team)
        if count == before:
            return
        for worker in sorted(self.team, key=lambda worker: worker.number)[count:]:
            self.crew.dismiss(worker)
        if not self.crew.fill(count):
            self.most = len(self.team)
        self._tell_of_change(before, why, **facts)

    def _tell_of_change(self, before: int, why: str, **facts: float) -> None:
        log.info("%d workers, before %d (%s)", len(self.team), before, why)
        self.tell("training.workers", before=before, after=len(self.team), why=why, **facts)

    # --- who does what in the update --------------------------------------------------------------------------

    def rebalance(self) -> None:
        self.crew.keep_to_cores()
        self._divide_anew("order", self.divisions)

    def _rebalance_if_uneven(self) -> None:
        """By itself when the slowest has long had much more to do than the mean."""
        found = {n: d for n, d in self.divisions.items() if d.measured and (d.imbalance or 1.0) > UNEVEN}
        if found:
            self._divide_anew("measured", found, only_if_better=True)

    def _divide_anew(self, why: str, divisions: dict[str, Division], only_if_better: bool = False) -> None:
        before = {name: division.imbalance for name, division in divisions.items()}
        done = [name for name, division in divisions.items() if division.renew(only_if_better)]
        if not done and only_if_better:
            return
        after = {name: divisions[name].expected() for name in done}
        for name in done:
            log.info("%s divided anew: slowest over mean was %.2f, should be %.2f", name, before[name], after[name])
        # of the slowest worker over the mean of all, by measurement before and as expected after
        facts = {"before": _rounded(before), "after": _rounded(after)}
        self.tell("training.rebalanced", why=why, cores=processes.allowed_cores(), **facts)

    # --- what they have done ----------------------------------------------------------------------------------

    def spheres(self) -> list[dict[str, Any]]:
        return self.crew.told()

    def shares(self) -> dict[str, float]:
        times = self.crew.times()
        since, self.shares_told = {part: times[part] - self.shares_told[part] for part in PARTS}, times
        whole = sum(since.values())
        return {part: round(seconds / whole, 4) for part, seconds in since.items()} if whole > 0 else {}

    # --- life and death -------------------------------------------------------------------------------------

    def _replace(self, lost: Worker, why: str, order: str) -> None:
        """Start another process in the place of one that died, hung or had too little memory; or have one less.

        order: what it was at.
        """
        code = lost.process.exitcode
        self.crew.forget(lost, order)
        lost.record.errors += why != "memory"  # that was counted as an exception
        lost.record.deaths += why == "died"
        lost.record.hung += why == "hung"
        words = {"died": f"died (exit code {code})", "hung": "does not answer", "memory": "had too little memory"}
        log.warning("worker %d %s; what it was at is done again", lost.number, words[why])
        self.tell("training.worker_lost", number=lost.number, pid=lost.record.pid, why=why, code=code, at=order)
        self.deaths += 1
        if why == "hung":
            self.crew.watch.gave_up()
        certain = why == "memory" or (why == "died" and self._killed_for_memory(code))
        short = certain or self.kills >= KILLS_IN_A_ROW
        # A GPU that nobody else uses has no more memory when others leave theirs.
        alone = why == "memory" and len(self.team) < len(self.workspace.devices)
        if short and self.team and not alone:
            self._go_on_with_fewer()
            return
        if short and (lost.generous or not self.frugal):
            if not self.frugal:
                log.warning("positions are computed with less memory from now on, which takes longer")
                self.tell("training.frugal")
            self.frugal, self.deaths, self.kills = True, 0, 0
        elif certain:
            raise _too_little_memory()
        elif self.deaths >= DEATHS_IN_A_ROW:
            raise UserError(
                "training stopped",
                f"{self.deaths} workers were lost within one step (the last one {words[why]})",
                "look for lack of memory (dmesg), then give the same command again with fewer --workers",
                EXIT_SYSTEM,
            )
        if self.crew.start(lost.number):
            self.crew.keep_to_cores()
        else:
            self._go_on_with_fewer()

    def _go_on_with_fewer(self) -> None:
        self.most, self.deaths, self.kills = len(self.team), 0, 0
        self.crew.keep_to_cores()
        self._tell_of_change(self.most + 1, "memory")

    def _killed_for_memory(self, code: int | None) -> bool:
        """Whether a worker was killed by the kernel for lack of memory, as far as the kernel tells."""
        if code != -signal.SIGKILL:
            return False
        self.kills += 1
        before, self.memory_kills = self.memory_kills, load.memory_kills()
        return self.memory_kills > before

    def close(self) -> None:
        self.crew.close()


def _too_little_memory() -> UserError:
    return UserError(
        "training stopped",
        "there is not enough memory for one position, with one worker and computed with as little as possible",
        "close other programs and give the same command again; or begin a new run with half the training.micro_batch "
        "and twice the training.accumulation, which is the same batch in less memory, or with a smaller model.size",
        EXIT_SYSTEM,
    )


def _rounded(values: Mapping[str, float | None]) -> dict[str, float | None]:
    return {name: None if value is None else round(value, 3) for name, value in values.items()}


def _norm(workspace: Workspace) -> float:
    """The norm of the gradient, from the squares of its units in their constant order."""
    return math.sqrt(math.fsum(workspace.memory["squares"].tolist()))
