"""Corpus, the stage: reads the sources of a run and writes its `corpus` folder.

    train.jsonl, held_out.jsonl   a document a line: hash, source, offset, length, text; sorted by hash
    sources.jsonl                 a source a line: what it is, and documents and bytes in, kept, and removed by reason
    removed.jsonl                 every document that was removed, with its source, place, reason and beginning
    skipped.jsonl                 every file and folder passed over, with its reason
    report.json                   the counts (see report.py)

The same texts give the same two document files, however files and folders are named or ordered, except for
the names in them, and with any number of processes. The files are dealt into portions, which are cleaned one by one
(portions.py) into RUN/corpus-work; then all are seen at once (split.py). The corpus folder appears when it is whole.
A stage that was stopped, killed or ended by an error before that goes on with the portions that were not done.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from crystalline.corpus import portions
from crystalline.corpus.clean.cleaner import EXAMPLE
from crystalline.corpus.crawl import store
from crystalline.corpus.documents import Document, from_line
from crystalline.corpus.files import source_fingerprint
from crystalline.corpus.forgotten import forgotten, without
from crystalline.corpus.parallel import each
from crystalline.corpus.portions import Portion
from crystalline.corpus.report import Tally
from crystalline.corpus.sources import crawls, everything
from crystalline.corpus.split import Duplicate, Merger, Split
from crystalline.errors import EXIT_DAMAGED, UserError
from crystalline.run_folder import RunFolder, damage, new_folder, read_json, reporting_os_errors, write_json
from crystalline.settings import Corpus, Settings
from crystalline.tokens.stream import SplitName

__all__ = ["build", "fingerprint", "iterate", "records"]

Progress = Callable[[str], None]

MINIMUM_BYTES = 2_000  # of clean text; less cannot be divided and trained on
SMALLEST_SECTION = 256  # bytes; how fine a small corpus is cut so that some of it can be held out


def build(
    settings: Settings, run: RunFolder, progress: Progress | None = None, preview: bool = False
) -> dict[str, Any]:
    """Make `run.corpus`, replacing one that is there, and return its report.

    progress: is given a line of text about once a second. preview: to look at, not to train on: any amount will do.
    Raises UserError when the sources hold too little text, or the disk is full.
    """
    progress = progress or (lambda _: None)
    made_of = fingerprint(settings, run)  # before reading: a change meanwhile will be noticed
    with reporting_os_errors(f"write the corpus in {run.corpus}"):
        run.corpus_work.mkdir(parents=True, exist_ok=True)
        report = _build(settings, run, made_of, progress, preview)
        shutil.rmtree(run.corpus_work)
    return report


def fingerprint(settings: Settings, run: RunFolder) -> str:
    """SHA-256 that changes when something changes that the corpus of this run depends on.

    Raises UserError when a source does not exist, or a corpus to compare with.
    """
    choices = settings.clean.model_dump(exclude={"workers"})
    others = [_seal_of(corpus) for corpus in _against(settings)]
    away = sorted(entry["source"] for entry in forgotten(run))
    pages = [store.fingerprint(folder) for folder in crawls(settings.corpus, run.crawl)]
    parts = [source_fingerprint(settings.corpus), pages, settings.extract.model_dump(), choices, others, away]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def iterate(where: RunFolder | Path, split: SplitName) -> Iterator[Document]:
    """The documents of one side, streaming, in the order of their hashes.

    where: a run, or a corpus folder. Raises UserError when the file is missing or damaged.
    """
    path = (where.corpus if isinstance(where, RunFolder) else where) / f"{split}.jsonl"
    return _lines(path, from_line)


def records(where: RunFolder | Path, name: str) -> Iterator[dict[str, Any]]:
    """The lines of `name`.jsonl ("sources", "removed" or "skipped") of a corpus. Raises UserError as `iterate`
    does."""
    path = (where.corpus if isinstance(where, RunFolder) else where) / f"{name}.jsonl"
    return _lines(path, json.loads)


def _lines(path: Path, read: Callable[[bytes], Any]) -> Iterator[Any]:
    with reporting_os_errors(f"read the corpus {path}"), open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                value = read(line)
            except (ValueError, TypeError) as error:
                raise UserError(
                    f"could not read {path}",
                    f"line {number} is damaged: {error}",
                    f"delete the folder {path.parent} and give the same command again: it is made anew",
                    EXIT_DAMAGED,
                ) from error
            yield value


def _build(settings: Settings, run: RunFolder, made_of: str, progress: Progress, preview: bool) -> dict[str, Any]:
    known = _known(settings, run.corpus_work)
    share, section_bytes = settings.corpus.held_out, settings.corpus.section_bytes
    while True:
        folders = _portions(settings, run, section_bytes, known, progress)
        with Merger(folders, known) as merger:
            if settings.clean.near_duplicates:
                progress("looking for near duplicates")
                merger.drop_near(settings.clean.near_duplicates)
            split = merger.split(share)
            enough = preview or split.bytes >= MINIMUM_BYTES
            finer = None if preview else _finer(section_bytes, split, share)
            if finer is None or not enough:
                with new_folder(run.corpus) as folder:
                    tally = _count(folders, merger, folder)
                    if not enough:
                        shutil.rmtree(run.corpus_work)  # the little that is there is quickly read again
                        raise _too_little(settings.corpus, tally, split)
                    progress(f"writing {split.documents:,} documents")
                    _write(merger, split, folder)
                    report = tally.report(split) | {"section_bytes": section_bytes, "fingerprint": made_of}
                    write_json(folder / "report.json", report)
                return report
        section_bytes = finer


# --- portions -------------------------------------------------------------------------------------------


def _portions(
    settings: Settings, run: RunFolder, section_bytes: int, known: list[Path], progress: Progress
) -> list[Path]:
    """The folders of all portions, in the order of the sources; those that are there already are kept."""
    away = [entry["source"] for entry in forgotten(run)]
    dealt = list(portions.deal(without(everything(settings.corpus, run.crawl), away)))
    folders = [run.corpus_work / portion.name(section_bytes, settings.clean, settings.extract) for portion in dealt]
    wanted = {folder.name for folder in (*folders, *known)}
    for folder in run.corpus_work.iterdir():
        if folder.name not in wanted:  # of other files or settings, or half of one
            shutil.rmtree(folder)
    # Equal portions (the same empty folder named twice) have one folder.
    missing = list({f: p for p, f in zip(dealt, folders, strict=True) if not f.exists() or damage(f)}.items())

    def make(task: tuple[Path, Portion]) -> None:
        portions.make(task[1], task[0], section_bytes, settings.clean, settings.extract)

    done = Tally()
    spoken = time.monotonic()
    for folder, _ in each(make, missing, settings.clean.workers):
        done.add(_tally(folder))
        if time.monotonic() - spoken >= 1:
            progress(f"{done.files_read:,} files, {done.bytes / 1e6:,.0f} MB of text")
            spoken = time.monotonic()
    return folders


def _known(settings: Settings, work: Path) -> list[Path]:
    """Portions of the documents of other corpora."""
    folders = []
    near = settings.clean.near_duplicates > 0
    for corpus in _against(settings):
        folder = work / hashlib.sha256(json.dumps([str(corpus), _seal_of(corpus), near]).encode()).hexdigest()[:32]
        if not folder.exists() or damage(folder):
            documents = (document for split in ("train", "held_out") for document in iterate(corpus, split))
            portions.make_known(documents, folder, near)
        folders.append(folder)
    return folders


def _against(settings: Settings) -> list[Path]:
    """The corpus folders of the runs to compare with. Raises UserError when one is missing."""
    found = []
    for name in settings.clean.against:
        path = Path(name).expanduser()
        corpus = path if (path / "train.jsonl").exists() else RunFolder(path).corpus
        if not (corpus / "train.jsonl").exists():
            raise UserError(
                f"could not compare with {name}",
                "there is no corpus in it",
                "name runs whose text has been read in clean.against, or make it: cllm clean RUN",
            )
        found.append(corpus)
    return found


def _seal_of(corpus: Path) -> str:
    seal = corpus / "SHA256SUMS"
    return seal.read_text("utf-8") if seal.exists() else ""


def _tally(folder: Path) -> Tally:
    return Tally.from_json(read_json(folder / "tally.json"))


# --- the corpus folder ----------------------------------------------------------------------------------


def _count(folders: list[Path], merger: Merger, folder: Path) -> Tally:
    """Write who gave and lost what, into `folder`; returns the counts of all."""
    total = Tally()
    gone: dict[int, list[Duplicate]] = defaultdict(list)
    for duplicate in merger.duplicates:
        gone[duplicate.portion].append(duplicate)
    known = len(merger.folders) - len(folders)
    with (
        open(folder / "sources.jsonl", "wb") as sources,
        open(folder / "removed.jsonl", "wb") as removed,
        open(folder / "skipped.jsonl", "wb") as skipped,
    ):
        for number, portion in enumerate(folders, known):
            total.add(_tally(portion))
            for name, file in (("removed", removed), ("skipped", skipped)):
                with open(portion / f"{name}.jsonl", "rb") as lines:
                    shutil.copyfileobj(lines, file)
            with open(portion / "sources.jsonl", "rb") as lines:
                entries = [json.loads(line) for line in lines]
            for duplicate in sorted(gone[number], key=lambda d: d.row):
                document, kept = merger.at(duplicate.portion, duplicate.row), merger.at(*duplicate.of)
                size = merger.size(duplicate)
                total.remove(duplicate.reason, f"{document.source}, as in {kept.source}", size)
                _move(entries[merger.source(duplicate)], duplicate.reason, size)
                removed.write(_removed(document, kept, duplicate))
            for entry in entries:
                sources.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
    return total


def _move(entry: dict[str, Any], reason: str, size: int) -> None:
    """Count a document of a source as removed that was counted as kept."""
    for what, amount in (("documents", 1), ("bytes", size)):
        entry[what]["kept"] -= amount
        entry[what]["removed"][reason] = entry[what]["removed"].get(reason, 0) + amount


def _removed(document: Document, kept: Document, duplicate: Duplicate) -> bytes:
    entry = {
        "source": document.source,
        "offset": document.offset,
        "length": document.length,
        "reason": duplicate.reason,
        "excerpt": document.text[:EXAMPLE],
        "of": {"source": kept.source, "offset": kept.offset, "hash": kept.hash},
        "likeness": round(duplicate.likeness, 4),
    }
    return json.dumps(entry, ensure_ascii=False).encode() + b"\n"


def _write(merger: Merger, split: Split, folder: Path) -> None:
    with open(folder / "held_out.jsonl", "wb") as held_out, open(folder / "train.jsonl", "wb") as train:
        for number, line in enumerate(merger.lines()):
            (held_out if number < split.held_out else train).write(line)


def _finer(section_bytes: int, split: Split, share: float) -> int | None:
    """A smaller section size when there are too few documents to divide them well; None when all is well.

    This happens with little text only, where reading it again takes no time.
    """
    if section_bytes <= SMALLEST_SECTION or split.sensible(share):
        return None
    return max(SMALLEST_SECTION, min(section_bytes // 2, int(split.bytes * share)))


def _too_little(settings: Corpus, tally: Tally, split: Split) -> UserError:
    sources = ", ".join(settings.source)
    amount = f"only {split.bytes:,} bytes of different text" if split.bytes else "no text"
    files = f"{tally.files_read:,} file{'' if tally.files_read == 1 else 's'}"
    return UserError(
        "there is too little text to train on",
        f"{sources}: {amount} in {files} that could be read; at least {MINIMUM_BYTES:,} bytes are needed"
        + tally.why_so_little(),
        "add files with text (txt, md, html, pdf, docx, source code ...) to corpus.source",
    )
