"""Who computes a step does not matter: any number of workers, any mix, and any that die, give the same bits."""

import contextlib
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
from small_runs import recipe_of, steps_of

from crystalline.errors import UserError
from crystalline.events import EventLog
from crystalline.training import node_zero, position
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


def test_an_error_in_a_worker_is_an_error_of_the_run(new_run, monkeypatch):
    def fail(*_):
        raise ArithmeticError("no")

    monkeypatch.setattr(node_zero.Sphere, "compute", fail)
    with pytest.raises(ArithmeticError, match="no"):
        trained(new_run("run"), 2)


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
    starter = node_zero.main

    def main(pipe, others, workspace, batches, number, core):
        slow.pid = os.getpid() if number == 0 else 0
        starter(pipe, others, workspace, batches, number, core)

    monkeypatch.setattr(node_zero, "main", main)
    team = trainer.team(3, lambda: False)
    try:
        team.positions(0, trainer.batches.targets_in_step(0))
        done = {worker.number: worker.positions for worker in team.team}
        assert sum(done.values()) == 12
        assert done[0] <= 2
        assert sum(worker.steals for worker in team.team) == sum(max(0, count - 4) for count in done.values()) > 0
    finally:
        team.close()


def processes_of(session: int) -> list[int]:
    """Processes of a session that are not zombies."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


@pytest.mark.skipif(not LINUX, reason="looks into /proc")
@pytest.mark.parametrize("end", ["normal", signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_behind(end, new_run, tmp_path):
    """No process, no shared memory, no lock: whichever way Node Zero ends."""
    run = new_run("run")
    steps = 3 if end == "normal" else 100_000
    script = tmp_path / "go.py"
    script.write_text(
        textwrap.dedent(f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from small_runs import RunFolder, recipe_of, EventLog, Trainer
        run = RunFolder({str(run.root)!r})
        trainer = Trainer(run, recipe_of(run, training__steps={steps}))
        with run.lock(), EventLog(run.events) as log:
            trainer.train(log, lambda facts: print(facts["step"], flush=True), 3)
        """)
    )
    before = set(os.listdir("/dev/shm"))
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, start_new_session=True)
    process.stdout.readline()
    assert end == "normal" or len(processes_of(process.pid)) == 4
    if end != "normal":
        os.kill(process.pid, end)
    process.communicate(timeout=30)
    deadline = time.monotonic() + 5
    while processes_of(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes_of(process.pid) == []
    assert set(os.listdir("/dev/shm")) <= before
    with run.lock():
        pass


def test_no_descriptor_leaks_over_many_starts(new_run):
    run = new_run("run")
    trainer = Trainer(run, recipe_of(run))
    for count in range(12):
        team = trainer.team(2, lambda: False)
        team.positions(0, trainer.batches.targets_in_step(0))
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
