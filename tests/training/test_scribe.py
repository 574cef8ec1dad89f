"""The scribe works beside training: it disturbs nothing, loses nothing that must stay, and leaves nothing behind."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from small_runs import checkpoint_names, processes_of, recipe_of, steps_of, train, trainer

from crystalline import events
from crystalline.errors import EXIT_SYSTEM, Interrupted, UserError
from crystalline.events import EventLog
from crystalline.model import checkpoints, scoring
from crystalline.run_folder import damage, write_json
from crystalline.training import checkpoint, scribe
from crystalline.training.loop import Trainer
from crystalline.training.scribe import Scribe

LINUX = sys.platform == "linux"
LOOKING = {"training__evaluate_every": 2, "training__sample_every": 2, "checkpointing__every_steps": 2}


@pytest.fixture
def run(new_run):
    return new_run("run")


@pytest.fixture(scope="module")
def expected(_prepared, tmp_path_factory):
    """Hash of the weights after 6 steps without anything beside them."""
    import shutil

    from crystalline.run_folder import RunFolder

    return train(
        RunFolder(shutil.copytree(_prepared.root, tmp_path_factory.mktemp("alone") / "run"))
    ).parameters.hash()


def trained(run, workers=0, on_step=lambda facts: None, **changes) -> Trainer:
    return train(run, on_step, **{"training__workers": workers, **LOOKING, **changes})


def waiting_for(flag, real):
    """`real`, but not before the file `flag` is there."""

    def wait(*arguments, **options):
        while not flag.exists():
            time.sleep(0.002)
        return real(*arguments, **options)

    return wait


def kinds(run):
    """(kind, step) of all events in their order."""
    found = [(e["kind"].removeprefix("training."), e.get("step")) for e in events.read(run.events, "training.")]
    return [(kind, step) for kind, step in found if kind in ("step", "checkpoint", "evaluation", "sample", "lost")]


# --- beside training ------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_training_goes_on_while_it_evaluates(run, monkeypatch, tmp_path, expected, workers):
    """The evaluation of step 2 ends after step 3 only, and does not see the weights of step 3."""
    flag, seen = tmp_path / "flag", {}
    monkeypatch.setattr(scoring, "score", waiting_for(flag, scoring.score))
    look = lambda facts: flag.touch() if facts["step"] == 3 else None  # noqa: E731
    assert trained(run, workers, look).parameters.hash() == expected
    order = kinds(run)
    assert order.index(("evaluation", 2)) > order.index(("step", 3))
    monkeypatch.undo()
    seen = {e["step"]: e["cross_entropy"] for e in events.read(run.events, "training.evaluation")}
    assert sorted(seen) == [2, 4, 6]
    assert len(set(seen.values())) == 3
    made = trainer(run)
    for step in (2, 4, 6):
        checkpoint.restore(run.checkpoints / checkpoints.checkpoint_name(step), made.parameters, made.optimizers)
        assert made.scribe.evaluation().cross_entropy == seen[step]


@pytest.mark.parametrize("workers", [0, 2])
def test_training_goes_on_while_it_saves(run, monkeypatch, tmp_path, expected, workers):
    flag = tmp_path / "flag"
    monkeypatch.setattr(checkpoint, "save_file", waiting_for(flag, checkpoint.save_file))
    look = lambda facts: flag.touch() if facts["step"] == 3 else None  # noqa: E731
    assert trained(run, workers, look).parameters.hash() == expected
    monkeypatch.undo()
    order = kinds(run)
    assert order.index(("checkpoint", 2)) > order.index(("step", 3))
    assert [damage(folder) for folder in checkpoints.checkpoint_folders(run)] == ["", "", ""]
    resumed = trainer(run, training__steps=2)
    state = checkpoint.restore(run.checkpoints / "step-00000002", resumed.parameters, resumed.optimizers)
    assert (state["step"], state["updates"]) == (2, 2)
    for name in ("step-00000004", "step-00000006"):
        (run.checkpoints / name / "state.json").write_text("")
    assert train(run).parameters.hash() == expected, "optimizer state and all"


def test_what_it_found_comes_in_order_and_all_of_it_before_the_end(run):
    trained(run)
    order = kinds(run)
    for step in (2, 4, 6):
        places = [order.index((kind, step)) for kind in ("step", "checkpoint", "evaluation", "sample")]
        assert places == sorted(places)
    assert order[-1] == ("sample", 6)


def test_the_next_save_waits_for_the_last(run, monkeypatch, expected):
    real = checkpoint.save_file
    monkeypatch.setattr(checkpoint, "save_file", lambda *arguments: (time.sleep(0.1), real(*arguments)))
    assert trained(run, checkpointing__every_steps=1, checkpointing__keep=9).parameters.hash() == expected
    assert checkpoint_names(run) == [checkpoints.checkpoint_name(step) for step in range(1, 7)]


def test_workers_come_and_go_while_it_works(run, monkeypatch, tmp_path, expected):
    """It must not hold the pipes of workers: one that is sent away would not notice."""
    flag = tmp_path / "flag"
    monkeypatch.setattr(scoring, "score", waiting_for(flag, scoring.score))

    def order(facts):
        if facts["step"] == 4:
            run.commands.mkdir(exist_ok=True)
            write_json(run.commands / "workers.json", {"count": 1})
        if facts["step"] == 5:
            flag.touch()

    changes = {"training__evaluate_every": 4, "training__sample_every": 1000}
    assert trained(run, 3, order, **changes).parameters.hash() == expected
    assert flag.exists()


def test_training_in_another_thread(run, expected):
    found = []
    thread = threading.Thread(target=lambda: found.append(trained(run).parameters.hash()))
    thread.start()
    thread.join(60)
    assert found == [expected]
    assert ("sample", 6) in kinds(run)


# --- when it dies ---------------------------------------------------------------------------------------


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def fail(*_):
    raise RuntimeError("no memory for this")


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("how", [die, fail])
@pytest.mark.parametrize("part", ["evaluation", "sample"])
def test_what_only_shows_can_fail_and_training_does_not_care(run, monkeypatch, expected, part, how, workers, caplog):
    monkeypatch.setattr(Scribe, part, how)
    assert trained(run, workers).parameters.hash() == expected
    lost = [(e["step"], e["part"]) for e in events.read(run.events, "training.lost")]
    assert lost == [(step, part) for step in (2, 4, 6)]
    assert f"the {part} of step 2 is lost" in caplog.text
    other = {"evaluation": "sample", "sample": "evaluation"}[part]
    assert [step for kind, step in kinds(run) if kind == other] == [2, 4, 6], "the rest is done all the same"
    assert len(checkpoints.checkpoint_folders(run)) == 3
    assert len(steps_of(run)) == 6


def test_killed_while_saving_it_saves_again(run, monkeypatch, tmp_path, expected):
    real, flag = checkpoint.save_file, tmp_path / "died"

    def save(tensors, path):
        if "step-00000004" in str(path) and not flag.exists():
            flag.touch()
            die()
        real(tensors, path)

    monkeypatch.setattr(checkpoint, "save_file", save)
    assert trained(run).parameters.hash() == expected
    assert flag.exists()
    assert checkpoint_names(run) == [checkpoints.checkpoint_name(step) for step in (2, 4, 6)]
    assert kinds(run).count(("checkpoint", 4)) == 1
    assert list(events.read(run.events, "training.lost")) == []


def test_killed_at_every_save_training_ends_with_advice(run, monkeypatch):
    monkeypatch.setattr(checkpoint, "save_file", die)
    with pytest.raises(UserError, match="checkpoint of step 2") as caught:
        trained(run)
    assert caught.value.exit_code == EXIT_SYSTEM
    assert f"{scribe.DEATHS} processes died" in caught.value.why


def test_an_error_comes_through_as_it_was(run, monkeypatch):
    def full(*_):
        raise UserError("what", "why", "fix", EXIT_SYSTEM)

    monkeypatch.setattr(checkpoint, "save", full)
    with pytest.raises(UserError) as caught:
        trained(run)
    assert (caught.value.what, caught.value.fix, caught.value.exit_code) == ("what", "fix", EXIT_SYSTEM)


# --- stopping -------------------------------------------------------------------------------------------


def test_a_stop_does_not_wait_for_an_evaluation(run, monkeypatch):
    monkeypatch.setattr(scoring, "score", lambda *_: time.sleep(600))

    def press(facts):
        if facts["step"] == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match="step 3 is saved"):
        trained(run, 0, press)
    assert checkpoint_names(run) == ["step-00000002", "step-00000003"]
    assert [(e["step"], e["part"]) for e in events.read(run.events, "training.lost")] == [
        (2, "evaluation"),
        (2, "sample"),
    ]


def test_training_that_fails_lets_a_save_become_whole(run, monkeypatch):
    real = checkpoint.save_file
    monkeypatch.setattr(checkpoint, "save_file", lambda *arguments: (time.sleep(0.2), real(*arguments)))

    def fail(facts):
        if facts["step"] == 3:
            raise ArithmeticError("no")

    with pytest.raises(ArithmeticError):
        trained(run, 0, fail)
    assert checkpoint_names(run) == ["step-00000002"]
    assert ("checkpoint", 2) in kinds(run)


@pytest.mark.skipif(not LINUX, reason="looks into /proc")
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, "twice"])
def test_it_dies_with_node_zero(run, tmp_path, end):
    """Killed in the middle of an endless save or evaluation: no process stays, no lock, and the run can go on."""
    script, moment = tmp_path / "go.py", "checkpoint.save_file" if end != signal.SIGTERM else "scoring.score"
    script.write_text(
        textwrap.dedent(f"""
        import sys, time
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from small_runs import RunFolder, recipe_of, EventLog, Trainer
        from crystalline.model import scoring
        from crystalline.training import checkpoint
        {moment} = lambda *_: (print("there", flush=True), time.sleep(600))
        run = RunFolder({str(run.root)!r})
        changes = dict(training__steps=100_000, training__evaluate_every=2, checkpointing__every_steps=2)
        trainer = Trainer(run, recipe_of(run, **changes))
        with run.lock(), EventLog(run.events) as log:
            trainer.train(log, workers=2)
        """)
    )
    process = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    )
    process.stdout.readline()
    assert len(processes_of(process.pid)) == 4, "Node Zero, two workers, the scribe"
    if end == "twice":
        os.kill(process.pid, signal.SIGINT)
        time.sleep(0.5)
        os.kill(process.pid, signal.SIGINT)
    else:
        os.kill(process.pid, end)
    process.communicate(timeout=60)
    deadline = time.monotonic() + 30
    while processes_of(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes_of(process.pid) == []
    with run.lock():
        assert all(damage(run.checkpoints / name) == "" for name in checkpoint_names(run)), "what was half is gone"
    if end == signal.SIGTERM:
        assert len(checkpoint_names(run)) >= 1
    assert train(run).step == 6 if end != signal.SIGTERM else True


@pytest.mark.skipif(not LINUX, reason="looks into /proc")
def test_nothing_is_left_behind(run, new_run):
    import multiprocessing

    trained(run)
    before = len(os.listdir("/proc/self/fd"))
    made = trained(new_run("second"))
    del made
    assert multiprocessing.active_children() == []
    assert len(os.listdir("/proc/self/fd")) <= before


def test_it_sees_a_copy_and_not_the_weights(run):
    """The copy is as large as weights and state, and what is not due is not copied."""
    made = Trainer(run, recipe_of(run))
    sizes = {name: tensor.numel() for name, tensor in made.scribe.originals.items()}
    states = sum(tensor.numel() for optimizer in made.optimizers for tensor in optimizer.state.values())
    assert sum(sizes.values()) == made.parameters.values.numel() + states
    with EventLog(run.events):
        made.parameters.values.fill_(1.0)
        job = scribe.Job(0, ("sample",), frozenset(), {}, checkpoint.Retention(2))
        for tensor in made.optimizers[0].state.values():
            tensor.fill_(2.0)
        made.scribe.begin(job)
        made.parameters.values.fill_(3.0)
        assert made.scribe.copy["weights"].eq(1.0).all()
        assert not any(made.scribe.copy[name].any() for name in sizes if name != "weights")
        made.scribe.give_up()
    assert not made.scribe.busy
