"""The models that are served: each the newest whole checkpoint of its run, also while the run goes on."""

from __future__ import annotations

import gc
import hashlib
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from crystalline.errors import EXIT_USAGE, UserError
from crystalline.model import checkpoints
from crystalline.model.generation import load
from crystalline.run_folder import SEAL, RunFolder, sha256_file
from crystalline.serving.engine import Engine, Job
from crystalline.serving.metrics import Metrics
from crystalline.settings import Serving

log = logging.getLogger("crystalline.serving")


@dataclass(frozen=True)
class Loaded:
    """A checkpoint in service.

    mark: changes when anything happens to the folder. fingerprint: what answers tell of the model: another model,
    another fingerprint. created: seconds since 1970. longest_token: bytes of it.
    """

    engine: Engine
    folder: Path
    mark: str
    fingerprint: str
    created: int
    longest_token: int

    @property
    def context(self) -> int:
        """Tokens that the model looks at."""
        return self.engine.model.model.shape.context

    @property
    def step(self) -> int:
        """Training steps done."""
        return checkpoints.step_of(self.folder) if self.folder.name.startswith("step-") else 0


class ServedModel:
    """One model: a run folder, whose newest checkpoint is served, or a checkpoint folder, or a link to one.

    precision: see `crystalline.model.generation.load`.
    """

    def __init__(self, path: Path, settings: Serving, metrics: Metrics, precision: str | None = None) -> None:
        self.path, self.name = path, name_of(path)
        self._settings, self._meter, self._precision = settings, metrics.model(self.name), precision
        self._passed_over: set[str] = set()
        self._current: Loaded | None = None
        self._old: list[Engine] = []  # with texts that are not done
        self._swap = threading.Lock()
        self._meter.show(
            lambda: settings.slots, lambda: self.running, lambda: self.waiting,
            lambda: self._current.step if self._current else 0,
        )  # fmt: skip

    @property
    def current(self) -> Loaded | None:
        """What new texts are written with; None while it is being loaded."""
        return self._current

    @property
    def running(self) -> int:
        """Texts that are being written."""
        return sum(engine.running for engine in self._engines())

    @property
    def waiting(self) -> int:
        """Texts that wait for a slot."""
        return sum(engine.waiting for engine in self._engines())

    def _engines(self) -> list[Engine]:
        return [*self._old, *([self._current.engine] if self._current else [])]

    def load(self) -> None:
        """For the first time. Raises UserError when there is nothing to load."""
        self._put_in_service(checkpoints.find(self.path))

    def submit(self, make: Callable[[Loaded], Sequence[Job]]) -> Loaded:
        """Give the jobs that `make` makes for the current model to it. Raises engine.Full."""
        with self._swap:
            assert self._current is not None, "there is a model before there are requests"
            self._current.engine.submit(make(self._current))
            return self._current

    def look(self) -> bool:
        """Take a newer checkpoint, if there is one, into service. What cannot be used is told of and passed over."""
        self._forget_old()
        for folder in self._candidates():
            mark = _mark(folder)
            if self._current and mark == self._current.mark:
                return False
            if mark in self._passed_over:
                continue
            try:
                self._put_in_service(folder)
            except Exception as error:  # whatever is wrong with it, the one in service goes on
                self._passed_over.add(mark)
                if folder.exists():  # else it was only removed meanwhile
                    self._meter.passed_over.inc()
                    reason = error.why if isinstance(error, UserError) else error
                    log.warning("%s: checkpoint %s cannot be used (%s)", self.name, folder.name, reason)
                continue
            self._meter.reloads.inc()
            log.info("%s: now serving checkpoint %s", self.name, folder.name)
            return True
        return False

    def _candidates(self) -> list[Path]:
        if (self.path / checkpoints.WEIGHTS).exists():
            return [self.path.resolve()]
        return checkpoints.checkpoint_folders(RunFolder(self.path))

    def _put_in_service(self, folder: Path) -> None:
        mark = _mark(folder)
        model = load(folder, self._precision)
        engine = Engine(model, self._settings.slots, self._settings.queue, self._meter)
        fingerprint = f"{folder.name}-{sha256_file(folder / SEAL)[:8]}"
        created = int((folder / checkpoints.RECIPE).stat().st_mtime)
        t = model.tokenizer
        longest = max(len(t.token_bytes(token)) for token in range(t.vocabulary_size))
        loaded = Loaded(engine, folder, mark, fingerprint, created, longest)
        with self._swap:
            before, self._current = self._current, loaded
            if before:
                self._old.append(before.engine)
                before.engine.retire()

    def _forget_old(self) -> None:
        """Engines whose last text is done, with their weights."""
        ended = [engine for engine in self._old if engine.join(0)]
        if ended:
            self._old = [engine for engine in self._old if engine not in ended]
            ended.clear()
            gc.collect()  # a network is full of references in circles

    def close(self) -> None:
        """Stop all work."""
        for engine in self._engines():
            engine.close()


class Models:
    """All models of a server, by name. Raises UserError when two have the same name."""

    def __init__(
        self, paths: Sequence[Path], settings: Serving, metrics: Metrics, precision: str | None = None
    ) -> None:
        self._settings = settings
        self.all: dict[str, ServedModel] = {}
        self.leaving = False  # the server takes no new requests
        self._ended = threading.Event()
        for path in paths:
            model = ServedModel(path, settings, metrics, precision)
            if model.name in self.all:
                raise UserError(
                    f"could not serve {path}",
                    f"there is another model called '{model.name}'",
                    "rename one of the folders: a model's name is that of its run folder",
                    EXIT_USAGE,
                )
            self.all[model.name] = model

    @property
    def ready(self) -> bool:
        """Whether all of them can answer."""
        return not self.leaving and all(model.current for model in self.all.values())

    def load(self) -> None:
        """Load all, then look for newer checkpoints now and then. Raises UserError."""
        for model in self.all.values():
            model.load()
        if self._settings.reload_seconds:
            threading.Thread(target=self._watch, name="watch", daemon=True).start()

    def _watch(self) -> None:
        while not self._ended.wait(self._settings.reload_seconds):
            for model in self.all.values():
                try:
                    model.look()
                except Exception:  # a folder that cannot be read now may be readable later
                    log.exception("could not look for a newer checkpoint of %s", model.name)

    def close(self) -> None:
        """Stop all work."""
        self._ended.set()
        for model in self.all.values():
            model.close()


def name_of(path: Path) -> str:
    """What a model is called: my-model for a run folder, my-model:step-00000400 for one of its checkpoints."""
    path = path.absolute()
    if path.parent.name == "checkpoints":
        return f"{path.parent.parent.name}:{path.name}"
    return path.name


def _mark(folder: Path) -> str:
    """Changes when another checkpoint takes this name, and when a damaged one is restored."""
    found = [folder.name]
    for name in (SEAL, checkpoints.WEIGHTS):
        try:
            status = (folder / name).stat()
            found.append(f"{status.st_ino} {status.st_mtime_ns} {status.st_size}")
        except OSError:
            found.append("missing")
    return hashlib.sha256(" ".join(found).encode()).hexdigest()
