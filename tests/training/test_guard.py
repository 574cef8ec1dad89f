"""The guard: bad numbers and jumps change no bit, normal runs lose no step, and going back is repeatable."""

import math
import random
import shutil

import pytest
import torch
from small_runs import Poison, checkpoint_names, recipe_of, steps_of, train, trainer

from crystalline import events
from crystalline.errors import UserError
from crystalline.events import EventLog
from crystalline.model import checkpoints, store
from crystalline.pipeline.status import log_hash, status
from crystalline.run_folder import RunFolder, write_json
from crystalline.training.guard import CALM, DROPS_IN_A_ROW, ENOUGH, ROLLBACKS, WINDOW, Guard
from crystalline.training.loop import Trainer

# --- the rule by itself -------------------------------------------------------------------------------


def after(count, loss=3.0, norm=0.5, spread=0.01):
    """A guard that has seen so many steps with numbers around these."""
    guard, source = Guard(), random.Random(1)
    for _ in range(count):
        assert guard.judge(loss + source.uniform(-spread, spread), norm + source.uniform(-spread, spread)) is None
    return guard


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("which", ["loss", "gradient"])
def test_what_is_not_finite_is_dropped_at_any_time(bad, which):
    for count in (0, 5, 200):
        guard = after(count)
        before = list(guard.losses), list(guard.norms)
        drop = guard.judge(*((bad, 0.5) if which == "loss" else (3.0, bad)))
        assert which in drop.reason
        assert (guard.losses, guard.norms) == before, "a dropped step is no measure for others"
        assert (guard.drops, guard.in_a_row) == (1, 1)


def test_spikes_are_told_from_noise():
    guard = after(ENOUGH, loss=3.0, spread=0.5)
    sigma = math.sqrt(sum((x - sum(guard.losses) / ENOUGH) ** 2 for x in guard.losses) / ENOUGH)
    mean = sum(guard.losses) / ENOUGH
    assert sigma > 0.2
    assert Guard(**guard.to_json()).judge(mean + 9.9 * sigma, 0.5) is None
    drop = Guard(**guard.to_json()).judge(mean + 10.1 * sigma, 0.5)
    assert "10.1 sigma" in drop.reason
    assert drop.numbers == pytest.approx({"mean": mean, "sigma": sigma, "sigmas": 10.1})
    assert Guard(**guard.to_json()).judge(mean - 20 * sigma, 0.5) is None, "downwards is what we want"


def test_in_a_quiet_stretch_little_is_no_spike():
    guard = after(WINDOW, spread=1e-6)
    assert guard.judge(3.9, 0.5) is None
    assert guard.judge(4.2, 0.5) is not None
    guard = after(WINDOW, loss=1e-3, norm=1e-5, spread=1e-7)  # a text learned by heart
    assert guard.judge(0.5, 0.9) is None
    guard = after(WINDOW, norm=0.5)
    assert guard.judge(3.0, 5.0) is None
    assert "gradient norm" in guard.judge(3.0, 9.0).reason


def test_without_enough_history_nothing_is_a_spike():
    assert after(ENOUGH - 1).judge(1000.0, 100.0) is None
    assert after(ENOUGH).judge(1000.0, 100.0) is not None


def test_the_window_follows_the_run():
    guard = after(WINDOW, loss=9.0)
    for step in range(500):
        assert guard.judge(9.0 - 0.01 * step, 0.5) is None
    assert len(guard.losses) == len(guard.norms) == WINDOW
    assert max(guard.losses) < 9.0 - 0.01 * (500 - WINDOW) + 0.1


def test_rollbacks_are_forgiven_after_a_long_calm():
    guard = after(WINDOW)
    guard.rollbacks = ROLLBACKS - 1
    for number in range(CALM):
        assert guard.hopeless == (number < CALM - WINDOW)
        guard.judge(3.0, 0.5)
    assert guard.rollbacks == 0
    guard.rollbacks = 1
    guard.judge(math.nan, 0.5)
    guard.judge(3.0, 0.5)
    assert guard.rollbacks == 1


