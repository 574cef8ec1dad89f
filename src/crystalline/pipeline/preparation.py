"""From the sources of a run to what training reads, by stages, and only those that are missing: crawl, corpus,
tokenizer, shards, codes.

Each stage after the crawl has a key made from everything its result depends on. The keys of finished stages stand in
`stages.json`; a stage whose key is there and whose folder is whole is skipped. Once training has begun the text is
fixed: new text needs a new run.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from crystalline.corpus import shards
from crystalline.corpus.crawl import engine
from crystalline.corpus.files import is_url
from crystalline.corpus.stage import build as build_corpus
from crystalline.corpus.stage import fingerprint, iterate
from crystalline.errors import EXIT_DAMAGED, Interrupted, UserError
from crystalline.events import EventLog
from crystalline.model import checkpoints
from crystalline.run_folder import RunFolder, damage, new_folder, read_json, reporting_os_errors, seal, write_json
from crystalline.settings import Settings, load
from crystalline.tokens.codes import FILE as CODES_FILE
from crystalline.tokens.codes import TokenCodes
from crystalline.tokens.stream import TokenStream
from crystalline.tokens.tokenizer import CONFIG_FILE as TOKENIZER_CONFIG_FILE
from crystalline.tokens.tokenizer import FILE as TOKENIZER_FILE
from crystalline.tokens.tokenizer import Tokenizer, choose_vocabulary_size
from crystalline.training.interrupt import StopRequest
from crystalline.training.plan import TextFacts
from crystalline.training.recipe import start_identity

log = logging.getLogger("crystalline")
STAGES_VERSION = 1  # raised when a stage's result changes for the same inputs
CRAWL_SPOKEN_EVERY = 15.0  # seconds


def settings_of(run: RunFolder, overrides: dict[str, Any] | None = None) -> Settings:
    """The run's settings: its file, the environment, and the flags of this command over both."""
    return load(run.settings, overrides=overrides)


def prepare(run: RunFolder, settings: Settings, events: EventLog) -> TextFacts:
    """Do what is missing before training can start. The caller holds the run's lock."""
    newest = checkpoints.newest_whole(run)
    if newest is not None:
        _warn_of_new_text(run, settings)
        _mend(run, newest)
        return text_facts(run)
    _crawl(run, settings, events)
    stage = _stages(run, events)
    key = _clean(run, settings, stage)
    if run.start.exists():
        # The vocabulary and its codes belong to the weights.
        key = stage("tokenizer", run.tokenizer, [key, start_identity(run)], lambda: _start_tokenizer(run))
        stage("shards", run.shards, key, lambda: _shards(run))
        return text_facts(run)
    wanted = settings.tokenizer.model_dump()
    key = stage("tokenizer", run.tokenizer, [key, wanted], lambda: _tokenizer(run, settings))
    key = stage("shards", run.shards, key, lambda: _shards(run))
    stage("codes", run.tokenizer / CODES_FILE, key, lambda: _codes(run))
    return text_facts(run)


def clean(root: str | Path, overrides: dict[str, Any] | None = None) -> dict[str, Any]:
    """Read and clean the text of a run, if that was not done yet; returns the report of its corpus."""
    run = RunFolder.open(root)
    settings = settings_of(run, overrides)
    with run.lock(), EventLog(run.events) as events:
        if checkpoints.newest_whole(run) is not None:
            _warn_of_new_text(run, settings)
        else:
            _crawl(run, settings, events)
            _clean(run, settings, _stages(run, events))
    report: dict[str, Any] = read_json(run.corpus / "report.json")
    return report


def preview(sources: list[str], folder: Path, overrides: dict[str, Any] | None = None) -> dict[str, Any]:
    """Clean files and folders as a run would, into `folder`/corpus; returns the report. No amount is too small."""
    settings = load(None, overrides={"corpus.source": sources, **(overrides or {})})
    return build_corpus(settings, RunFolder(folder), lambda text: log.debug("corpus: %s", text), preview=True)


# (name of a stage, its result, what it depends on, its work) -> its key; work that is done already is skipped
_Stage = Callable[[str, Path, object, Callable[[], dict[str, Any]]], str]


