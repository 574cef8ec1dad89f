"""The loop: the same bits however often it is interrupted, bad numbers kept out, saving before anything else."""

import math
import os
import signal

import pytest
import torch
from small_runs import checkpoint_names, made_up_text, prepared_run, steps_of, stopping_at, train, trainer

from crystalline import events
from crystalline.errors import Interrupted, UserError
from crystalline.events import EventLog
from crystalline.model import store
from crystalline.model.transformer import Transformer
from crystalline.run_folder import RunFolder, damage
from crystalline.training.loop import DROPS_IN_A_ROW, Trainer
from crystalline.training.parameters import WorkingCopy
from crystalline.training.schedule import rate_at


@pytest.fixture
def run(new_run):
    return new_run("run")


def state_of(made: Trainer):
    """Everything that the next step depends on."""
    tensors = [made.parameters.values] + [t for o in made.optimizers for _, t in sorted(o.state.items())]
    return [t.clone() for t in tensors]


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


# --- learning -----------------------------------------------------------------------------------------


def test_an_untrained_network_knows_nothing(run):
    made = train(run, training__steps=1)
    assert steps_of(run)[1]["loss"] == pytest.approx(math.log(made.recipe.shape.vocabulary), rel=0.02)


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_a_tiny_text_is_learned_by_heart(tmp_path, name):
    class Learned(Exception):
        pass

    def look(facts):
        if facts["loss"] < 0.05:
            raise Learned

    run = prepared_run(tmp_path, [made_up_text(150, seed=seed) for seed in (1, 2, 3)])
    with pytest.raises(Learned):
        train(run, look, optimizer__name=name, training__steps=300, model__context=64, model__width=64)
    assert steps_of(run)[1]["loss"] > 5


def test_each_step_is_written_as_it_was(run):
    made = train(run, training__steps=5)
    facts = steps_of(run)
    assert list(facts) == [1, 2, 3, 4, 5]
    assert [f["rate"] for f in facts.values()] == [rate_at(s, 5, made.recipe.settings.scheduler) for s in range(5)]
    targets = [made.batches.targets_in_step(step) for step in range(5)]
    assert [f["tokens"] for f in facts.values()] == [sum(targets[: n + 1]) for n in range(5)]
    assert made.tokens_seen == sum(targets)


# --- the same bits ------------------------------------------------------------------------------------


def test_the_seed_decides_everything(new_run):
    runs = [new_run(name) for name in ("a", "b", "c")]
    a, b, c = (
        train(run, training__seed=seed, training__steps=4).parameters.hash()
        for run, seed in zip(runs, (7, 7, 8), strict=True)
    )
    assert a == b != c
    assert steps_of(runs[0]) == steps_of(runs[1]) != steps_of(runs[2])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("optimizer", ["muon", "adamw", "sgd"])
def test_a_run_killed_thrice_ends_as_one_never_stopped(new_run, optimizer, precision):
    """Weights, optimizer state, losses, norms and learning rates: `steps_of` compares the steps done twice."""
    asked = {
        "optimizer__name": optimizer,
        "training__precision": precision,
        "training__steps": 10,
        "checkpointing__every_steps": 3,
        "training__accumulation": 2,
    }
    whole, broken = new_run("whole"), new_run("broken")
    expected = train(whole, **asked)
    for step in (5, 6, 8):  # dies two steps after a save, at the moment of one, and two steps after that
        with stopping_at(step) as stop:
            train(broken, stop, **asked)
    resumed = train(broken, **asked)
    assert resumed.parameters.hash() == expected.parameters.hash()
    assert equal(state_of(resumed), state_of(expected))
    assert steps_of(broken) == steps_of(whole)
    done = [event["step"] for event in events.read(broken.events, "training.step")]
    assert done == [1, 2, 3, 4, 5, 4, 5, 6, 4, 5, 6, 7, 8, 7, 8, 9, 10], "the stops were where they should be"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop_it_saves_and_goes_on_later(new_run, run, number):
    """The step under way when the signal came is left; the same command does it again."""

    def press(facts):
        if facts["step"] == 3:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match="step 3 is saved"):
        train(run, press)
    assert signal.getsignal(number) == before, "the handler is given back"
    assert checkpoint_names(run) == ["step-00000003"]
    whole = new_run("whole")
    assert train(run).parameters.hash() == train(whole).parameters.hash()
    assert steps_of(run) == steps_of(whole)


def test_a_finished_run_can_be_made_longer(run):
    finished = train(run, training__steps=4).parameters.hash()
    longer = train(run, training__steps=6)
    assert longer.step == 6
    assert longer.parameters.hash() != finished
    assert steps_of(run)[5]["rate"] == rate_at(4, 6, longer.recipe.settings.scheduler)
    assert store.newest_whole(run).name == "step-00000006"
    again = train(run, training__steps=6)  # nothing left to do
    assert again.parameters.hash() == longer.parameters.hash()
    assert len(list(events.read(run.events, "training.step"))) == 6