def test_its_state_goes_through_json_unchanged():
    guard = after(40)
    guard.judge(math.nan, 1.0)
    import json

    assert Guard(**json.loads(json.dumps(guard.to_json()))) == guard


# --- in a run: nothing changes ------------------------------------------------------------------------


def state_of(made: Trainer):
    """Everything that the next step depends on."""
    tensors = [made.parameters.values] + [t for o in made.optimizers for _, t in sorted(o.state.items())]
    return [t.clone() for t in tensors]


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def one_element(value):
    def spoil(g):
        g.view(-1)[3] = value
        return g

    return spoil


BAD = {
    "loss NaN": {"loss": lambda loss: loss + math.nan},  # the gradient is not touched by this
    "loss infinite": {"loss": lambda loss: loss + math.inf},
    "all NaN": {"loss": lambda loss: loss * math.nan},
    "one NaN": {"gradient": one_element(math.nan)},
    "one infinite": {"gradient": one_element(-math.inf)},
    "ten million-fold": {"loss": lambda loss: loss * 1e7},
    "ten million-fold, one matrix": {"gradient": lambda g: g * 1e7},
    "first position": {"gradient": one_element(math.nan), "place": 0},
    "last position": {"gradient": one_element(math.nan), "place": 11},
}
SPIKES = {
    "loss spike": {"loss": lambda loss: loss + 5000.0},  # of one position's 16 tokens; its gradient is as usual
    "gradient spike": {"gradient": lambda g: g + 1.0},  # the loss is as usual
}


def spoiled(run, monkeypatch, batches, workers=0, on_step=lambda facts, made: None, **changes):
    """Train with faults in these batches; the trainer."""
    fault = changes.pop("fault")
    made = trainer(run, **changes)
    if made.step == 0:
        made.parameters.values[made.parameters.matrices_from :] += 0.01  # else their first gradients are zero
    with monkeypatch.context() as patch, EventLog(run.events) as log:
        Poison(patch, batches, **fault)
        made.train(log, lambda facts: on_step(facts, made), workers)
    return made


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", BAD)
def test_a_bad_number_changes_nothing(new_run, monkeypatch, kind, workers):
    """Twice in a row, and training goes on: with the weights of before, and the text of after."""
    states, run = {}, new_run("run")
    look = lambda facts, made: states.update({facts["step"]: state_of(made)})  # noqa: E731
    made = spoiled(run, monkeypatch, (2, 3), workers, look, fault=BAD[kind], training__steps=6)
    assert equal(states[3], states[2])
    assert equal(states[4], states[2])
    assert not equal(states[5], states[4])
    facts = steps_of(run)
    assert [step for step in facts if facts[step]["gradient_norm"] is None] == [3, 4]
    assert all(math.isfinite(facts[step]["loss"]) for step in (1, 2, 5, 6))
    assert all(torch.isfinite(tensor).all() for tensor in states[6])
    assert (made.guard.drops, made.updates) == (2, 4)
    dropped = list(events.read(run.events, "training.dropped"))
    assert [event["step"] for event in dropped] == [3, 4]
    assert all(event["positions"] == [BAD[kind].get("place", 7)] for event in dropped)
    assert all("finite" in event["reason"] for event in dropped)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", SPIKES)
