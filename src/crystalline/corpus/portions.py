"""Corpus, step 4: the files are dealt into portions, and each portion is read and cleaned by itself, by any process.

The folder of a finished portion, which is sealed and has its final name only when it is whole:

    documents.jsonl     what was kept, a document a line, in the order of the sources
    documents.npy       for each of them its hash, the place of its line, the size of its text, the number of its
    source signatures.npy      for each of them the bands of its MinHash signature, by which near duplicates are found
    removed.jsonl       what was removed, a document a line: source, offset, length, reason, excerpt
    sources.jsonl       a source a line: what it is, and what became of its documents
    skipped.jsonl       files and folders that were passed over
    tally.json          the counts

A portion is named by everything its result depends on, so that one that is there need not be made again.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crystalline.corpus.clean.cleaner import Cleaned, Cleaner, finish, judge
from crystalline.corpus.clean.likeness import BANDS, signatures
from crystalline.corpus.documents import Document, sections, to_line
from crystalline.corpus.extract.extraction import Extracted
from crystalline.corpus.files import VERSION, File, Skipped
from crystalline.corpus.report import Tally
from crystalline.corpus.sources import Found, texts
from crystalline.run_folder import new_folder, write_json
from crystalline.settings import Clean, Extract

PORTION_BYTES = 8 << 20  # of files; enough to keep a process busy for a second
PORTION_FILES = 2000
BATCH_BYTES = 1 << 19  # of text that is judged at once: numpy, and the model of languages, are quicker with much

# A document that a portion has kept. hash: its SHA-256 as four big-endian numbers, so that they sort as it does.
INDEX = np.dtype(
    [("hash", "<u8", 4), ("place", "<u8"), ("length", "<u4"), ("size", "<u4"), ("source", "<u4")]
)  # fmt: skip
Index = NDArray[np.void]


@dataclass(frozen=True, slots=True)
class Portion:
    """Some files and pages that follow each other, and what was passed over between them."""

    found: tuple[Found | Skipped, ...]

    def name(self, section_bytes: int, clean: Clean, extract: Extract) -> str:
        """What the folder of the result is called."""
        choices = clean.model_dump(exclude={"workers", "against"}) | {"extract": extract.model_dump()}
        choices["near_duplicates"] = clean.near_duplicates > 0
        entries = [_identity(item) for item in self.found]
        return hashlib.sha256(json.dumps([VERSION, section_bytes, choices, entries]).encode()).hexdigest()[:32]


def _identity(item: Found | Skipped) -> list[Any]:
    """What a text depends on besides the settings."""
    if isinstance(item, Skipped):
        return [item.source, item.reason]
    return [item.source, item.size, item.modified_ns if isinstance(item, File) else item.hash]


def deal(found: Iterable[Found | Skipped]) -> Iterator[Portion]:
    """Portions of about equal size; a long file is one by itself."""
    portion: list[Found | Skipped] = []
    size = 0
    for item in found:
        more = 0 if isinstance(item, Skipped) else item.size
        if portion and (size + more > PORTION_BYTES or len(portion) >= PORTION_FILES):
            yield Portion(tuple(portion))
            portion, size = [], 0
        portion.append(item)
        size += more
    if portion:
        yield Portion(tuple(portion))


def make(portion: Portion, folder: Path, section_bytes: int, clean: Clean, extract: Extract) -> None:
    """Read and clean a portion into `folder`. Memory: a few sections and a megabyte of text, whatever its size.

    Raises UserError when a file changes while it is being read.
    """
    with new_folder(folder) as part, Writer(part, clean.near_duplicates > 0) as writer:
        for item in portion.found:
            for text in [item] if isinstance(item, Skipped) else texts(item, extract):
                if isinstance(text, Skipped):
                    writer.skip(text)
                else:
                    _clean(text, section_bytes, clean, writer)
        writer.finish()


def _clean(text: Extracted, section_bytes: int, settings: Clean, writer: Writer) -> None:
    cleaner = Cleaner(settings, text.source, text.kind)
    writer.source(text, cleaner)
    offset = 0
    for section in sections(text.text, section_bytes):
        writer.add(cleaner, cleaner.begin(section), offset, len(section))
        offset += len(section)


class Writer:
    """Writes the folder of a portion: sources, and after each its documents, which are judged in batches."""

    def __init__(self, folder: Path, near_duplicates: bool) -> None:
        self.folder, self.near_duplicates = folder, near_duplicates
        self.tally = Tally()
        self._documents, self._removed, self._skipped = (
            open(folder / f"{name}.jsonl", "wb") for name in ("documents", "removed", "skipped")
        )
        self._index: list[tuple[list[int], int, int, int, int]] = []
        self._signatures: list[NDArray[np.uint64]] = []
        self._sources: list[dict[str, Any]] = []
        self._languages: list[Counter[str]] = []
        self._cleaners: list[Cleaner] = []
        self._batch: list[tuple[Cleaner, Cleaned, int, int, int]] = []
        self._waiting = 0

    def source(self, text: Extracted, cleaner: Cleaner) -> None:
        """The documents that are added from now on are of this source."""
        documents, size = ({"in": 0, "kept": 0, "removed": {}} for _ in range(2))
        metadata = {name: value for name, value in text.metadata.items() if name != "encoding"}
        self._sources.append(
            {"source": text.source, "kind": text.kind, "language": ""} | metadata
            | {"documents": documents, "bytes": size, "masked": {}}
        )  # fmt: skip
        self._languages.append(Counter())
        self._cleaners.append(cleaner)
        self.tally.file(text.metadata["format"], text.metadata.get("encoding", ""), text.kind)

    def skip(self, skipped: Skipped) -> None:
        """Note something that was passed over."""
        self.tally.skip(skipped)
        self._skipped.write(_line(asdict(skipped)))

    def add(self, cleaner: Cleaner, done: Cleaned, offset: int, length: int) -> None:
        """Take the next document of the last source, which lies at `offset` and has `length` bytes there."""
        self._batch.append((cleaner, done, len(self._sources) - 1, offset, length))
        self._waiting += length
        self._flush_if(self._waiting >= BATCH_BYTES)

    def finish(self) -> None:
        """Write what is left."""
        self._flush_if(True)
        index = np.zeros(len(self._index), INDEX)
        for name, column in zip(INDEX.names or (), zip(*self._index, strict=True), strict=False):
            index[name] = column
        np.save(self.folder / "documents.npy", index)
        if self.near_duplicates:
            empty = np.zeros((0, BANDS), np.uint64)
            # By bands, so that one of them can be read by itself.
            np.save(self.folder / "signatures.npy", np.concatenate([empty, *self._signatures]).T.copy())
        with open(self.folder / "sources.jsonl", "wb") as file:
            for entry, languages, cleaner in zip(self._sources, self._languages, self._cleaners, strict=True):
                found = max(languages, key=lambda name: (languages[name], name), default="")
                entry["language"] = found or entry["language"]  # what the file itself says, where nothing was found
                entry["masked"] = dict(sorted(cleaner.masked.items()))
                self.tally.source(cleaner.masked, cleaner.lines)
                file.write(_line(entry))
        write_json(self.folder / "tally.json", self.tally.to_json())

    def _flush_if(self, wanted: bool) -> None:
        if not (wanted and self._batch):
            return
        documents = [(cleaner, done) for cleaner, done, *_ in self._batch]
        judge(documents)
        finish(documents)
        kept = []
        for _, done, source, offset, length in self._batch:
            entry = self._sources[source]
            entry["documents"]["in"] += 1
            entry["bytes"]["in"] += length
            for reason, size in done.taken.items():
                entry["bytes"]["removed"][reason] = entry["bytes"]["removed"].get(reason, 0) + size
            if done.language:
                self._languages[source][done.language] += length
            self.tally.document(length, done.reason, done.taken, done.language, done.excerpt)
            if done.reason:
                entry["documents"]["removed"][done.reason] = entry["documents"]["removed"].get(done.reason, 0) + 1
                removed = {"source": entry["source"], "offset": offset, "length": length, "reason": done.reason}
                self._removed.write(_line(removed | {"excerpt": done.excerpt}))
                continue
            entry["documents"]["kept"] += 1
            entry["bytes"]["kept"] += len(done.data)
            self.keep(entry["source"], source, offset, length, done.text, done.data)
            kept.append(done.data)
        self.sign(kept)
        self._batch, self._waiting = [], 0

    def keep(self, name: str, source: int, offset: int, length: int, text: str, data: bytes) -> None:
        """Write a document that is kept; to be followed by `sign`."""
        digest = hashlib.sha256(data)
        line = to_line(Document(digest.hexdigest(), name, offset, length, text))
        raw = digest.digest()
        number = [int.from_bytes(raw[i : i + 8], "big") for i in range(0, 32, 8)]
        self._index.append((number, self._documents.tell(), len(line), len(data), source))
        self._documents.write(line)

    def sign(self, kept: list[bytes]) -> None:
        """Add the signatures of documents, in the order in which they were kept."""
        if kept and self.near_duplicates:
            self._signatures.append(signatures(kept))

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        for file in (self._documents, self._removed, self._skipped):
            file.close()


def make_known(documents: Iterable[Document], folder: Path, near_duplicates: bool) -> None:
    """The folder of a portion with documents of another corpus, to compare with."""
    with new_folder(folder) as part, Writer(part, near_duplicates) as writer:
        batch: list[bytes] = []
        for document in documents:
            data = document.text.encode("utf-8")
            writer.keep(document.source, 0, document.offset, document.length, document.text, data)
            batch.append(data)
            if sum(map(len, batch)) >= BATCH_BYTES:
                writer.sign(batch)
                batch = []
        writer.sign(batch)
        writer.finish()


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8") + b"\n"
