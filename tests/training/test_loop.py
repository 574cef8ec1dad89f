"""The loop: the same bits however often it is interrupted, bad numbers kept out, saving before anything else."""

import math
import os
import signal

import pytest
import torch
from small_runs import checkpoint_names, made_up_text, prepared_run, steps_of, stopping_at, train, trainer

from crystalline import events
from crystalline.errors import Interrupted
from crystalline.events import EventLog
from crystalline.model import checkpoints, store
from crystalline.run_folder import RunFolder, damage
from crystalline.training import checkpoint
from crystalline.training.loop import Trainer
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


@pytest.mark.parametrize(
    "options",
    [
        {"objective__name": "prefix"},
        {"objective__name": "roots"},
        {"objective__name": "kernel"},
        {"model__phases": ["lattice", "clock"], "model__rotary": "golden"},
        {"model__value_embeddings": True, "model__ngram_rows": 500},
    ],
)
def test_with_every_idea_of_the_lattice_the_same(new_run, options):
    """Workers, stopping and going on change no bit, and the options do change what is trained."""
    expected = train(new_run("whole"), **options)
    broken = new_run("broken")
    with stopping_at(4) as stop:
        train(broken, stop, checkpointing__every_steps=3, **options)
    with EventLog(broken.events) as log:
        resumed = trainer(broken, checkpointing__every_steps=3, **options)
        assert resumed.step == 3
        resumed.train(log, workers=2)
    assert resumed.parameters.hash() == expected.parameters.hash() != train(new_run("plain")).parameters.hash()


def test_evaluations_count_the_cross_entropy_alone(new_run):
    """Before the first step all answers are as likely, to everybody; so a term beside the loss can be seen."""
    loss = {}
    for name in ("cross-entropy", "roots"):
        run = new_run(name)
        trained = train(run, training__steps=1, training__evaluate_every=1, objective__name=name)
        step = next(events.read(run.events, "training.step"))
        assert step["loss"] > math.log(trained.recipe.shape.vocabulary) - 0.01
        evaluation = next(events.read(run.events, "training.evaluation"))
        loss[name] = step["loss"], evaluation["cross_entropy"]
    assert loss["roots"][0] > loss["cross-entropy"][0] + 0.5, "0.25 times the surprise of the root"
    assert abs(loss["roots"][1] - loss["cross-entropy"][1]) < 0.1


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
    assert checkpoints.newest_whole(run).name == "step-00000006"
    again = train(run, training__steps=6)  # nothing left to do
    assert again.parameters.hash() == longer.parameters.hash()
    assert len(list(events.read(run.events, "training.step"))) == 6


# --- saving -------------------------------------------------------------------------------------------


def test_checkpoints_come_on_time_and_the_last_ones_stay(run):
    train(run, training__steps=11, checkpointing__every_steps=3, checkpointing__keep=2)
    at = lambda *steps: [f"step-{step:08d}" for step in steps]  # noqa: E731
    assert checkpoint_names(run) == at(9, 11), "and one at the end, whatever the cadence"
    saved = [event["step"] for event in events.read(run.events, "training.checkpoint")]
    assert saved == [3, 6, 9, 11]


def test_checkpoints_by_the_clock(run):
    train(run, training__steps=3, checkpointing__every_steps="auto", checkpointing__every_minutes=1e-9)
    assert checkpoint_names(run) == ["step-00000001", "step-00000002", "step-00000003"]


def test_two_good_checkpoints_stay_when_newer_ones_were_damaged(run, monkeypatch):
    """Damaged checkpoints of later steps must not count as kept ones and push out the good."""
    train(run, training__steps=12, checkpointing__every_steps=4)
    for name in ("step-00000008", "step-00000012"):
        (run.checkpoints / name / "state.json").write_text("{}")

    def look(real):
        def save(folder, *arguments, **options):
            saved = real(folder, *arguments, **options)
            whole = [f.name[-2:] for f in checkpoints.checkpoint_folders(run) if not damage(f)]
            (run.root / "seen").open("a").write(" ".join(whole) + "\n")
            return saved

        return save

    monkeypatch.setattr(checkpoint, "save", look(checkpoint.save))  # in the scribe's process
    train(run, training__steps=12, checkpointing__every_steps=1)
    good = (run.root / "seen").read_text().splitlines()
    assert good[:4] == ["05 04", "06 05 04", "07 06 05", "08 07 06"]


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


def test_training_of_a_run_that_is_there(tiny_run):
    """The folder that a finished `cllm run` left gives a trainer with nothing left to do."""
    run = RunFolder.open(tiny_run)
    made = trainer(run)
    assert made.step == made.recipe.steps
    saved = store.read_weights(checkpoints.newest_whole(run))
    assert made.parameters.hash() == store.weights_hash(saved)