def _crawl(run: RunFolder, settings: Settings, events: EventLog) -> None:
    """Fetch the websites among the sources, or what is missing of them.

    Raises Interrupted after Ctrl-C, with all pages saved; UserError when there is not one page.
    """
    starts = [engine.start_url(source) for source in settings.corpus.source if is_url(source)]
    if not starts:
        return
    spoken = time.monotonic()

    def watch(facts: dict[str, Any]) -> None:
        nonlocal spoken
        if time.monotonic() - spoken >= CRAWL_SPOKEN_EVERY:
            spoken = time.monotonic()
            log.info("crawl: %s pages, %s URLs waiting", f"{facts['pages']:,}", f"{facts['waiting']:,}")

    events.write("stage.started", stage="crawl")
    with StopRequest() as stop:
        facts = engine.crawl(run.crawl, starts, settings.crawl, watch=watch, stopped=lambda: stop.asked)
    events.write("stage.finished", stage="crawl", **facts)
    told = f"{facts['pages']:,} pages, {facts['bytes'] / 1e6:,.2f} MB"
    if facts["ended"] == "stopped":
        raise Interrupted(f"{told} are saved; the same command goes on with the crawl")
    reasons = ", ".join(f"{n:,} {reason}" for reason, n in {**facts["failed"], **facts["skipped"]}.items())
    if facts["ended"] == "put off":
        raise UserError(
            f"could not finish the crawl of {', '.join(starts)} now",
            f"hosts asked to wait for {facts['wait']} seconds, or do not answer; {told} are saved",
            "give the same command again then, or set a smaller crawl.max_pages to go on with what is there",
        )
    if not facts["pages"]:
        raise UserError(
            f"could not get text from {', '.join(starts)}",
            f"no page could be fetched ({reasons or 'there was none'})",
            "check the URL and the settings under [crawl], then: cllm crawl --retry --into " + str(run.root),
        )
    log.info("crawl: %s%s", told, f" ({reasons})" if reasons else "")


def _clean(run: RunFolder, settings: Settings, stage: _Stage) -> str:
    return stage("corpus", run.corpus, fingerprint(settings, run), lambda: _corpus(run, settings))


def _stages(run: RunFolder, events: EventLog) -> _Stage:
    done: dict[str, str] = read_json(run.root / "stages.json") if (run.root / "stages.json").exists() else {}

    def stage(name: str, result: Path, inputs: object, work: Callable[[], dict[str, Any]]) -> str:
        key = hashlib.sha256(json.dumps([STAGES_VERSION, name, inputs]).encode()).hexdigest()
        folder = result if result.is_dir() else result.parent
        if done.get(name) == key and result.exists() and not damage(folder):
            log.debug("%s: nothing to do", name)
            return key
        events.write("stage.started", stage=name)
        facts = work()
        done[name] = key
        with reporting_os_errors(f"write to {run.root}"):
            write_json(run.root / "stages.json", done)
        events.write("stage.finished", stage=name, **facts)
        return key

    return stage


def _corpus(run: RunFolder, settings: Settings) -> dict[str, Any]:
    report = build_corpus(settings, run, lambda text: log.debug("corpus: %s", text))
    log.info("text: %s", _summary(report))
    return {"report": report}


def _summary(report: dict[str, Any]) -> str:
    files, documents, size = report["files"], report["documents"], report["bytes"]
    parts = [f"{size['kept'] / 1e6:,.2f} MB in {documents['kept']:,} documents from {files['read']:,} files"]
    removed = documents["removed"]
    skipped = {reason: found["count"] for reason, found in files["skipped"].items()}
    parts += [f"{count:,} documents removed ({reason})" for reason, count in removed.items()]
    parts += [f"{count:,} files skipped ({reason})" for reason, count in skipped.items()]
    return ", ".join(parts)


