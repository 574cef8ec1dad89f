"""Early stopping and the best checkpoint: the same in every run, however fast an evaluation was."""

import math
import os
import signal
import time

import pytest
from small_runs import Poison, checkpoint_names, recipe_of, steps_of, train, trainer

from crystalline import events
from crystalline.events import EventLog
from crystalline.model import checkpoints, store
from crystalline.model.scoring import Score
from crystalline.pipeline import runner
from crystalline.pipeline.status import status
from crystalline.run_folder import damage, write_json
from crystalline.training.evaluations import Evaluations
from crystalline.training.scribe import Scribe


def test_the_best_is_the_lowest_and_patience_counts_since():
    e = Evaluations()
    assert [e.result(step, bits) for step, bits in enumerate((3.0, 2.0, 2.0, 2.5, 1.9))] == [
        True, True, False, False, True,
    ]  # fmt: skip
    assert (e.best_step, e.best, e.stale) == (4, 1.9, 0)
    assert not e.result(5, math.nan)
    assert (e.exhausted(0), e.exhausted(1), e.exhausted(2)) == (False, True, False)


# --- in a run, with evaluations that say what the test wants ------------------------------------------


def saying(monkeypatch, values, delay=0.0):
    """Evaluations find these bits per byte: the first of step 2, the next of step 4, ..."""

    def evaluation(self):
        time.sleep(delay)
        return Score(values[self.job.step // 2 - 1] * math.log(2), 1, 1)

    monkeypatch.setattr(Scribe, "evaluation", evaluation)


ASKED = {"training__steps": 40, "training__evaluate_every": 2, "checkpointing__every_steps": 50}
VALUES = [5.0, 3.0, 4.0, 3.5, 3.2, *[9.0] * 15]  # the best at step 4


@pytest.fixture
def run(new_run):
    return new_run("run")


def best_of(run):
    link = run.checkpoints / checkpoints.BEST
    return link.readlink().name if link.is_symlink() else None


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("delay", [0.0, 0.2])
def test_it_ends_at_the_same_step_however_long_an_evaluation_takes(run, monkeypatch, workers, delay):
    """The third evaluation without a better one is that of step 10; it is acted on at step 12."""
    saying(monkeypatch, VALUES, delay)
    made = train(run, training__patience=3, training__workers=workers, **ASKED)
    assert (made.step, made.done, made.ended_early) == (12, True, True)
    (event,) = events.read(run.events, "training.ended_early")
    assert (event["step"], event["steps"], event["best_step"], event["patience"]) == (12, 40, 4, 3)
    assert checkpoints.newest_whole(run).name == "step-00000012"
    last = [e["kind"] for e in events.read(run.events, "training.") if e.get("step") == 12]
    assert last[-3:] == ["training.checkpoint", "training.evaluation", "training.sample"]
    assert best_of(run) == "step-00000004"
    assert "step-00000004" in checkpoint_names(run), "the best stays, however old it is"
    best = checkpoint_of(run, "best")
    assert best == checkpoint_of(run, "step-00000004") != checkpoint_of(run, "step-00000012")
    assert checkpoint_of(run, "step-00000012") == made.parameters.hash()


def checkpoint_of(run, name):
    return store.weights_hash(store.read_weights(checkpoints.find(run.checkpoints / name)))


def test_without_patience_it_goes_on(run, monkeypatch):
    saying(monkeypatch, VALUES)
    made = train(run, **{**ASKED, "training__steps": 14})
    assert (made.step, made.ended_early) == (14, False)
    assert best_of(run) is None


class Killed(BaseException):
    pass


@pytest.mark.parametrize("workers", [0, 2])
def test_killed_at_any_step_it_ends_where_it_would_have(new_run, monkeypatch, workers):
    """A result that was not there yet at the kill is found again on resuming."""
    saying(monkeypatch, VALUES, 0.02)
    asked = {**ASKED, "training__patience": 3}
    whole, run = new_run("whole"), new_run("run")
    expected = train(whole, **asked)
    for kill_at in (3, 4, 5, 8, 10, 11, 12):

        def kill(facts, at=kill_at):
            if facts["step"] == at:
                raise Killed

        with pytest.raises(Killed):
            train(run, kill, training__workers=workers, **asked)
    made = train(run, training__workers=workers, **asked)
    assert (made.step, made.evaluations) == (expected.step, expected.evaluations)
    assert made.parameters.hash() == expected.parameters.hash()
    assert steps_of(run) == steps_of(whole)
    assert best_of(run) == best_of(whole)


def test_a_lost_result_is_found_again(run, monkeypatch):
    """Killed between the checkpoint and its evaluation: the checkpoint says that it waits for it."""
    saying(monkeypatch, VALUES)
    asked = {**ASKED, "training__patience": 3}
    real = Scribe.begin

    def begin(self, job):
        real(self, job)
        if job.step == 4:
            while "checkpoint" in self.left:
                self.reports(0.1)
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Scribe, "begin", begin)
        with pytest.raises(Killed):
            train(run, **asked)
    assert trainer(run, **asked).evaluations.pending == 4
    made = train(run, **asked)
    assert made.step == 12
    assert [e["step"] for e in events.read(run.events, "training.evaluation")][:3] == [2, 4, 6]


def test_a_killed_evaluation_is_done_again_when_it_decides_something(run, monkeypatch, tmp_path):
    saying(monkeypatch, VALUES)
    real, flag = Scribe.evaluation, tmp_path / "died"

    def dying(self):
        if self.job.step == 6 and not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return real(self)

    monkeypatch.setattr(Scribe, "evaluation", dying)
    assert train(run, training__patience=3, **ASKED).step == 12
    assert flag.exists()


# --- the same command again, and more steps -----------------------------------------------------------


def ended(run, monkeypatch, **more):
    """A run by the runner that ends at step 12 of 40."""
    saying(monkeypatch, VALUES)
    recipe = recipe_of(run, training__patience=3, **ASKED)
    write_json(run.recipe, recipe.to_json() | {"asked": None, "steps_in_file": 6})
    train(run, training__patience=3, **ASKED)


AGAIN = {"training.steps": 40, "training.patience": 3, "training.evaluate_every": 2, "checkpointing.every_steps": 50}


def test_the_same_command_again_does_nothing(run, monkeypatch):
    ended(run, monkeypatch)
    before = run.events.read_bytes()
    made = runner.run(run.root, AGAIN)
    assert (made.step, made.done, made.ended_early) == (12, True, True)
    assert run.events.read_bytes() == before
    found = status(run.root)
    assert (found["state"], found["ended_early"], found["step"]) == ("done", True, 12)
    assert found["best"] == {"step": 4, "bits_per_byte": pytest.approx(3.0)}


@pytest.mark.parametrize(
    ("change", "end"),
    [
        ({"training.steps": 50}, 18),  # counted anew from step 12: 14, 16 and with 12 itself three, acted on at 18
        ({"training.patience": 0}, 40),
        ({"training.patience": 4}, 20),
        ({"training.steps": 14}, 14),
    ],
)
def test_who_asks_for_more_gets_more(run, monkeypatch, change, end):
    ended(run, monkeypatch)
    made = runner.run(run.root, AGAIN | change)
    assert made.step == end
    assert status(run.root)["state"] == "done"
    again = runner.run(run.root, AGAIN | change)
    assert (again.step, again.done) == (end, True)


# --- the best checkpoint ------------------------------------------------------------------------------


def test_the_best_one_stays_and_has_a_name(run, monkeypatch):
    saying(monkeypatch, VALUES)
    seen = []
    look = lambda facts: seen.append(best_of(run))  # noqa: E731
    made = train(run, look, checkpointing__keep_best=True, checkpointing__keep=2, **{**ASKED, "training__steps": 16})
    assert made.step == 16
    assert "step-00000002" in seen
    assert checkpoint_names(run) == ["best", "step-00000004", "step-00000014", "step-00000016"]
    assert best_of(run) == "step-00000004"
    assert checkpoints.find(run.checkpoints / "best").name == "step-00000004"
    assert [e["step"] for e in events.read(run.events, "training.best")] == [2, 4]


def test_every_nth_stays(run):
    train(run, training__steps=11, checkpointing__keep_every=4, checkpointing__every_steps=3, checkpointing__keep=2)
    assert checkpoint_names(run) == [checkpoints.checkpoint_name(step) for step in (4, 8, 9, 11)]


def test_going_back_forgets_what_was_found_since(new_run, monkeypatch):
    """The best of the steps that were given up is none any more; the one before is still there."""
    run, kept = new_run("run"), {"checkpointing__keep_best": True, "checkpointing__keep": 2}
    made = trainer(run, **{**ASKED, "training__steps": 12, "checkpointing__every_steps": 4}, **kept)
    found = {2: 3.0, 4: 2.0, 6: 1.0}  # the best at step 6, before training goes from step 9 back to step 4

    def evaluation(self):
        first_time = self.job.state["guard"]["rollbacks"] == 0
        return Score((found.get(self.job.step, 4.0) if first_time else 4.0) * math.log(2), 1, 1)

    with monkeypatch.context() as patch, EventLog(run.events) as log:
        patch.setattr(Scribe, "evaluation", evaluation)
        Poison(patch, (6, 7, 8), loss=lambda loss: loss * math.nan)
        made.train(log, workers=0)
    assert [(e["step"], e["to"]) for e in events.read(run.events, "training.rollback")] == [(9, 4)]
    assert [e["step"] for e in events.read(run.events, "training.best")] == [2, 4, 6]
    assert (made.evaluations.best_step, made.evaluations.best) == (2, pytest.approx(3.0))
    assert best_of(run) == "step-00000002"
    assert not damage(run.checkpoints / "step-00000002")
