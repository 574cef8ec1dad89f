"""Corpus, step 4: all documents in the order of their hashes, each text once, in training and held-out ones.

Sorting by hash does three things at once: the order does not depend on the order of files, neighbours in it
are unrelated (it is a shuffle), and equal texts meet, so that the second is dropped. The held-out documents
are those with the smallest hashes, hence the beginning of the order: a document stays on its side when others
come or go.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

from crystalline.corpus.documents import Document

BUCKETS = 64  # files that the documents are dealt into by hash; one bucket's index is in memory at a time
MINIMUM_HELD_OUT = 300  # bytes, below which a measurement on them says nothing
MOST_EXCESS = 0.2  # how much of the text may be held out beyond the share that was asked for

Record = tuple[bytes, int, int, int]  # hash; position and length of the line in the bucket; bytes of text
_RECORD = struct.Struct("<32sQQQ")


@dataclass(frozen=True)
class Split:
    """How many documents and bytes of clean text are on each side, and how many were duplicates.

    The first `held_out` of the sorted documents are held out, the others are for training.
    """

    documents: int
    held_out: int
    bytes: int
    held_out_bytes: int
    duplicates: int
    duplicate_bytes: int

    def sensible(self, share: float) -> bool:
        """Whether both sides are worth having when a `share` of the text was to be held out.

        It can fail with few documents only, when one of them holds much of the text.
        """
        return MINIMUM_HELD_OUT <= self.held_out_bytes <= (share + MOST_EXCESS) * self.bytes


class Sorter:
    """Takes documents in any order and gives them back sorted by hash, each text once.

    It keeps texts in files in `folder`, and in memory only an index of one bucket, which is about 4 bytes for
    each document of the corpus. Of equal texts the one added first remains. Use it in a `with` block, which
    removes its files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self._lines = [open(folder / f"{i:02}.jsonl", "wb") for i in range(BUCKETS)]
        self._index = [open(folder / f"{i:02}.index", "wb") for i in range(BUCKETS)]

    def add(self, document: Document) -> int:
        """Take a document; returns the bytes of its text."""
        line = to_line(document)
        size = len(document.text.encode("utf-8"))
        digest = bytes.fromhex(document.hash)
        bucket = digest[0] * BUCKETS // 256
        self._index[bucket].write(_RECORD.pack(digest, self._lines[bucket].tell(), len(line), size))
        self._lines[bucket].write(line)
        return size

    def split(self, share: float) -> Split:
        """Divide what was added: a document is held out when its hash, as a fraction, is below `share`.

        With few documents the next ones in the order too, until there is a quarter of the share due, and
        `MINIMUM_HELD_OUT`; but never the last document.
        """
        count = total = held = held_bytes = added = added_bytes = 0
        for bucket in range(BUCKETS):
            records, here, here_bytes = self._unique(bucket)
            added, added_bytes = added + here, added_bytes + here_bytes
            count, total = count + len(records), total + sum(record[3] for record in records)
        least = max(MINIMUM_HELD_OUT, share / 4 * total)
        for digest, _, _, size in self._all():
            if (fraction(digest) >= share and held_bytes >= least) or held >= count - 1:
                break
            held, held_bytes = held + 1, held_bytes + size
        return Split(count, held, total, held_bytes, added - count, added_bytes - total)

    def lines(self) -> Iterator[bytes]:
        """The sorted documents as lines of JSON."""
        for bucket in range(BUCKETS):
            with open(self.folder / f"{bucket:02}.jsonl", "rb") as file:
                for _, position, length, _ in self._unique(bucket)[0]:
                    file.seek(position)
                    yield file.read(length)

    def _all(self) -> Iterator[Record]:
        return chain.from_iterable(self._unique(bucket)[0] for bucket in range(BUCKETS))

    def _unique(self, bucket: int) -> tuple[list[Record], int, int]:
        """(the records by hash, each hash once; with duplicates: how many there are, and how many bytes)."""
        self._lines[bucket].flush()
        self._index[bucket].flush()
        # Positions rise in the order of adding, so of equal hashes the first added sorts first.
        records = sorted(_RECORD.iter_unpack((self.folder / f"{bucket:02}.index").read_bytes()))
        unique = [r for i, r in enumerate(records) if i == 0 or r[0] != records[i - 1][0]]
        return unique, len(records), sum(record[3] for record in records)

    def __enter__(self) -> Sorter:
        return self

    def __exit__(self, *_: object) -> None:
        for file in (*self._lines, *self._index):
            file.close()
            Path(file.name).unlink()
        self.folder.rmdir()


def fraction(digest: bytes) -> float:
    """The first 8 bytes of a hash as a number in [0, 1)."""
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53  # 53 bits, so that it cannot be rounded up to 1


def to_line(document: Document) -> bytes:
    """A document as a line of JSON."""
    return json.dumps(asdict(document), ensure_ascii=False).encode("utf-8") + b"\n"


def from_line(line: bytes) -> Document:
    """The document in a line of JSON. Raises ValueError or TypeError when it is damaged."""
    return Document(**json.loads(line))
