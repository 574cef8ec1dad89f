"""Runs whose events are written by hand, so that every number that is shown can be worked out."""

import json
from contextlib import contextmanager

from crystalline.events import EventLog
from crystalline.run_folder import RunFolder, read_json, write_json

SHAPE = {
    "vocabulary": 400, "layers": 2, "width": 32, "heads": 2, "kv_heads": 2, "head_width": 16, "hidden": 80,
    "context": 32, "factors": 10,
}  # fmt: skip


class MadeUpRun:
    """A run folder in `root` to which a test adds events: `run.add("training.step", ...)`; the clock is `run.now`."""

    def __init__(self, root):
        self.folder = RunFolder.create(root, '[model]\nsize = "1M"\n')
        self.root, self.now = root, 1_700_000_000.0

    def add(self, kind, **fields):
        with EventLog(self.folder.events, clock=lambda: self.now) as log:
            log.write(kind, **fields)

    def add_raw(self, event):
        with open(self.folder.events, "a") as file:
            file.write(json.dumps(event) + "\n")

    def settle(self, steps=100, **settings):
        """Give it a recipe."""
        from crystalline.settings import load

        value = load(None, {}, {"training.steps": steps, "optimizer.learning_rate": 0.02, **settings}).model_dump()
        text = {"tokenizer": "f" * 64, "tokens": 1000, "bytes": 4000}
        write_json(self.folder.recipe, {"settings": value, "shape": SHAPE, "text": text, "machine": {"torch": "2"}})

    def steps(self, first, last, tokens=384, seconds=0.5, **fields):
        """Steps `first` to `last`, with a loss of 5 - step / 100."""
        for step in range(first, last + 1):
            self.now += seconds
            facts = {"loss": 5 - step / 100, "gradient_norm": 0.5, "rate": 0.25, "seconds": seconds, **fields}
            self.add("training.step", step=step, tokens=step * tokens, **facts)

    @contextmanager
    def at_work(self):
        """As if a process trained it."""
        with self.folder.lock():
            yield

    def recipe(self):
        return read_json(self.folder.recipe)
