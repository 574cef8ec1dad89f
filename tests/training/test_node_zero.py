"""Who computes a step does not matter: any number of workers, any mix, and any that die, give the same bits."""

import contextlib
import ctypes
import errno
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
import torch
from small_runs import processes_of, recipe_of, steps_of

from crystalline import events, processes
from crystalline.errors import EXIT_SYSTEM, UserError
from crystalline.events import EventLog
from crystalline.training import commands, crew, division, load, node_zero, optimizers, position, watch
from crystalline.training.loop import Trainer
from crystalline.training.node_zero import Alone, Stopped, Workers
from crystalline.training.parameters import WorkingCopy

LINUX = sys.platform == "linux"


def trained(run, workers: int, on_step=lambda facts: None, **changes) -> Trainer:
    trainer = Trainer(run, recipe_of(run, **changes))
    trainer.resume()
    with EventLog(run.events) as log:
        trainer.train(log, on_step, workers)
    return trainer


@pytest.fixture(scope="module")
def expected(_prepared, tmp_path_factory):
    """Hash and step facts of a run computed in one process."""
    import shutil

    from crystalline.run_folder import RunFolder

    run = RunFolder(shutil.copytree(_prepared.root, tmp_path_factory.mktemp("expected") / "run"))
    return trained(run, 0).parameters.hash(), steps_of(run)


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 5, 6, 12, 40])
def test_any_number_of_workers_gives_the_same_weights_and_losses(workers, new_run, expected):
    run = new_run("run")
    assert trained(run, workers).parameters.hash() == expected[0]
    assert steps_of(run) == expected[1]


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_so_it_is_with_other_optimizers_and_precisions(optimizer, precision, new_run):
    changes = {"optimizer__name": optimizer, "training__precision": precision, "training__steps": 3}
    hashes = {trained(new_run(f"run{n}"), n, **changes).parameters.hash() for n in (0, 2, 3)}
    assert len(hashes) == 1


def test_144_positions(new_run):
    changes = {"training__positions": 144, "training__steps": 2}
    assert len({trained(new_run(f"run{n}"), n, **changes).parameters.hash() for n in (0, 3)}) == 1