def test_a_spike_changes_nothing(new_run, monkeypatch, kind, workers, caplog):
    states, run, at = {}, new_run("run"), ENOUGH + 3
    look = lambda facts, made: states.update({facts["step"]: state_of(made)})  # noqa: E731
    spoiled(run, monkeypatch, (at,), workers, look, fault=SPIKES[kind], training__steps=at + 3)
    assert equal(states[at + 1], states[at])
    assert not equal(states[at + 2], states[at + 1])
    (event,) = events.read(run.events, "training.dropped")
    assert event["step"] == at + 1
    assert event["sigmas"] > 10
    assert event["mean"] < event["loss"] if "loss" in kind else event["mean"] < event["gradient_norm"]
    assert math.isfinite(event["loss"])
    assert math.isfinite(event["gradient_norm"])
    assert ("the loss" if "loss" in kind else "the gradient norm") in event["reason"]
    assert f"step {at + 1} dropped" in caplog.text
    assert status(run.root)["drops"] == 1


def test_a_spike_without_history_is_clipped(new_run, monkeypatch):
    """A gradient a thousand times too large is a usable number: the step is no longer than any other."""
    lengths, weights, run = [], [], new_run("run")
    plain = {"optimizer__momentum": 0.0, "optimizer__weight_decay": 0.0, "scheduler__name": "constant"}
    rates = {"optimizer__learning_rate": 0.1, "optimizer__embedding_learning_rate": 0.1, "scheduler__warmup": 0.0}

    def look(facts, made):
        weights.append(made.parameters.values.clone())
        lengths.append(float(torch.linalg.vector_norm(weights[-1] - weights[-2])) if len(weights) > 1 else 0.0)

    fault = {"loss": lambda loss: loss * 300}
    asked = {"training__steps": 4, "optimizer__name": "sgd", **plain, **rates}
    made = spoiled(run, monkeypatch, (2,), 0, look, fault=fault, **asked)
    norms = [facts["gradient_norm"] for facts in steps_of(run).values()]
    assert norms[2] > 20 * max(norms[1], norms[3])
    assert lengths[2] == pytest.approx(0.1, rel=1e-4), "rate times the largest norm"
    assert made.guard.drops == 0


def test_a_dropped_step_is_no_update(new_run, monkeypatch):
    """AdamW divides by 1 - beta^updates: its first update moves each weight by the rate, whenever it comes."""
    states, run = [], new_run("run")
    look = lambda facts, made: states.append(state_of(made)[0][: made.parameters.matrices_from])  # noqa: E731
    asked = {"training__steps": 3, "optimizer__name": "adamw", "optimizer__clip_norm": 0.0}
    made = spoiled(run, monkeypatch, (0,), 0, look, fault=BAD["one NaN"], **asked)
    rate = made.recipe.settings.optimizer.embedding_learning_rate * steps_of(run)[2]["rate"]
    assert float((states[1] - states[0]).abs().max()) == pytest.approx(rate, rel=1e-3)


# --- going back ---------------------------------------------------------------------------------------

ASKED = {"training__steps": 14, "checkpointing__every_steps": 4, "checkpointing__keep": 4, "optimizer__name": "adamw"}


def rollbacks_of(run):
    return [(e["step"], e["to"], e["skipped"]) for e in events.read(run.events, "training.rollback")]


def test_three_in_a_row_go_back_and_leave_the_text_out(new_run, monkeypatch):
    run, tried = new_run("run"), []
    original = Trainer.team

    def team(self, *arguments):
        made = original(self, *arguments)
        positions = made.positions
        made.positions = lambda batch, targets: tried.append(batch) or positions(batch, targets)
        return made

    monkeypatch.setattr(Trainer, "team", team)
    made = spoiled(run, monkeypatch, (5, 6, 7), fault=BAD["one NaN"], **ASKED)
    assert rollbacks_of(run) == [(8, 4, 4)], "batches 4 to 7 are left out"
    assert tried == list(range(18)), "no batch is tried twice"
    assert (made.step, made.guard.skipped, made.guard.drops, made.updates) == (14, 4, 3, 14)
    assert len(steps_of(run)) == 14
    assert all(facts["gradient_norm"] is not None for facts in steps_of(run).values())
    write_json(run.recipe, made.recipe.to_json())
    found = status(run.root)
    assert (found["state"], found["drops"], found["rollbacks"]) == ("done", 3, 1)


