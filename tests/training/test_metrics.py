"""What is told of each sphere is measured, and adds up."""

import math
import os
import signal
import time

import pytest
from small_runs import recipe_of

from crystalline import events
from crystalline.events import EventLog
from crystalline.training import loop, metrics
from crystalline.training.loop import Trainer
from crystalline.training.metrics import PARTS, SphereRecord
from crystalline.training.position import PositionResult
from crystalline.training.worker import Answer

KEYS = {
    *("number", "pid", "state", "core", "places", "positions", "tokens", "loss", "steals", "busy", "update", "idle"),
    *("sync", "seconds", "summing", "reducing", "messages", "errors", "deaths", "hung", "memory"),
}


def steps(team, trainer, numbers):
    """Do these steps; the results of the last one."""
    for number in numbers:
        results = team.positions(number, trainer.batches.targets_in_step(number))
        team.reduce()
        team.update(1.0, 1.0, number + 1)
    return results


@pytest.fixture
def team(new_run):
    run = new_run("run")
    made = Trainer(run, recipe_of(run, training__micro_batch=16))
    team = made.team(2, lambda: False)
    team.trainer = made
    yield team
    team.close()


def test_counts_and_losses_are_those_of_the_steps(team):
    batches = team.trainer.batches
    results = steps(team, team.trainer, range(3))
    spheres = team.spheres()
    assert all(set(sphere) == KEYS for sphere in spheres)
    assert [sphere["number"] for sphere in spheres] == [0, 1]
    assert sum(sphere["positions"] for sphere in spheres) == 3 * 12
    assert sum(sphere["tokens"] for sphere in spheres) == sum(batches.targets_in_step(step) for step in range(3))
    assert sorted(place for sphere in spheres for place in sphere["places"]) == list(range(12))
    for sphere in spheres:
        if sphere["places"]:
            targets = sum(batches.targets_in_position(2, place) for place in sphere["places"])
            nats = math.fsum(results[place].loss for place in sphere["places"])
            assert sphere["loss"] == pytest.approx(nats / targets)
        orders = sphere["positions"] + 2 * 3  # reduce and update in each step
        assert sphere["messages"] == 1 + 2 * orders
        assert (sphere["errors"], sphere["deaths"], sphere["hung"], sphere["state"]) == (0, 0, 0, "waiting")
        assert sphere["memory"] > 1e6


def test_times_add_up_to_the_wall_time(team):
    """Within 5 %, with a pause, and with a process that was replaced."""
    steps(team, team.trainer, range(2))
    time.sleep(0.3)
    os.kill(team.team[0].process.pid, signal.SIGKILL)
    steps(team, team.trainer, range(2, 5))
    spheres = team.spheres()
    for sphere in spheres:
        parts = [sphere[name] for name in ("busy", "update", "idle", "sync")]
        assert all(part >= 0 for part in parts)
        assert sum(parts) == pytest.approx(sphere["seconds"], rel=0.05)
        assert sphere["idle"] > 0.29, "the pause"
        assert 0 < sphere["summing"] < sphere["busy"]
        assert 0 < sphere["reducing"] < sphere["update"]
    assert sorted(sphere["deaths"] for sphere in spheres) == sorted(sphere["errors"] for sphere in spheres) == [0, 1]


def test_who_waits_for_a_slow_one_is_synchronising(new_run, monkeypatch):
    from crystalline.training import crew, position

    original, starter = position.compute, crew.main

    def slow(model, batches, step, number, *arguments):
        time.sleep(0.3 if number == 11 else 0.0)
        return original(model, batches, step, number, *arguments)

    def main(*arguments):
        monkeypatch.setattr(position, "compute", slow)
        starter(*arguments)

    monkeypatch.setattr(crew, "main", main)
    run = new_run("run")
    trainer = Trainer(run, recipe_of(run))
    team = trainer.team(2, lambda: False)
    try:
        while not all(worker.ready for worker in team.team):
            steps(team, trainer, range(1))
        before = {sphere["number"]: sphere["sync"] for sphere in team.spheres()}
        steps(team, trainer, range(1, 2))
        told = team.spheres()
        for sphere in told:
            waited = sphere["sync"] - before[sphere["number"]]
            assert 11 in sphere["places"] or waited > 0.2
        everything = sum(sphere[name] for sphere in told for name in ("busy", "update", "idle", "sync"))
        assert team.shares()["sync"] == pytest.approx(sum(s["sync"] for s in told) / everything, rel=0.05)
    finally:
        team.close()


def test_shares_of_the_time(team):
    steps(team, team.trainer, range(3))
    first = team.shares()
    assert tuple(first) == PARTS
    assert sum(first.values()) == pytest.approx(1.0, abs=0.001)
    assert all(first[part] > 0 for part in ("compute", "sum", "reduce", "update"))
    time.sleep(1.0)
    assert team.shares()["idle"] > 0.99, "since the last call there was nothing to do"


def test_memory_is_looked_at_one_after_the_other(team, monkeypatch):
    looked = []
    monkeypatch.setattr(metrics, "proportional_memory", lambda pid: looked.append(pid) or 5_000_000 + len(looked))
    pids = [worker.process.pid for worker in team.team]
    assert [sphere["memory"] for sphere in team.spheres()] == [5_000_001, 5_000_002]
    assert [sphere["memory"] for sphere in team.spheres()] == [5_000_003, 5_000_002]
    assert [sphere["memory"] for sphere in team.spheres()] == [5_000_003, 5_000_004]
    assert looked == pids * 2
    monkeypatch.setattr(metrics, "proportional_memory", lambda pid: None)
    steps(team, team.trainer, range(1))
    assert team.spheres()[0]["memory"] > 1e7, "without it, the peak"


def test_they_are_in_the_events(new_run, monkeypatch):
    monkeypatch.setattr(loop, "SPHERES_EVERY", 0.0)
    run = new_run("run")
    trainer = Trainer(run, recipe_of(run))
    with EventLog(run.events) as log:
        trainer.train(log, workers=2)
    last = list(events.read(run.events, "training.spheres"))[-1]
    assert {frozenset(sphere) for sphere in last["spheres"]} == {frozenset(KEYS)}
    assert set(last["shares"]) == set(PARTS)


def test_what_is_undone_does_not_count():
    record = SphereRecord(3)
    record.begin(77)
    record.took("start", Answer("ready", 0.0, 0.5, 0.0, 9))
    for step in range(2):
        record.begin_step()
        for place in range(3):
            record.took("compute", Answer(None, 0.25, 1.0, 0.125, 10))
            record.computed(place, PositionResult(8.0, 1.0), 4, fair=2)
        assert record.loss == 2.0
        assert record.steals == step + 1
    record.undone()
    assert (record.positions, record.tokens, record.places) == (3, 12, [])
    record.ended("update", 0.25, 0.5, 20.0)
    assert (record.busy, record.update, record.waited, record.seconds) == (6.0, 0.5, 2.25, 20.0)
    assert record.times() == {
        **{"compute": 5.25, "sum": 0.75, "reduce": 0.0},
        **{"update": 0.5, "sync": 0.0, "idle": 2.25},
    }


def test_a_loss_that_is_no_number_is_none():
    record = SphereRecord(0)
    record.computed(0, PositionResult(math.nan, math.nan), 4, fair=1)
    assert record.loss is None