class TestDeath:
    """Workers are killed at every kind of moment."""

    def killing(self, monkeypatch, name: str, moment: int):
        """Make worker 1 die in its `moment`-th call of `name`, once."""
        parent, flag = os.getpid(), Path(self.folder / "died")
        original = getattr(node_zero.Sphere, name)
        calls = []

        def dying(sphere, *arguments):
            calls.append(1)
            if os.getpid() != parent and sphere.number == 1 and len(calls) == moment and not flag.exists():
                flag.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return original(sphere, *arguments)

        monkeypatch.setattr(node_zero.Sphere, name, dying)
        return flag

    @pytest.mark.parametrize("name", ["compute", "reduce", "update"])
    @pytest.mark.parametrize("moment", [1, 2])
    def test_before_each_part_of_a_step(self, name, moment, new_run, expected, monkeypatch, tmp_path):
        self.folder = tmp_path
        flag = self.killing(monkeypatch, name, moment)
        run = new_run("run")
        assert trained(run, 3).parameters.hash() == expected[0]
        assert flag.exists(), "nobody died: the test tests nothing"
        assert steps_of(run) == expected[1]

    def test_in_the_middle_of_adding_to_the_sum(self, new_run, expected, monkeypatch, tmp_path):
        original, flag, parent = WorkingCopy.gradients, tmp_path / "died", os.getpid()

        def half(copy):
            every = list(original(copy))
            if os.getpid() != parent and not flag.exists():
                yield from every[: len(every) // 2]
                flag.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            yield from every

        monkeypatch.setattr(WorkingCopy, "gradients", half)
        assert trained(new_run("run"), 2).parameters.hash() == expected[0]
        assert flag.exists()

    @pytest.mark.parametrize("when", ["before", "after"])
    def test_in_the_middle_of_changing_a_unit(self, when, new_run, expected, monkeypatch, tmp_path):
        """The weights are half changed, or changed but not yet marked so: the old ones are put back first."""
        flag, parent = tmp_path / "died", os.getpid()
        original = node_zero.Sphere.update

        def update(sphere, units, clip, share, number):
            optimizer = sphere.workspace.units[units[-1]][0]
            step = type(optimizer).step

            def dying(self, unit, g, share, number):
                if os.getpid() != parent and sphere.number == 1 and not flag.exists():
                    flag.touch()
                    if when == "before":
                        self.touched(unit)[0][::2] = 7.0
                        self.touched(unit)[1].fill_(3.0)
                    else:
                        step(self, unit, g, share, number)
                    os.kill(os.getpid(), signal.SIGKILL)
                step(self, unit, g, share, number)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(type(optimizer), "step", dying)
                original(sphere, units, clip, share, number)

        monkeypatch.setattr(node_zero.Sphere, "update", update)
        assert trained(new_run("run"), 3).parameters.hash() == expected[0]
        assert flag.exists()

    def test_at_random_moments(self, new_run, expected):
        """Kills from outside, in step with the run so that each step has time to be done."""
        teams, source = [], random.Random(3)
        run = new_run("run")
        trainer = Trainer(run, recipe_of(run))
        make = trainer.team
        trainer.team = lambda *arguments: teams.append(make(*arguments)) or teams[-1]

        def kill(facts):
            victim = source.choice(teams[-1].team)
            threading.Timer(source.random() * 0.05, os.kill, (victim.process.pid, signal.SIGKILL)).start()
            time.sleep(0.03)

        with EventLog(run.events) as log:
            trainer.train(log, kill, 3)
        assert trainer.parameters.hash() == expected[0]

    def test_workers_that_always_die_end_the_run_with_advice(self, new_run, monkeypatch):
        parent = os.getpid()

        def die(*_):
            if os.getpid() != parent:
                os._exit(9)

        monkeypatch.setattr(node_zero.Sphere, "compute", die)
        with pytest.raises(UserError, match="fewer --workers"):
            trained(new_run("run"), 2)


class Odd(Exception):
    """Cannot be made again from what it says of itself."""

    def __init__(self, one, two):
        super().__init__(f"{one} {two}")


@pytest.mark.parametrize(("error", "kind"), [(ArithmeticError("no"), ArithmeticError), (Odd("n", "o"), RuntimeError)])
def test_an_error_in_a_worker_is_an_error_of_the_run(error, kind, new_run, monkeypatch):
    def fail(*_):
        raise error

    monkeypatch.setattr(node_zero.Sphere, "compute", fail)
    with pytest.raises(kind, match=r"n ?o") as caught:
        trained(new_run("run"), 2)
    if kind is ArithmeticError:
        assert "in fail" in "".join(caught.value.__notes__), "it says where in the worker it happened"


class TestHang:
    """Workers that neither answer nor die."""

    @pytest.mark.parametrize("name", ["compute", "reduce", "update"])
    def test_is_ended_and_its_work_done_by_others(self, name, new_run, expected, monkeypatch, tmp_path):
        monkeypatch.setattr(watch, "LEAST_SECONDS", 1.0)
        monkeypatch.setattr(watch, "TIMES", 1)
        parent, flag = os.getpid(), tmp_path / "stopped"
        original, calls = getattr(node_zero.Sphere, name), []

        def stopping(sphere, *arguments):
            calls.append(1)
            if os.getpid() != parent and sphere.number == 1 and len(calls) == 2 and not flag.exists():
                flag.touch()
                os.kill(os.getpid(), signal.SIGSTOP)
            return original(sphere, *arguments)

        monkeypatch.setattr(node_zero.Sphere, name, stopping)
        run = new_run("run")
        assert trained(run, 3).parameters.hash() == expected[0]
        assert flag.exists()
        assert steps_of(run) == expected[1]
        lost = list(events.read(run.events, "training.worker_lost"))
        assert [(event["number"], event["why"], event["at"]) for event in lost][:1] == [(1, "hung", name)]

    def test_while_it_starts(self, new_run, expected, monkeypatch, tmp_path):
        monkeypatch.setattr(watch, "UNKNOWN_SECONDS", 1.0)
        monkeypatch.setattr(watch, "LEAST_SECONDS", 1.0)
        original, flag = crew.main, tmp_path / "stopped"

        def main(*arguments):
            if not flag.exists():
                flag.touch()
                os.kill(os.getpid(), signal.SIGSTOP)
            original(*arguments)

        monkeypatch.setattr(crew, "main", main)
        assert trained(new_run("run"), 1).parameters.hash() == expected[0]

    def test_does_not_keep_the_run_from_ending(self, new_run):
        run = new_run("run")
        trainer = Trainer(run, recipe_of(run))
        team = trainer.team(3, lambda: True)
        pids = [worker.process.pid for worker in team.team]
        os.kill(pids[1], signal.SIGSTOP)
        team.resize(1)
        os.kill(pids[0], signal.SIGSTOP)
        with pytest.raises(Stopped):
            team.positions(0, trainer.batches.targets_in_step(0))
        team.close()
        assert not any(Path(f"/proc/{pid}").exists() for pid in pids)

    @pytest.mark.skipif(not LINUX, reason="stops a group of processes")
    def test_a_run_that_was_held_has_no_hung_workers(self, new_run, tmp_path):
        """As after Ctrl-Z, or after the lid of a laptop was closed: Node Zero has slept too."""
        run = new_run("run")
        lines = "from crystalline.training import watch; watch.LEAST_SECONDS = 3.0; watch.TIMES = 1"
        process = start_script(tmp_path, run, 100_000, lines)
        os.killpg(process.pid, signal.SIGSTOP)
        time.sleep(5)
        os.killpg(process.pid, signal.SIGCONT)
        step = int(process.stdout.readline())
        while int(process.stdout.readline()) < step + 5:
            pass
        process.terminate()
        process.communicate(timeout=30)
        assert list(events.read(run.events, "training.worker_lost")) == []


class TestMemory:
    """Too little of it: first fewer workers, then positions with less, then advice."""

    def failing(self, monkeypatch, name, when):
        """Have workers run out of memory in `name`, `when(sphere, arguments)`."""
        original = getattr(node_zero.Sphere, name)

        def fail(sphere, *arguments):
            if when(sphere, arguments):
                raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory")
            return original(sphere, *arguments)

        monkeypatch.setattr(node_zero.Sphere, name, fail)

    @pytest.mark.parametrize("name", ["compute", "reduce", "update"])
    def test_there_are_fewer_workers(self, name, new_run, expected, monkeypatch):
        self.failing(monkeypatch, name, lambda sphere, _: sphere.number in (0, 2))
        run = new_run("run")
        assert trained(run, 3).parameters.hash() == expected[0]
        assert steps_of(run) == expected[1]
        changes = list(events.read(run.events, "training.workers"))
        assert [(e["before"], e["after"], e["why"]) for e in changes] == [(3, 2, "memory"), (2, 1, "memory")]
        assert {e["why"] for e in events.read(run.events, "training.worker_lost")} == {"memory"}

    def test_in_the_middle_of_adding_to_the_sum(self, new_run, expected, monkeypatch):
        original, parent = WorkingCopy.gradients, os.getpid()

        def half(copy):
            every = list(original(copy))
            if os.getpid() != parent and half.fails:
                yield from every[: len(every) // 2]
                raise MemoryError
            yield from every

        starter = crew.main

        def main(*arguments):
            half.fails = arguments[4] == 1
            starter(*arguments)

        monkeypatch.setattr(WorkingCopy, "gradients", half)
        monkeypatch.setattr(crew, "main", main)
        assert trained(new_run("run"), 2).parameters.hash() == expected[0]

    def test_the_last_worker_computes_with_less(self, new_run, expected, monkeypatch):
        original = position.compute

        def compute(copy, batches, step, number, targets, total, frugal, *more):
            if not frugal:
                raise MemoryError
            return original(copy, batches, step, number, targets, total, frugal, *more)

        monkeypatch.setattr(position, "compute", compute)
        run = new_run("run")
        assert trained(run, 2).parameters.hash() == expected[0]
        assert len(list(events.read(run.events, "training.frugal"))) == 1

    @pytest.mark.parametrize("workers", [0, 1, 3])
    def test_in_the_end_there_is_advice(self, workers, new_run, monkeypatch):
        self.failing(monkeypatch, "compute", lambda *_: True)
        with pytest.raises(
            UserError, match=r"half the training.micro_batch .*twice the training.accumulation"
        ) as error:
            trained(new_run("run"), workers)
        assert error.value.exit_code == EXIT_SYSTEM

    def test_without_workers(self, new_run, expected, monkeypatch):
        """In the middle of a step: what is in the sum already is not counted twice."""
        self.failing(monkeypatch, "compute", lambda _, a: not a[-1] and a[:2] == (2, 5))
        assert trained(new_run("run"), 0).parameters.hash() == expected[0]

    @pytest.mark.parametrize("kernel_tells", [True, False])
    def test_the_kernel_kills_workers(self, kernel_tells, new_run, expected, monkeypatch, tmp_path):
        """It says so in a counter; where it does not, the second kill in a step is taken for its."""
        parent = os.getpid()
        original = node_zero.Sphere.compute

        def kills():
            return len(list(tmp_path.glob("killed.*")))

        def die(sphere, *arguments):
            if os.getpid() != parent and kills() < (1 if kernel_tells else 2):
                (tmp_path / f"killed.{os.getpid()}").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return original(sphere, *arguments)

        monkeypatch.setattr(node_zero.Sphere, "compute", die)
        if kernel_tells:
            monkeypatch.setattr(load, "memory_kills", kills)
        run = new_run("run")
        assert trained(run, 2).parameters.hash() == expected[0]
        assert [(e["before"], e["after"]) for e in events.read(run.events, "training.workers")] == [(2, 1)]

    @pytest.mark.skipif(not LINUX, reason="limits memory")
    def test_a_real_limit(self, new_run, monkeypatch):
        """Worker 1 may not take any more memory than it starts with; its share is too much for that."""
        import resource

        changes = {"training__micro_batch": 1024, "training__steps": 1}
        starter = crew.main

        def main(pipe, others, workspace, batches, number, began):
            if number == 1:
                ctypes.CDLL(None).malloc_trim(0)  # what earlier tests have left free would do for its share
                pages = int(Path("/proc/self/statm").read_text().split()[0])
                limit = pages * resource.getpagesize() + 2_000_000
                resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            starter(pipe, others, workspace, batches, number, began)

        monkeypatch.setattr(crew, "main", main)
        run = new_run("run")
        found = trained(run, 2, **changes).parameters.hash()  # first, or this process has more memory than it uses
        assert found == trained(new_run("alone"), 0, **changes).parameters.hash()
        assert [e["why"] for e in events.read(run.events, "training.worker_lost")] == ["memory"]
        assert [(e["before"], e["after"]) for e in events.read(run.events, "training.workers")] == [(2, 1)]

    @pytest.mark.parametrize("possible", [2, 0])
    def test_the_system_gives_no_more_processes(self, possible, new_run, expected, monkeypatch):
        original, started = multiprocessing.context.ForkProcess.start, []

        def start(process):
            if len(started) >= possible:
                raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
            started.append(process)
            original(process)

        monkeypatch.setattr(multiprocessing.context.ForkProcess, "start", start)
        if possible:
            assert trained(new_run("run"), 4).parameters.hash() == expected[0]
        else:
            with pytest.raises(UserError, match="no worker process could be started"):
                trained(new_run("run"), 4)


class TestFreeCores:
    """`--workers free`: as many workers as there are cores that others leave free."""

    def test_workers_come_and_go_with_the_load_of_others(self, new_run, expected, monkeypatch):
        busy = iter([None, 2.9, 2.9, 0.0, 1.4, 0.0])  # of four cores, before each step
        monkeypatch.setattr(processes, "allowed_cores", lambda: [0, 0, 0, 0])
        monkeypatch.setattr(node_zero.OtherLoad, "look", lambda self, own: next(busy))
        run, teams, counts = new_run("run"), [], []
        trainer = Trainer(run, recipe_of(run))
        make = trainer.team
        trainer.team = lambda *arguments: teams.append(make(*arguments)) or teams[-1]
        with EventLog(run.events) as log:
            trainer.train(log, lambda facts: counts.append(len(teams[0].team)), "free")
        assert trainer.parameters.hash() == expected[0]
        assert steps_of(run) == expected[1]
        assert counts == [4, 1, 1, 4, 3, 4]
        changes = list(events.read(run.events, "training.workers"))
        assert [(e["before"], e["after"], e["why"], e["others"], e["step"]) for e in changes] == [
            (4, 1, "free cores", 2.9, 1),
            (1, 4, "free cores", 0.0, 3),
            (4, 3, "free cores", 1.4, 4),
            (3, 4, "free cores", 0.0, 5),
        ]

    def test_with_a_number_the_load_does_not_matter(self, new_run, expected, monkeypatch):
        monkeypatch.setattr(node_zero.OtherLoad, "look", lambda self, own: 1 / 0)
        assert trained(new_run("run"), 2).parameters.hash() == expected[0]

    def test_not_more_than_there_is_memory_for(self, new_run, monkeypatch):
        monkeypatch.setattr(processes, "allowed_cores", lambda: [0, 0, 0])
        monkeypatch.setattr(node_zero.OtherLoad, "look", lambda self, own: 0.0)
        original = node_zero.Sphere.compute

        def fail(sphere, *arguments):
            if sphere.number == 2:
                raise MemoryError
            return original(sphere, *arguments)

        monkeypatch.setattr(node_zero.Sphere, "compute", fail)
        run = new_run("run")
        trained(run, "free")
        assert [(e["before"], e["after"]) for e in events.read(run.events, "training.workers")] == [(3, 2)]


class TestDivision:
    """The update's units go to whoever is done with them first, by measurement."""

    @pytest.fixture
    def slow_zero(self, monkeypatch):
        """The first worker takes longer than the other for each unit."""
        monkeypatch.setattr(division, "WINDOW", 3)
        original = optimizers.Muon.step, optimizers.AdamW.step
        parent, starter = os.getpid(), crew.main

        def slowed(step):
            def slow(*arguments):
                if os.getpid() != parent:
                    time.sleep(0.02 if slow.zero else 0.004)
                step(*arguments)

            return slow

        slows = [slowed(step) for step in original]

        def main(*arguments):
            for slow in slows:
                slow.zero = arguments[4] == 0
            starter(*arguments)

        monkeypatch.setattr(optimizers.Muon, "step", slows[0])
        monkeypatch.setattr(optimizers.AdamW, "step", slows[1])
        monkeypatch.setattr(crew, "main", main)

    def test_by_itself_when_one_is_slow(self, new_run, expected, slow_zero):
        run = new_run("run")
        assert trained(run, 2).parameters.hash() == expected[0]
        assert steps_of(run) == expected[1]
        told = [e for e in events.read(run.events, "training.rebalanced") if "update" in e["after"]]
        assert told
        assert told[0]["why"] == "measured"
        assert told[0]["before"]["update"] > 1.25
        assert told[0]["after"]["update"] < told[0]["before"]["update"]

    def test_on_order_also_the_cores(self, new_run, slow_zero, monkeypatch):
        run = new_run("run")
        trainer, told = Trainer(run, recipe_of(run)), []
        cores = processes.allowed_cores()
        team = trainer.team(len(cores) + 1, lambda: False, lambda kind, **facts: told.append((kind, facts)))
        try:
            team.rebalance()  # nothing is measured yet
            for number in range(1, 3):
                team.positions(number, trainer.batches.targets_in_step(number))
                team.reduce()
                team.update(1.0, 1.0, number)
            monkeypatch.setattr(processes, "allowed_cores", lambda: cores[:1])
            team.rebalance()
            assert all(os.sched_getaffinity(worker.process.pid) == {cores[0]} for worker in team.team)
            monkeypatch.undo()
            team.rebalance()
            assert all(os.sched_getaffinity(worker.process.pid) == set(cores) for worker in team.team)
        finally:
            team.close()
        assert [kind for kind, _ in told] == ["training.rebalanced"] * 3
        first, second, _ = (facts for _, facts in told)
        assert first["before"] == {"reduce": None, "update": None}
        assert first["after"] == {}
        assert second["why"] == "order"
        assert second["cores"] == cores[:1]
        assert set(second["before"]) == set(second["after"]) == {"reduce", "update"}
        assert second["before"]["update"] > 1.25

    def test_a_worker_for_each_core_stays_on_it(self, new_run):
        run = new_run("run")
        trainer = Trainer(run, recipe_of(run))
        cores = processes.allowed_cores()
        team = trainer.team("auto", lambda: False)
        try:
            assert [os.sched_getaffinity(worker.process.pid) for worker in team.team] == [{core} for core in cores]
            assert [sphere["core"] for sphere in team.spheres()] == cores
            team.resize(len(cores) + 1)
            assert all(os.sched_getaffinity(worker.process.pid) == set(cores) for worker in team.team)
            assert [sphere["core"] for sphere in team.spheres()] == [None] * (len(cores) + 1)
        finally:
            team.close()


def test_workers_change_and_die_in_a_longer_run(new_run):
    """Other numbers of workers at steps 10, 25 and 40, and between them kill -9 in the middle of a step."""
    alone, run, teams, killed = new_run("alone"), new_run("run"), [], {}
    expected = trained(alone, 0, training__steps=50).parameters.hash()
    trainer = Trainer(run, recipe_of(run, training__steps=50))
    make = trainer.team
    trainer.team = lambda *arguments: teams.append(make(*arguments)) or teams[-1]
    original = node_zero.Workers.positions

    def positions(team, step, targets):
        if step in (5, 17, 30, 45):
            computing = threading.Timer(0.001, kill, (team, step))
            computing.start()
        return original(team, step, targets)

    def kill(team, step):
        victim = next((worker for worker in list(team.team) if worker.task), team.team[0])
        os.kill(victim.process.pid, signal.SIGKILL)
        killed[step] = time.monotonic()

    def on_step(facts):
        if facts["step"] - 1 in killed:
            killed[facts["step"] - 1] = time.monotonic() - killed[facts["step"] - 1]
        if facts["step"] in (10, 25, 40):
            commands.send(run, "workers", count={10: 3, 25: 1, 40: 4}[facts["step"]])

    with pytest.MonkeyPatch.context() as patch, run.lock(), EventLog(run.events) as log:
        patch.setattr(node_zero.Workers, "positions", positions)
        trainer.train(log, on_step, 2)
    assert trainer.parameters.hash() == expected
    assert steps_of(run) == steps_of(alone)
    assert len(list(events.read(run.events, "training.worker_lost"))) == len(killed) == 4
    assert all(seconds < 10 for seconds in killed.values()), "each time the run went on within ten seconds"


@pytest.mark.parametrize("kind", [Alone, Workers])
def test_stopping_gives_the_step_up_and_leaves_the_weights(kind, new_run):
    run = new_run("run")
    trainer = Trainer(run, recipe_of(run))
    before = trainer.parameters.hash()
    team = trainer.team(0 if kind is Alone else 2, lambda: True)
    try:
        with pytest.raises(Stopped):
            team.positions(0, trainer.batches.targets_in_step(0))
        assert trainer.parameters.hash() == before
    finally:
        team.close()


def test_a_slow_worker_loses_positions_to_the_others(new_run, expected, monkeypatch):
    original = position.compute

    def slow(*arguments):
        if os.getpid() == slow.pid:
            time.sleep(0.2)
        return original(*arguments)

    slow.pid = 0
    run = new_run("run")
    trainer = Trainer(run, recipe_of(run, training__steps=1))
    monkeypatch.setattr(position, "compute", slow)
    starter = crew.main

    def main(pipe, others, workspace, batches, number, began):
        slow.pid = os.getpid() if number == 0 else 0
        starter(pipe, others, workspace, batches, number, began)

    monkeypatch.setattr(crew, "main", main)
    team = trainer.team(3, lambda: False)
    try:
        team.positions(0, trainer.batches.targets_in_step(0))
        done = {worker.number: worker.record.positions for worker in team.team}
        assert sum(done.values()) == 12
        assert done[0] <= 2
        assert (
            sum(worker.record.steals for worker in team.team) == sum(max(0, count - 4) for count in done.values()) > 0
        )
    finally:
        team.close()


def start_script(folder, run, steps, lines="", workers=3):
    """A process, leader of its own group, that trains `run`; its first step is done. It prints each step.

    lines: Python that it does before. Its temporary files go to `folder`/tmp.
    """
    script = folder / "go.py"
    script.write_text(
        textwrap.dedent(f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from small_runs import RunFolder, recipe_of, EventLog, Trainer
        {lines}
        def on_step(facts):
            print(facts["step"], flush=True)
            if facts["step"] == {steps} and {steps} == 4:
                raise ArithmeticError("an error in Node Zero")
        run = RunFolder({str(run.root)!r})
        trainer = Trainer(run, recipe_of(run, training__steps={steps}))
        with run.lock(), EventLog(run.events) as log:
            trainer.train(log, on_step, {workers})
        """)
    )
    (folder / "tmp").mkdir()
    environment = {**os.environ, "TMPDIR": str(folder / "tmp")}
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,
    )
    assert process.stdout.readline() == b"1\n"
    return process


STEPS = {"normal": 3, "exception": 4}


@pytest.mark.skipif(not LINUX, reason="looks into /proc")
@pytest.mark.parametrize(
    "end", ["normal", "exception", signal.SIGKILL, signal.SIGTERM, signal.SIGINT, "all killed", "workers killed"]
)
def test_nothing_is_left_behind(end, new_run, tmp_path):
    """No process, no shared memory, no temporary file, no lock: whichever way Node Zero ends."""
    run = new_run("run")
    process = start_script(tmp_path, run, STEPS.get(end, 100_000))
    if end not in STEPS:
        pids = processes_of(process.pid)
        assert len(pids) == 4
        # What is not there cannot stay. (What is there afterwards could be anybody's.)
        assert not any("/dev/shm" in Path(f"/proc/{pid}/maps").read_text() for pid in pids)
    if end == "all killed":
        os.killpg(process.pid, signal.SIGKILL)
    elif end == "workers killed":
        for pid in processes_of(process.pid):
            if pid != process.pid:
                os.kill(pid, signal.SIGKILL)
        process.stdout.readline()
        process.terminate()
    elif end not in STEPS:
        os.kill(process.pid, end)
    process.communicate(timeout=30)
    assert (process.returncode == 0) == (end == "normal")
    deadline = time.monotonic() + 5
    while processes_of(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes_of(process.pid) == []
    assert os.listdir(tmp_path / "tmp") == []
    with run.lock():
        pass


def test_no_descriptor_leaks_over_many_starts(new_run):
    run = new_run("run")
    trainer = Trainer(run, recipe_of(run))
    for count in range(12):
        team = trainer.team(2, lambda: False)
        os.kill(team.team[1].process.pid, signal.SIGKILL)
        team.positions(0, trainer.batches.targets_in_step(0))
        team.resize(1)
        team.resize(3)
        team.close()
        if count == 1:
            open_files = len(os.listdir("/proc/self/fd")) if LINUX else 0
    assert not LINUX or len(os.listdir("/proc/self/fd")) <= open_files
    assert torch.isfinite(trainer.parameters.values).all()


@pytest.mark.slow
def test_a_thousand_starts_and_stops(new_run):
    run = new_run("run")
    trainer = Trainer(run, recipe_of(run))
    source = random.Random(0)
    for _ in range(1000):
        asked = []
        team = trainer.team(source.randint(1, 3), lambda asked=asked: bool(asked))
        threading.Timer(source.random() * 0.03, asked.append, (1,)).start()
        with contextlib.suppress(Stopped):
            team.positions(0, trainer.batches.targets_in_step(0))
        team.close()