def test_what_it_goes_back_to_is_what_was_there(new_run, monkeypatch):
    """Weights, optimizer state, counts and window, all as when the checkpoint was made."""
    run, seen = new_run("run"), {}
    real = Trainer._go_back

    def go_back(self, stop, log):
        real(self, stop, log)
        seen["back"] = (state_of(self), self.step, self.updates, self.tokens_seen, list(self.guard.losses))

    def look(facts, made):
        if facts["step"] == 4 and "four" not in seen:
            seen["four"] = (state_of(made), made.step, made.updates, made.tokens_seen, list(made.guard.losses))

    monkeypatch.setattr(Trainer, "_go_back", go_back)
    spoiled(run, monkeypatch, (5, 6, 7), 0, look, fault=BAD["one NaN"], **ASKED)
    assert equal(seen["back"][0], seen["four"][0])
    assert seen["back"][1:] == seen["four"][1:]


def test_before_the_first_checkpoint_it_goes_back_to_the_beginning(new_run, monkeypatch):
    run = new_run("run")
    starts = []
    real = Trainer._go_back
    monkeypatch.setattr(Trainer, "_go_back", lambda self, *a: (real(self, *a), starts.append(state_of(self))))
    made = spoiled(run, monkeypatch, (1, 2, 3), 0, fault=BAD["one NaN"], **ASKED)
    assert rollbacks_of(run) == [(4, 0, 4)]
    assert equal(starts[0], state_of(Trainer(run, recipe_of(run, **ASKED))))
    assert made.step == 14


def test_a_checkpoint_in_the_middle_of_the_trouble_is_none_to_go_back_to(new_run, monkeypatch):
    run = new_run("run")
    spoiled(run, monkeypatch, (6, 7, 8), 0, fault=BAD["one NaN"], **ASKED)  # step 8 is saved while steps are dropped
    assert rollbacks_of(run) == [(9, 4, 5)]


def test_nor_are_those_that_were_made_by_an_order(new_run, monkeypatch):
    """When somebody asks for a checkpoint depends on the time; what training does must not."""
    from crystalline.training import commands

    run = new_run("run")

    def order(facts, made):
        if facts["step"] == 5:
            run.commands.mkdir(exist_ok=True)
            write_json(run.commands / "checkpoint.json", {})

    made = spoiled(run, monkeypatch, (5, 6, 7), 0, order, fault=BAD["one NaN"], **ASKED)
    assert [e["step"] for e in events.read(run.events, "training.checkpoint")][:2] == [4, 5]
    assert rollbacks_of(run) == [(8, 4, 4)]
    plain = new_run("plain")
    assert spoiled(plain, monkeypatch, (5, 6, 7), 0, fault=BAD["one NaN"], **ASKED).parameters.hash() == (
        made.parameters.hash()
    )
    assert commands.take(run) == []


def test_three_times_back_and_training_ends_with_advice(new_run, monkeypatch):
    run, before = new_run("run"), {}
    look = lambda facts, made: before.update(state=state_of(made), made=made)  # noqa: E731
    with pytest.raises(UserError, match="training stopped at step 7") as caught:
        spoiled(run, monkeypatch, range(5, 99), 0, look, fault=BAD["one NaN"], **ASKED)
    assert f"{DROPS_IN_A_ROW} steps in a row" in caught.value.why
    assert "learning_rate" in caught.value.fix
    assert len(rollbacks_of(run)) == ROLLBACKS - 1
    assert equal(state_of(before["made"]), before["state"]), "the last steps changed nothing"
    assert checkpoint_names(run)[-1] == "step-00000004"
    assert all(torch.isfinite(tensor).all() for tensor in store.read_weights(checkpoints.newest_whole(run)).values())
    with pytest.raises(UserError, match="training stopped"):  # the same command again says the same
        spoiled(run, monkeypatch, range(5, 99), 0, fault=BAD["one NaN"], **ASKED)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("workers", [0, 2])
