"""Runs ready to be trained, made in a moment: text from a formula, and a network of some ten thousand weights."""

import random
from contextlib import contextmanager
from pathlib import Path

from crystalline import events
from crystalline.events import EventLog
from crystalline.model.transformer import Transformer
from crystalline.pipeline import preparation, runner
from crystalline.run_folder import RunFolder
from crystalline.training import position
from crystalline.training.loop import Trainer
from crystalline.training.parameters import WorkingCopy
from crystalline.training.recipe import Recipe, settle

# What every small run has, unless a test says otherwise.
SMALL = {
    "corpus.held_out": 0.25,
    "tokenizer.vocabulary_size": 300,
    "model.layers": 2,
    "model.width": 32,
    "model.heads": 2,
    "model.kv_heads": 1,
    "model.context": 16,
    "training.micro_batch": 1,
    "training.steps": 6,
    "training.device": "cpu",  # GPUs have tests of their own, in test_device.py
    "training.precision": "fp32",
    "training.workers": 0,  # what several do is tested in test_node_zero.py
    "training.evaluate_tokens": 256,
    "training.evaluate_every": 1000,
    "training.sample_every": 1000,
    "checkpointing.every_steps": 1000,
}


def made_up_text(words, vocabulary=40, seed=0):
    """Sentences of made-up words, each likely to follow from the one before.

    Only `random()` is used: Python promises its sequence for a seed, and no other method's.
    """
    source = random.Random(seed)

    def number(below):
        return int(source.random() * below)

    syllables = [c + v for c in "bdfgklmnprst" for v in "aeiou"]
    known = ["".join(syllables[number(60)] for _ in range(1 + number(3))) for _ in range(vocabulary)]
    follows = [[number(vocabulary) for _ in range(3)] for _ in range(vocabulary)]
    text, at = [], 0
    for place in range(words):
        at = follows[at][number(3)] if source.random() < 0.9 else number(vocabulary)
        text.append(known[at] + ("." if place % 9 == 8 else ""))
    return " ".join(text) + "\n"


def prepared_run(folder, texts=None, **settings):
    """A run folder with text, tokenizer and shards, and nothing trained. Settings are written section__key=value."""
    source = folder / "source"
    source.mkdir(parents=True)
    for number, text in enumerate(texts or [made_up_text(250, seed=seed) for seed in range(12)]):
        (source / f"{number:03}.txt").write_text(text, encoding="utf-8")
    overrides = {name.replace("__", "."): value for name, value in settings.items()}
    run = runner.new(folder / "run", [str(source)], **{**SMALL, **overrides})
    with EventLog(run.events) as log:
        preparation.prepare(run, preparation.settings_of(run), log)
    return run


def recipe_of(run, **changes) -> Recipe:
    """The run's recipe, settled by its settings and `changes` (section__key=value), without a probe."""
    overrides = {name.replace("__", "."): value for name, value in changes.items()}
    settings, text = preparation.settings_of(run, overrides), preparation.text_facts(run)
    size = "1M" if settings.model.size == "auto" else settings.model.size
    return settle(settings, size, text.vocabulary, text.factors, dict(text.identity), settings.training.steps)


def trainer(run, **changes) -> Trainer:
    """A trainer at the run's newest checkpoint."""
    made = Trainer(run, recipe_of(run, **changes))
    made.resume()
    return made


def train(run, on_step=lambda facts: None, **changes) -> Trainer:
    """Train to the end, from the newest checkpoint on."""
    made = trainer(run, **changes)
    with EventLog(run.events) as log:
        made.train(log, on_step, made.recipe.settings.training.workers)
    return made


def steps_of(run):
    """Step number -> the event of that step; each time a step was done it must have said the same."""
    found = {}
    for event in events.read(run.events, "training."):
        if event["kind"] == "training.rollback":
            found = {step: facts for step, facts in found.items() if step <= event["to"]}
        if event["kind"] != "training.step":
            continue
        facts = {k: event[k] for k in ("loss", "gradient_norm", "rate", "tokens")}
        assert found.setdefault(event["step"], facts) == facts, "done again, the step gave something else"
    return found


def checkpoint_names(run: RunFolder):
    """Everything that lies in the folder of checkpoints, under any name."""
    return sorted(path.name for path in run.checkpoints.iterdir()) if run.checkpoints.exists() else []


@contextmanager
def stopping_at(step):
    """`with stopping_at(4) as stop: train(run, stop)`: training dies after the event of this step."""

    class Killed(BaseException):
        pass

    def stop(facts):
        if facts["step"] == step:
            raise Killed

    try:
        yield stop
    except Killed:
        return
    raise AssertionError(f"training ended without doing step {step}")


class Poison:
    """Spoils one position of chosen batches: its loss, or its gradient; in workers too, which are forked later.

    batches: which, counted from 0; a batch is tried in one step only. place: which of the twelve.
    """

    def __init__(self, monkeypatch, batches, loss=None, gradient=None, place=7):
        self.active = False
        compute, real_loss, real_gradients = position.compute, Transformer.loss, WorkingCopy.gradients

        def spoiled(copy, text, batch, number, *rest):
            self.active = batch in batches and number == place
            try:
                return compute(copy, text, batch, number, *rest)
            finally:
                self.active = False

        def spoiled_loss(*arguments):
            value = real_loss(*arguments)
            return loss(value) if loss and self.active else value

        def spoiled_gradients(copy):
            *others, (offset, last) = real_gradients(copy)
            yield from others
            yield offset, gradient(last.clone()) if gradient and self.active else last

        monkeypatch.setattr(position, "compute", spoiled)
        monkeypatch.setattr(Transformer, "loss", spoiled_loss)
        monkeypatch.setattr(WorkingCopy, "gradients", spoiled_gradients)


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