def _tokenizer(run: RunFolder, settings: Settings) -> dict[str, Any]:
    wanted = settings.tokenizer.vocabulary_size
    size = wanted or choose_vocabulary_size(read_json(run.corpus / "report.json")["bytes"]["train"])
    texts = (document.text for document in iterate(run, "train"))
    tokenizer = Tokenizer.train(texts, size, settings.tokenizer.min_frequency)
    with reporting_os_errors(f"write the tokenizer in {run.tokenizer}"), new_folder(run.tokenizer) as folder:
        tokenizer.save(folder)
    if tokenizer.vocabulary_size < (wanted or 0):
        log.warning(
            "the text supports a vocabulary of %s tokens, not the %s asked for",
            tokenizer.vocabulary_size,
            wanted,
        )
    return {"vocabulary": tokenizer.vocabulary_size, "asked": size}


def _start_tokenizer(run: RunFolder) -> dict[str, Any]:
    """The vocabulary and codes of the model that training starts from."""
    if reason := damage(run.start):
        raise UserError(
            f"could not use the model in {run.start}", reason,
            "restore it from a backup, or import the model into a new run", EXIT_DAMAGED,
        )  # fmt: skip
    _copy_vocabulary(run, run.start)
    return {"vocabulary": Tokenizer.load(run.tokenizer).vocabulary_size}


def _copy_vocabulary(run: RunFolder, model: Path) -> None:
    with reporting_os_errors(f"write the tokenizer in {run.tokenizer}"), new_folder(run.tokenizer) as folder:
        for name in (TOKENIZER_FILE, TOKENIZER_CONFIG_FILE, CODES_FILE):
            if (model / name).exists():
                shutil.copy(model / name, folder / name)


def _shards(run: RunFolder) -> dict[str, Any]:
    index = shards.build(run, Tokenizer.load(run.tokenizer), lambda text: log.debug("shards: %s", text))
    return {name: {k: split[k] for k in ("tokens", "bytes")} for name, split in index["splits"].items()}


def _codes(run: RunFolder) -> dict[str, Any]:
    counts = np.load(run.shards / "counts.npy")
    codes = TokenCodes.build(Tokenizer.load(run.tokenizer), counts.tolist())
    with reporting_os_errors(f"write the token codes in {run.tokenizer}"):
        codes.save(run.tokenizer)
        seal(run.tokenizer)
    return {"shared_factors": codes.factor_count}


def text_facts(run: RunFolder) -> TextFacts:
    """What the finished stages say about the text."""
    stream = TokenStream(run.shards, "train")
    codes = TokenCodes.load(run.tokenizer)
    tokenizer = Tokenizer.load(run.tokenizer)
    identity: dict[str, object] = {"tokenizer": tokenizer.fingerprint, "tokens": len(stream), "bytes": stream.bytes}
    if run.start.exists():
        identity["start"] = start_identity(run)
    return TextFacts(
        tokens=len(stream),
        bytes=stream.bytes,
        vocabulary=tokenizer.vocabulary_size,
        factors=codes.factor_count,
        identity=identity,
    )


def _warn_of_new_text(run: RunFolder, settings: Settings) -> None:
    try:
        same = read_json(run.corpus / "report.json")["fingerprint"] == fingerprint(settings, run)
    except UserError as error:  # training does not need the source any more
        log.warning("the text of this run is used as it was read; its source cannot be looked at: %s", error.why)
        return
    if not same:
        log.warning(
            "the source folder has changed since this run began; it goes on with the text it has read "
            "(make a new run to train on the new text)"
        )


def _mend(run: RunFolder, checkpoint: Path) -> None:
    """Once training has begun: replace a harmed tokenizer from the checkpoint, and harmed shards from the corpus."""
    if reason := damage(run.tokenizer):
        log.warning("%s; the tokenizer is taken from checkpoint %s", reason, checkpoint.name)
        _copy_vocabulary(run, checkpoint)
    if reason := damage(run.shards):
        # From any other text the weights would no longer be those of an undisturbed run.
        if corpus_reason := damage(run.corpus):
            raise UserError(
                f"the text that {run.root} was trained on is damaged",
                f"{reason}; {corpus_reason}",
                f"restore {run.shards} from a backup, or make a new run",
                EXIT_DAMAGED,
            )
        log.warning("%s; the shards are made again from the corpus", reason)
        _shards(run)
