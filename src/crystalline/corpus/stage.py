"""Corpus, the stage: reads the sources of a run and writes its `corpus` folder.

    train.jsonl, held_out.jsonl   a document a line: hash, source, offset, length, text; sorted by hash
    skipped.jsonl                 every file and folder passed over, with its reason
    report.json                   the counts (see report.py)

The same texts give the same two document files, however files and folders are named or ordered, except for
the names in them. Memory does not grow with the corpus. The folder appears when it is whole: a run that is
stopped before that starts the stage again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from crystalline.corpus.documents import Document, documents
from crystalline.corpus.extract.extraction import Raw, extract
from crystalline.corpus.files import Skipped, source_fingerprint, walk
from crystalline.corpus.report import Tally
from crystalline.corpus.split import Sorter, Split, from_line
from crystalline.errors import EXIT_DAMAGED, UserError
from crystalline.run_folder import RunFolder, new_folder, reporting_os_errors, write_json
from crystalline.settings import Corpus, Settings
from crystalline.tokens.stream import SplitName

__all__ = ["build", "iterate", "source_fingerprint"]

Progress = Callable[[str], None]

MINIMUM_BYTES = 2_000  # of clean text; less cannot be divided and trained on
SMALLEST_SECTION = 256  # bytes; how fine a small corpus is cut so that some of it can be held out


def build(settings: Settings, run: RunFolder, progress: Progress | None = None) -> dict[str, Any]:
    """Make `run.corpus`, replacing one that is there, and return its report.

    progress: is given a line of text about once a second.
    Raises UserError when the sources hold too little text, or the disk is full.
    """
    progress = progress or (lambda _: None)
    fingerprint = source_fingerprint(
        settings.corpus, settings.extract
    )  # before reading: a change meanwhile will be noticed
    with reporting_os_errors(f"write the corpus in {run.corpus}"), new_folder(run.corpus) as folder:
        section_bytes = settings.corpus.section_bytes
        while True:
            with Sorter(folder / "sorting") as sorter:
                tally = _read(settings, section_bytes, sorter, folder / "skipped.jsonl", progress)
                split = sorter.split(settings.corpus.held_out)
                if split.bytes < MINIMUM_BYTES:
                    raise _too_little(settings.corpus, tally, split)
                finer = _finer(section_bytes, split, settings.corpus.held_out)
                if finer is None:
                    progress(f"writing {split.documents:,} documents")
                    _write(sorter, split, folder)
                    break
            section_bytes = finer
        report = tally.report(split) | {"section_bytes": section_bytes, "fingerprint": fingerprint}
        write_json(folder / "report.json", report)
    return report


def iterate(where: RunFolder | Path, split: SplitName) -> Iterator[Document]:
    """The documents of one side, streaming, in the order of their hashes.

    where: a run, or a corpus folder. Raises UserError when the file is missing or damaged.
    """
    path = (where.corpus if isinstance(where, RunFolder) else where) / f"{split}.jsonl"
    with reporting_os_errors(f"read the corpus {path}"), open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                document = from_line(line)
            except (ValueError, TypeError) as error:
                raise UserError(
                    f"could not read {path}",
                    f"line {number} is damaged: {error}",
                    f"delete the folder {path.parent} and give the same command again: it is made anew",
                    EXIT_DAMAGED,
                ) from error
            yield document


def _read(settings: Settings, section_bytes: int, sorter: Sorter, skipped_file: Path, progress: Progress) -> Tally:
    """Read all sources into `sorter`."""
    tally = Tally()
    spoken = time.monotonic()
    with open(skipped_file, "wb") as log:
        for event in _contents(settings, section_bytes, tally):
            if isinstance(event, Document):
                tally.document(event.length, sorter.add(event) if event.text else 0)
            else:
                tally.skip(event)
                log.write(json.dumps(asdict(event), ensure_ascii=False).encode() + b"\n")
            if time.monotonic() - spoken >= 1:
                progress(f"{tally.files_read:,} files, {tally.bytes / 1e6:,.0f} MB of text")
                spoken = time.monotonic()
    return tally


def _contents(settings: Settings, section_bytes: int, tally: Tally) -> Iterator[Document | Skipped]:
    """All documents of all sources, and what was passed over between them."""
    for found in walk(settings.corpus):
        if isinstance(found, Skipped):
            yield found
            continue
        for result in extract(Raw(found.source, found.path), settings.extract):
            if isinstance(result, Skipped):
                yield result
            else:
                yield from documents(result.text, result.source, section_bytes)
                tally.file(result.metadata.get("encoding", result.metadata["format"]))


def _finer(section_bytes: int, split: Split, share: float) -> int | None:
    """A smaller section size when there are too few documents to divide them well; None when all is well.

    This happens with little text only, where reading it again takes no time.
    """
    if section_bytes <= SMALLEST_SECTION or split.sensible(share):
        return None
    return max(SMALLEST_SECTION, min(section_bytes // 2, int(split.bytes * share)))


def _write(sorter: Sorter, split: Split, folder: Path) -> None:
    with open(folder / "held_out.jsonl", "wb") as held_out, open(folder / "train.jsonl", "wb") as train:
        for number, line in enumerate(sorter.lines()):
            (held_out if number < split.held_out else train).write(line)


def _too_little(settings: Corpus, tally: Tally, split: Split) -> UserError:
    sources = ", ".join(settings.source)
    amount = f"only {split.bytes:,} bytes of different text" if split.bytes else "no text"
    files = f"{tally.files_read:,} file{'' if tally.files_read == 1 else 's'}"
    return UserError(
        "there is too little text to train on",
        f"{sources}: {amount} in {files} that could be read; at least {MINIMUM_BYTES:,} bytes are needed"
        + tally.why_so_little(split.duplicate_bytes),
        "add files with text (txt, md, html, pdf, docx, source code ...) to corpus.source",
    )
