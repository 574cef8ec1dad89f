"""Makes runs, trains them and measures them; what comes before training is in preparation.py."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from crystalline import __version__
from crystalline.corpus.crawl import engine
from crystalline.corpus.files import is_url
from crystalline.errors import EXIT_USAGE, UserError
from crystalline.evaluation.held_out import held_out_score
from crystalline.events import EventLog
from crystalline.export import importing
from crystalline.export.importing import Imported
from crystalline.model import checkpoints
from crystalline.model.packed import ABOUT
from crystalline.pipeline import tensorboard
from crystalline.pipeline.preparation import prepare, settings_of
from crystalline.run_folder import RunFolder, new_folder, read_json, reporting_os_errors, write_json, write_text
from crystalline.settings import Settings, load, to_toml
from crystalline.training import device, hardware, link
from crystalline.training.cluster import meeting
from crystalline.training.link import Ranks
from crystalline.training.loop import Trainer
from crystalline.training.plan import Plan, TextFacts, make_plan
from crystalline.training.recipe import (
    FIXED,
    Recipe,
    check_same,
    machine,
    start_identity,
    steps_for,
    with_free_settings,
)

log = logging.getLogger("crystalline")
STAGES_VERSION = 1  # raised when a stage's result changes for the same inputs


def new(root: str | Path, sources: list[str], **overrides: Any) -> RunFolder:
    """Make a run folder for the text in `sources`: files, folders, websites.

    overrides: "section.key" -> value, written to the folder's crystalline.toml.
    Raises UserError when a source does not exist or the folder is taken.
    """
    absolute = _absolute(root, sources)
    settings = load(None, {}, {"corpus.source": absolute, **overrides})
    run = RunFolder.create(root, to_toml(settings))
    with EventLog(run.events) as events:
        events.write("run.created", sources=absolute)
    return run


# A model that has learned is taught more gently: a tenth of the rates that weights are drawn for.
STARTED_RATES = {
    "muon": {"learning_rate": 0.002, "embedding_learning_rate": 0.0008},
    "adamw": {"learning_rate": 0.0004, "embedding_learning_rate": 0.0008},
    "sgd": {"learning_rate": 0.01, "embedding_learning_rate": 0.01},
}


def import_model(
    source: str | Path, root: str | Path, sources: list[str], context: int | None = None, **overrides: Any
) -> tuple[RunFolder, Imported]:
    """Make a run folder whose training starts from a model: a Hugging Face folder, a .cllm file, or another run.

    sources: its text, as for `new`; may be empty, and given to `run` later. context: tokens seen at once.
    overrides: "section.key" -> value, written to the folder's crystalline.toml.
    Raises UserError when the model cannot be used or the folder is taken; then there is no new run.
    """
    run = RunFolder(root)
    absolute = _absolute(root, sources)
    run.refuse_if_taken()
    with reporting_os_errors(f"make the run folder {run.root}"):
        run.root.mkdir(parents=True, exist_ok=True)
        try:
            with new_folder(run.start) as folder:
                made = importing.import_model(Path(source).expanduser(), folder, context)
            optimizer = overrides.get("optimizer.name", "muon")
            rates = {f"optimizer.{name}": value for name, value in STARTED_RATES.get(optimizer, {}).items()}
            settings = load(None, {}, {**made.settings, **rates, **overrides, "corpus.source": absolute})
        except BaseException:
            shutil.rmtree(run.start, ignore_errors=True)
            with contextlib.suppress(OSError):
                run.root.rmdir()
            raise
    run.write_first_files(to_toml(settings))
    with EventLog(run.events) as events:
        events.write("run.created", sources=absolute, start=start_identity(run))
    return run, made


def new_or_same(root: str | Path, sources: list[str], **overrides: Any) -> RunFolder:
    """The run in `root` when it has these sources, or a new one.

    Raises UserError as `new` does, for other sources, and when several processes would make it at once.
    """
    if not RunFolder(root).manifest.exists():
        if link.ranks() is not None:
            raise UserError(
                f"could not make the run {root}",
                "several processes are about to",
                f"make it before: cllm new {root} --from ...",
                EXIT_USAGE,
            )
        return new(root, sources, **overrides)
    run = RunFolder.open(root)
    has, wanted = settings_of(run).corpus.source, _absolute(root, sources)
    if not has and run.start.exists():  # imported without a text
        with run.lock(), reporting_os_errors(f"write to {run.root}"):
            write_text(run.settings, to_toml(load(run.settings, {}, {"corpus.source": wanted})))
        return run
    if sorted(has) != sorted(wanted):
        raise UserError(
            f"could not use {root} for {', '.join(wanted)}",
            f"it is the run of {', '.join(has)}",
            "leave out --from to go on with it, or name a new folder",
        )
    return run


def _absolute(root: str | Path, sources: list[str]) -> list[str]:
    """Sources as they stand in the settings."""
    paths = [Path(source).expanduser() for source in sources if not is_url(source)]
    missing = [str(path) for path in paths if not path.exists()]
    if missing:
        raise UserError(
            f"could not make the run {root}",
            f"there is no file or folder {', '.join(missing)}",
            "give the path of a folder or file with text after --from, or a website: https://...",
        )
    absolute = [str(path.resolve()) for path in paths]
    no_text = [ascii(name) for name in absolute if os.fsencode(name).decode("utf-8", "ignore") != name]
    if no_text:
        raise UserError(
            f"could not make the run {root}",
            f"{', '.join(no_text)} is no UTF-8 text, so it cannot stand in the settings",
            "rename it, or name a folder above it after --from",
        )
    return absolute + [engine.start_url(source) for source in sources if is_url(source)]


# --- training -------------------------------------------------------------------------------------------


def plan(root: str | Path, overrides: dict[str, Any] | None = None) -> Plan:
    """What the run will take. Reads the text if that was not done yet; trains nothing."""
    run = RunFolder.open(root)
    settings = settings_of(run, overrides)
    with run.lock(), EventLog(run.events) as events:
        return make_plan(settings, prepare(run, settings, events))


def run(
    root: str | Path,
    overrides: dict[str, Any] | None = None,
    on_plan: Callable[[Plan], None] = lambda _: None,
    on_step: Callable[[Trainer, dict[str, float]], None] = lambda *_: None,
    on_event: Callable[[dict[str, Any]], None] = lambda _: None,
) -> Trainer:
    """Do whatever is missing, from text to trained model; returns the finished trainer.

    on_plan is called before training starts for the first time, on_step after each step, on_event with everything
    that is written to the run's events. Under torchrun all ranks do this together, and everything is in the run
    folder of rank 0.
    """
    folder = RunFolder.open(root)
    settings = settings_of(folder, overrides)
    if settings.training.tensorboard:
        tensorboard.check()
    ranks = link.ranks()
    if ranks is not None:
        link.settle_in(ranks)
        if not ranks.leads:
            return _follow(folder, settings, ranks)
    with folder.lock(), EventLog(folder.events) as events, meeting(folder, ranks) as others:
        events.followers.append(on_event)
        text = prepare(folder, settings, events)
        recipe = _recipe(folder, settings, text, on_plan, events)
        trainer = Trainer(folder, recipe, ranks)
        trainer.resume()
        if others is not None:
            others.agree(recipe, trainer.step)
            others.ready()
        if not trainer.done:
            with _tensorboard(folder, settings, events):
                events.write("training.started", step=trainer.step, steps=recipe.steps, **_means(recipe, settings))
                log.info("training from step %d to %d", trainer.step, recipe.steps)
                trainer.train(events, lambda facts: on_step(trainer, facts), settings.training.workers)
                events.write("training.finished", step=trainer.step)
    return trainer


def _follow(folder: RunFolder, settings: Settings, ranks: Ranks) -> Trainer:
    """Help rank 0 to train. A rank with a run folder of its own prepares the text there, to the same bits."""
    with ExitStack() as held:
        others = held.enter_context(meeting(folder, ranks))
        assert others is not None
        if not others.one_folder:
            held.enter_context(folder.lock())
            prepare(folder, settings, held.enter_context(EventLog(folder.events)))
        recipe, step = others.agree()
        trainer = Trainer(folder, recipe, ranks)
        others.ready()
        if step < recipe.steps:
            trainer.follow(settings.training.workers)
    return trainer


def _means(recipe: Recipe, settings: Settings) -> dict[str, Any]:
    """What training starts with: this machine, how many workers, and what they could do at most.

    peak_flops: operations a second of one worker; flops_per_token: what the model needs for a token (for the share of
    the peak that is used).
    """
    t, gpus = settings.training, device.devices(recipe.device)
    usual = device.workers(recipe.device)
    workers = max(1, min(t.workers if isinstance(t.workers, int) else usual, t.positions))
    peak = hardware.matrix_peak(recipe.dtype, device=gpus[0] if gpus else None)
    return {
        "workers": workers,
        "peak_flops": peak * min(1.0, len(gpus) / workers) if gpus else peak,  # several may share a GPU
        "flops_per_token": recipe.shape.flops_per_token,
        "machine": {**machine(recipe.device), **hardware.describe()},
        "crystalline": __version__,
    }


@contextmanager
def _tensorboard(run: RunFolder, settings: Settings, events: EventLog) -> Iterator[None]:
    """Inside this block TensorBoard is told of every event, if that is wanted."""
    if not settings.training.tensorboard:
        yield
        return
    with closing(tensorboard.Follower(run)) as follower:
        events.followers.append(follower.take)
        yield


train = run  # `cllm train` is the same work with more flags; earlier stages are prerequisites


def _recipe(
    run: RunFolder, settings: Settings, text: TextFacts, on_plan: Callable[[Plan], None], events: EventLog
) -> Recipe:
    """The recipe that was settled when this run began, or a new one.

    Before the first checkpoint other settings simply make another recipe; after it they are an error.
    """
    sections: dict[str, Any] = dict.fromkeys(FIXED, True) | {"checkpointing": FIXED["checkpointing"]}
    asked = settings.model_dump(include=sections, exclude={"training": {"workers", "tensorboard"}})
    if run.recipe.exists():
        saved = read_json(run.recipe)
        newest = checkpoints.newest_whole(run)
        if newest is not None:
            recipe = Recipe.from_json(saved)
            check_same(recipe, settings)
            _warn_of_other_machine(saved["machine"], machine(recipe.device))
            recipe = with_free_settings(recipe, settings)
            return _with_length(run, recipe, settings, checkpoints.step_of(newest))
        if saved["asked"] == asked and saved["text"] == text.identity:
            return with_free_settings(Recipe.from_json(saved), settings)
    made = make_plan(settings, text)
    on_plan(made)
    events.write("training.planned", recipe=made.recipe.to_json(), seconds=made.seconds, memory=made.memory)
    with reporting_os_errors(f"write to {run.root}"):
        in_file = _steps_asked_for(load(run.settings, {}), made.recipe)
        write_json(run.recipe, made.recipe.to_json() | {"asked": asked, "steps_in_file": in_file})
    return made.recipe


def _warn_of_other_machine(before: dict[str, str], now: dict[str, str]) -> None:
    changes = [f"{name} was {before.get(name)}, is {now[name]}" for name in now if before.get(name) != now[name]]
    if changes:
        log.warning("the weights may differ in the last bits from an undisturbed run: %s", "; ".join(changes))


def _with_length(run: RunFolder, recipe: Recipe, settings: Settings, done: int) -> Recipe:
    """The recipe with the number of steps that is asked for now, if a new one is.

    done: steps that the newest checkpoint has. A length that the settings file had before is nothing new: it does not
    take back what a flag has asked for since.
    """
    steps, in_file = _steps_asked_for(settings, recipe), _steps_asked_for(load(run.settings, {}), recipe)
    saved = read_json(run.recipe)
    if steps in (None, recipe.steps) or (steps == in_file == saved.get("steps_in_file")):
        return recipe
    if steps < done:
        raise UserError(
            f"could not train {run.root} to step {steps}",
            f"it is at step {done} already",
            f"ask for {done} steps or more, or make a new run",
            EXIT_USAGE,
        )
    log.warning(
        "the length of this run changes from %d to %d steps; the learning rate follows the new length from here on",
        recipe.steps,
        steps,
    )
    changed = recipe.settings.model_copy(deep=True)
    changed.training.steps = steps
    recipe = Recipe(changed, recipe.shape, recipe.text)
    with reporting_os_errors(f"write to {run.root}"):
        write_json(run.recipe, saved | recipe.to_json() | {"steps_in_file": in_file})
    return recipe


def _steps_asked_for(settings: Settings, recipe: Recipe) -> int | None:
    return steps_for(settings.training, recipe.tokens_per_step, recipe.text["tokens"])


# --- measuring ------------------------------------------------------------------------------------------


def evaluate(root: str | Path, on: str | Path | None = None) -> dict[str, Any]:
    """Cross-entropy, perplexity and bits per byte of the run's newest model on all of its held-out text.

    on: the run whose held-out text is used instead, for any model: a run or checkpoint folder, or a .cllm file.
    """
    if on is not None:
        model = checkpoints.find(Path(root))
        result = held_out_score(RunFolder.open(on), model)
        if (model / ABOUT).exists():
            result["step"] = read_json(model / ABOUT).get("training", {}).get("steps", 0)
        return result
    if Path(root).is_file():
        raise UserError(
            f"could not measure {root}",
            "a .cllm file has no text to measure on",
            f"name a run that has: cllm eval {root} --on RUN",
            EXIT_USAGE,
        )
    folder = RunFolder.open(root)
    result = held_out_score(folder, checkpoints.find(folder.root))
    with reporting_os_errors(f"write to {folder.evaluation}"):
        folder.evaluation.mkdir(exist_ok=True)
        write_json(folder.evaluation / f"{result['checkpoint']}.json", result)
    return result
