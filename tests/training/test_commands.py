"""Orders from another process: each acts before the next step, and none changes the weights."""

import threading
import time

import pytest
from small_runs import checkpoint_names, recipe_of, steps_of

from crystalline import events, processes
from crystalline.cli.main import main
from crystalline.errors import Interrupted, UserError
from crystalline.events import EventLog
from crystalline.pipeline.status import log_hash, status
from crystalline.run_folder import write_json
from crystalline.training import commands, loop, node_zero
from crystalline.training.loop import Trainer


def trained(run, on_step=lambda facts, trainer: None, workers=0, **changes) -> Trainer:
    trainer = Trainer(run, recipe_of(run, **changes))
    trainer.resume()
    with run.lock(), EventLog(run.events) as log:
        trainer.train(log, lambda facts: on_step(facts, trainer), workers)
    return trainer


@pytest.fixture(scope="module")
def expected(_prepared, tmp_path_factory):
    import shutil

    from crystalline.run_folder import RunFolder

    run = RunFolder(shutil.copytree(_prepared.root, tmp_path_factory.mktemp("expected") / "run"))
    return trained(run).parameters.hash()


def ordering(run, at: int, name: str, **arguments):
    def on_step(facts, trainer):
        if facts["step"] == at:
            commands.send(run, name, **arguments)

    return on_step


def test_checkpoint_saves_now(new_run, expected):
    run = new_run("run")
    assert trained(run, ordering(run, 3, "checkpoint")).parameters.hash() == expected
    assert checkpoint_names(run) == ["step-00000003", "step-00000006"]


def test_stop_saves_and_the_same_command_continues(new_run, expected):
    run = new_run("run")
    with pytest.raises(Interrupted, match="step 2 is saved"):
        trained(run, ordering(run, 2, "stop"))
    assert sorted(steps_of(run)) == [1, 2]
    assert status(run.root)["state"] == "stopped"
    assert trained(run).parameters.hash() == expected


def test_pause_holds_and_resume_goes_on(new_run, expected):
    run, seen = new_run("run"), {}

    def on_step(facts, trainer):
        if facts["step"] == 2:
            commands.send(run, "pause")
            threading.Timer(0.5, look).start()

    def look():
        seen.update(status(run.root))
        commands.send(run, "resume")

    began = time.monotonic()
    assert trained(run, on_step).parameters.hash() == expected
    assert time.monotonic() - began > 0.5
    assert (seen["state"], seen["step"]) == ("paused", 2)


def test_stop_ends_a_paused_run(new_run):
    run = new_run("run")

    def on_step(facts, trainer):
        if facts["step"] == 2:
            commands.send(run, "pause")
            threading.Timer(0.3, commands.send, (run, "stop")).start()

    with pytest.raises(Interrupted):
        trained(run, on_step)


def test_workers_come_and_go_at_steps_and_the_weights_stay_the_same(new_run, expected):
    run, counts = new_run("run"), []
    trainer = Trainer(run, recipe_of(run))
    make = trainer.team
    teams = []
    trainer.team = lambda *arguments: teams.append(make(*arguments)) or teams[-1]
    orders = {1: 3, 2: 1, 3: 12, 4: 2}

    def on_step(facts):
        counts.append(len(teams[0].team))
        if facts["step"] in orders:
            commands.send(run, "workers", count=orders[facts["step"]])

    with run.lock(), EventLog(run.events) as log:
        trainer.train(log, on_step, 2)
    assert trainer.parameters.hash() == expected
    assert counts == [2, 3, 1, 12, 2, 2]


@pytest.mark.parametrize(("wanted", "expected_counts"), [("auto", [1, 1, 3, 3, 3, 3]), ("free", [1, 1, 3, 2, 3, 3])])
def test_workers_by_a_word(wanted, expected_counts, new_run, expected, monkeypatch):
    """Three cores; in step 4 others want one of them."""
    busy = iter([0.0, 1.0, 0.0, 0.0])
    monkeypatch.setattr(node_zero.OtherLoad, "look", lambda self, own: next(busy))
    monkeypatch.setattr(processes, "allowed_cores", lambda: [0, 0, 0])
    run, teams, counts = new_run("run"), [], []
    trainer = Trainer(run, recipe_of(run))
    make = trainer.team
    trainer.team = lambda *arguments: teams.append(make(*arguments)) or teams[-1]

    def on_step(facts):
        counts.append(len(teams[0].team))
        if facts["step"] == 2:
            assert main(["workers", str(run.root), wanted]) == 0

    with run.lock(), EventLog(run.events) as log:
        trainer.train(log, on_step, 1)
    assert trainer.parameters.hash() == expected
    assert counts == expected_counts
    changes = list(events.read(run.events, "training.workers"))
    assert (changes[0]["before"], changes[0]["after"], changes[0]["why"]) == (1, 3, "order")


@pytest.mark.parametrize("workers", [0, 2])
def test_rebalance_acts_before_the_next_step(workers, new_run, expected):
    run = new_run("run")

    def on_step(facts, trainer):
        if facts["step"] == 3:
            assert main(["rebalance", str(run.root)]) == 0

    assert trained(run, on_step, workers).parameters.hash() == expected
    told = list(events.read(run.events, "training.rebalanced"))
    assert [(event["step"], event["why"]) for event in told] == ([(3, "order")] if workers else [])
    if workers:
        assert all(told[0][when][order] >= 1 for when in ("before", "after") for order in ("reduce", "update"))


def test_orders_need_somebody_to_take_them(new_run):
    run = new_run("run")
    with pytest.raises(UserError, match="no process trains it"):
        commands.send(run, "pause")


def test_orders_of_yesterday_are_forgotten(new_run, expected):
    run = new_run("run")
    run.commands.mkdir()
    (run.commands / "stop.json").write_text("{}")
    assert trained(run).parameters.hash() == expected


def test_files_that_are_no_orders_are_removed(new_run):
    run = new_run("run")
    run.commands.mkdir()
    (run.commands / "dance.json").write_text("{}")
    assert commands.take(run) == []
    assert list(run.commands.iterdir()) == []


def test_spheres_are_recorded_and_shown(new_run, monkeypatch):
    monkeypatch.setattr(loop, "SPHERES_EVERY", 0.0)
    run, seen = new_run("run"), []
    write_json(run.recipe, recipe_of(run).to_json())

    def look(facts, trainer):
        seen.append(status(run.root))

    trained(run, look, workers=2)
    last = [event["spheres"] for event in events.read(run.events, "training.spheres")][-1]
    assert [sphere["number"] for sphere in last] == [0, 1]
    assert sum(sphere["positions"] for sphere in last) == 6 * 12, "no position is counted twice or forgotten"
    assert all(sphere["busy"] > 0 and sphere["memory"] > 1e6 and sphere["pid"] > 0 for sphere in last)
    assert seen[-2]["state"] == "training"
    assert seen[-2]["tokens_per_second"] > 0
    assert len(seen[-1]["spheres"]) == 2
    assert (status(run.root)["state"], status(run.root)["spheres"]) == ("done", [])


def test_the_loss_log_has_a_hash_of_its_own(new_run):
    whole, broken = new_run("whole"), new_run("broken")
    trained(whole)
    with pytest.raises(Interrupted):
        trained(broken, ordering(broken, 3, "stop"))
    trained(broken)
    assert log_hash(whole.root, 6) == log_hash(broken.root, 6)
    assert log_hash(whole.root, 5) != log_hash(whole.root, 6)
    other = new_run("other")
    trained(other, training__seed=1)
    assert log_hash(other.root, 6) != log_hash(whole.root, 6)