# --- saving -------------------------------------------------------------------------------------------


def test_checkpoints_come_on_time_and_the_last_ones_stay(run):
    seen = {}

    def look(facts):
        seen[facts["step"]] = checkpoint_names(run)

    train(run, look, training__steps=11, checkpointing__every_steps=3, checkpointing__keep=2)
    at = lambda *steps: [f"step-{step:08d}" for step in steps]  # noqa: E731
    assert [seen[step] for step in (3, 4, 7, 10)] == [at(), at(3), at(3, 6), at(6, 9)]
    assert checkpoint_names(run) == at(9, 11), "and one at the end, whatever the cadence"
    saved = [event["step"] for event in events.read(run.events, "training.checkpoint")]
    assert saved == [3, 6, 9, 11]


def test_checkpoints_by_the_clock(run):
    train(run, training__steps=3, checkpointing__every_steps="auto", checkpointing__every_minutes=1e-9)
    assert checkpoint_names(run) == ["step-00000001", "step-00000002", "step-00000003"]


def test_two_good_checkpoints_stay_when_newer_ones_were_damaged(run):
    """Damaged checkpoints of later steps must not count as kept ones and push out the good."""
    train(run, training__steps=12, checkpointing__every_steps=4)
    for name in ("step-00000008", "step-00000012"):
        (run.checkpoints / name / "state.json").write_text("{}")
    good = {}

    def look(facts):
        good[facts["step"]] = [f.name[-2:] for f in store.checkpoint_folders(run) if not damage(f)]

    train(run, look, training__steps=12, checkpointing__every_steps=1)
    assert [good[step] for step in (5, 6, 7, 8)] == [["04"], ["05", "04"], ["06", "05", "04"], ["07", "06", "05"]]


@pytest.mark.parametrize("later", ["evaluate", "sample"])
def test_saving_comes_first(run, monkeypatch, later):
    """Whatever goes wrong while measuring or showing, the work is on disk already."""

    def fail(*_):
        raise RuntimeError("no memory for this")

    monkeypatch.setattr(Trainer, later, fail)
    with pytest.raises(RuntimeError):
        train(
            run, training__steps=5, training__evaluate_every=2, training__sample_every=2, checkpointing__every_steps=2
        )
    assert checkpoint_names(run) == ["step-00000002"]


def test_measuring_and_showing_change_no_bit(new_run):
    quiet, busy = new_run("quiet"), new_run("busy")
    expected = train(quiet).parameters.hash()
    assert train(busy, training__evaluate_every=1, training__sample_every=1).parameters.hash() == expected
    assert steps_of(busy) == steps_of(quiet)
    measured = [event["step"] for event in events.read(busy.events, "training.evaluation")]
    shown = list(events.read(busy.events, "training.sample"))
    assert measured == [event["step"] for event in shown] == [1, 2, 3, 4, 5, 6]
    assert len({event["prompt"] for event in shown}) > 1, "samples begin with different held-out texts"


def test_a_chosen_prompt_begins_the_samples(run):
    train(run, training__steps=1, training__sample_prompt="bada so")
    assert [event["prompt"] for event in events.read(run.events, "training.sample")] == ["bada so"]


# --- bad numbers --------------------------------------------------------------------------------------


class Poison:
    """Spoils one position of chosen steps: its loss, or one element of one gradient.

    made: the trainer. steps: 0-based steps. position: which of the twelve.
    """

    def __init__(self, made, monkeypatch, steps, loss=None, gradient=None, position=7):
        self.calls, self.steps, self.position = 0, steps, position
        real_loss, real_gradients = Transformer.loss, WorkingCopy.gradients
        self.active = False

        def spoiled_loss(*arguments):
            step, number = divmod(self.calls, 12)
            self.calls += 1
            self.active = step in self.steps and number == self.position
            real = real_loss(*arguments)
            return loss(real) if loss and self.active else real

        def spoiled_gradients(copy):
            *others, (offset, last) = real_gradients(copy)
            yield from others
            yield offset, gradient(last.clone()) if gradient and self.active else last

        monkeypatch.setattr(Transformer, "loss", spoiled_loss)
        monkeypatch.setattr(WorkingCopy, "gradients", spoiled_gradients)


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
    "first position": {"gradient": one_element(math.nan), "position": 0},
    "last position": {"gradient": one_element(math.nan), "position": 11},
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_number_changes_nothing(run, monkeypatch, kind):
    """Twice in a row, and training goes on: with the weights of before, and the text of after."""
    states = {}
    made = trainer(run, training__steps=6)
    made.parameters.values[made.parameters.matrices_from :] += 0.01  # else their first gradients are zero
    Poison(made, monkeypatch, (2, 3), **BAD[kind])
    with EventLog(run.events) as log:
        made.train(log, lambda facts: states.update({facts["step"]: state_of(made)}), workers=0)
    assert equal(states[3], states[2])
    assert equal(states[4], states[2])
    assert not equal(states[5], states[4])
    facts = steps_of(run)
    assert [step for step in facts if facts[step]["gradient_norm"] is None] == [3, 4]
    assert all(math.isfinite(facts[step]["loss"]) for step in (1, 2, 5, 6))
    assert all(torch.isfinite(tensor).all() for tensor in states[6])
    assert made.drops == 2