def test_killed_at_every_step_of_the_trouble_it_ends_as_one_that_was_not(new_run, monkeypatch, workers):
    """Drops, a rollback, drops again, another rollback: the state of the guard is part of every checkpoint."""
    faulty = (5, 6, 7, 9, 12, 13, 14)
    asked = {**ASKED, "checkpointing__keep": 5}
    whole = new_run("whole")
    expected = spoiled(whole, monkeypatch, faulty, 0, fault=BAD["one NaN"], **asked)
    assert [to for _, to, _ in rollbacks_of(whole)] == [4, 8]
    run, done = new_run("run"), 0
    for _ in range(60):
        steps = 0

        def kill(facts, made):
            nonlocal steps
            steps += 1
            if steps == 3:
                run.commands.mkdir(exist_ok=True)
                write_json(run.commands / "checkpoint.json", {})  # or it would never get anywhere
            if steps == 4:
                raise Killed

        try:
            made = spoiled(run, monkeypatch, faulty, workers, kill, fault=BAD["one NaN"], **asked)
            break
        except Killed:
            done += 1
    else:
        raise AssertionError("it never ended")
    assert done > 3
    assert made.parameters.hash() == expected.parameters.hash()
    assert equal(state_of(made), state_of(expected))
    assert made.guard == expected.guard
    assert steps_of(run) == steps_of(whole)
    assert log_hash(run.root, 14) == log_hash(whole.root, 14)


def test_a_damaged_rollback_target_is_computed_again(new_run, monkeypatch):
    whole, run = new_run("whole"), new_run("run")
    expected = spoiled(whole, monkeypatch, (9, 10, 11), 0, fault=BAD["one NaN"], **ASKED)

    def harm(facts, made):
        if facts["step"] == 11 and made.guard.skipped == 0 and made.computed_again < 0:
            made.scribe.close()
            (run.checkpoints / "step-00000008" / "model.safetensors").write_bytes(b"")

    made = spoiled(run, monkeypatch, (9, 10, 11), 0, harm, fault=BAD["one NaN"], **ASKED)
    assert [(step, to) for step, to, _ in rollbacks_of(run)] == [(12, 4), (12, 8)]
    assert made.parameters.hash() == expected.parameters.hash()
    assert steps_of(run) == steps_of(whole)


def test_a_resumed_run_remembers_its_dropped_steps(new_run, monkeypatch):
    asked = {"training__steps": 8, "optimizer__name": "adamw", "checkpointing__every_steps": 4}
    whole, broken = new_run("whole"), new_run("broken")
    expected = spoiled(whole, monkeypatch, (1,), fault=BAD["one NaN"], **asked)

    def stop(facts, made):
        if facts["step"] == 6:
            raise Killed

    with pytest.raises(Killed):
        spoiled(broken, monkeypatch, (1,), 0, stop, fault=BAD["one NaN"], **asked)
    resumed = train(broken, **asked)
    assert resumed.parameters.hash() == expected.parameters.hash()
    assert (resumed.guard.drops, resumed.updates) == (1, 7)
    assert steps_of(broken) == steps_of(whole)


def test_the_cadence_of_rollbacks_is_part_of_the_recipe(new_run):
    """Otherwise a change of when to save would change to where a run goes back."""
    from crystalline.pipeline import preparation
    from crystalline.training.recipe import with_free_settings

    run = RunFolder(shutil.copytree(new_run("run").root, new_run("run2").root.parent / "copy"))
    recipe = recipe_of(run, checkpointing__every_steps=7)
    assert recipe.settings.checkpointing.rollback_every == 7
    later = with_free_settings(recipe, preparation.settings_of(run, {"checkpointing.every_steps": 2}))
    assert (later.settings.checkpointing.every_steps, later.settings.checkpointing.rollback_every) == (2, 7)