def test_a_dropped_step_is_no_update(run, monkeypatch):
    """AdamW divides by 1 - beta^updates: its first update moves each weight by the rate, whenever it comes."""
    states = []
    made = trainer(run, training__steps=3, optimizer__name="adamw", optimizer__clip_norm=0.0)
    Poison(made, monkeypatch, (0,), **BAD["one NaN"])
    with EventLog(run.events) as log:
        made.train(log, lambda facts: states.append(state_of(made)[0][: made.parameters.matrices_from]), workers=0)
    rate = made.recipe.settings.optimizer.embedding_learning_rate * steps_of(run)[2]["rate"]
    assert float((states[1] - states[0]).abs().max()) == pytest.approx(rate, rel=1e-3)


def test_a_resumed_run_remembers_its_dropped_steps(new_run, monkeypatch):
    asked = {"training__steps": 8, "optimizer__name": "adamw", "checkpointing__every_steps": 4}
    runs = [new_run(name) for name in ("whole", "broken")]
    for run, end in zip(runs, (9, 6), strict=True):
        made = trainer(run, **asked)
        Poison(made, monkeypatch, (1,), **BAD["one NaN"])

        def stop(facts, end=end):
            if facts["step"] == end:
                raise KeyboardInterrupt

        with EventLog(run.events) as log:
            try:
                made.train(log, stop, workers=0)
            except KeyboardInterrupt:
                assert run is runs[1]
    resumed = train(runs[1], **asked)
    expected = store.weights_hash(store.read_weights(runs[0].checkpoints / "step-00000008"))
    assert resumed.parameters.hash() == expected
    assert resumed.drops == 1
    assert steps_of(runs[1]) == steps_of(runs[0])


def test_three_in_a_row_end_training(run, monkeypatch):
    made = trainer(run, training__steps=9, checkpointing__every_steps=2)
    Poison(made, monkeypatch, (1, 2, 4, 5, 6), **BAD["one NaN"])
    before = None

    def look(facts):
        nonlocal before
        before = state_of(made)

    with EventLog(run.events) as log, pytest.raises(UserError, match="step 7") as caught:
        made.train(log, look, workers=0)
    assert f"{DROPS_IN_A_ROW} steps in a row" in caught.value.why
    assert "learning_rate" in caught.value.fix
    assert equal(state_of(made), before)
    assert checkpoint_names(run)[-1] == "step-00000006"


def test_a_spike_is_clipped(run, monkeypatch):
    """A gradient a thousand times too large is a usable number: the step is no longer than any other."""
    lengths, weights = [], []
    plain = {"optimizer__momentum": 0.0, "optimizer__weight_decay": 0.0, "scheduler__name": "constant"}
    rates = {"optimizer__learning_rate": 0.1, "optimizer__embedding_learning_rate": 0.1, "scheduler__warmup": 0.0}
    made = trainer(run, training__steps=4, optimizer__name="sgd", **plain, **rates)
    made.parameters.values[made.parameters.matrices_from :] += 0.01
    Poison(made, monkeypatch, (2,), loss=lambda loss: loss * 300)

    def look(facts):
        weights.append(made.parameters.values.clone())
        lengths.append(float(torch.linalg.vector_norm(weights[-1] - weights[-2])) if len(weights) > 1 else 0.0)

    with EventLog(run.events) as log:
        made.train(log, look, workers=0)
    norms = [facts["gradient_norm"] for facts in steps_of(run).values()]
    assert norms[2] > 20 * max(norms[1], norms[3])
    assert lengths[2] == pytest.approx(0.1, rel=1e-4), "rate times the largest norm"
    assert made.drops == 0


def test_training_of_a_run_that_is_there(tiny_run):
    """The folder that a finished `cllm run` left gives a trainer with nothing left to do."""
    run = RunFolder.open(tiny_run)
    made = trainer(run)
    assert made.step == made.recipe.steps
    saved = store.read_weights(store.newest_whole(run))
    assert made.parameters.hash() == store.weights_hash(saved)
