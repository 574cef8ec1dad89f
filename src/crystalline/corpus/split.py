"""Corpus, step 5: the documents of all portions in the order of their hashes, each text once, and two sides.

Sorting by hash does two things at once: the order does not depend on the order of files, and neighbours in it are
unrelated (it is a shuffle). The held-out documents are those with the smallest hashes, hence the beginning of the
order: a document stays on its side when others come or go.

Equal texts go first, all but the one that was found first. Then, of texts that are nearly the same, the longer one
stays (of two of one length that with the smaller hash), which depends on the texts alone. Nothing but a text that
stays removes another, so each that goes has one in the corpus that is as near as asked for.

Memory: about 300 bytes for each document, most of it for signatures.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import FileIO
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crystalline.corpus.clean.likeness import BANDS, jaccard, shingles
from crystalline.corpus.documents import Document, from_line
from crystalline.corpus.portions import INDEX, Index

MINIMUM_HELD_OUT = 300  # bytes, below which a measurement on them says nothing
MOST_EXCESS = 0.2  # how much of the text may be held out beyond the share that was asked for

MOST_CANDIDATES = 16  # texts that one is compared with because of one band: those that go before all others
MOST_OPEN = 200  # files
REMEMBERED = 64  # texts whose runs of words are kept for the next comparison

# Why a document is a duplicate.
SAME, NEAR, KNOWN = "duplicate", "near duplicate", "in another corpus"


@dataclass(frozen=True)
class Split:
    """How many documents and bytes of clean text there are, and on the held-out side.

    The first `held_out` of the sorted documents are held out, the others are for training.
    """

    documents: int
    held_out: int
    bytes: int
    held_out_bytes: int

    def sensible(self, share: float) -> bool:
        """Whether both sides are worth having when a `share` of the text was to be held out.

        It can fail with few documents only, when one of them holds much of the text.
        """
        return MINIMUM_HELD_OUT <= self.held_out_bytes <= (share + MOST_EXCESS) * self.bytes


@dataclass(frozen=True)
class Duplicate:
    """A document that goes because of another one. portion, row: where it is; of: the one that stays (or that is
    known); likeness: Jaccard index of their runs of five words."""

    portion: int
    row: int
    reason: str
    of: tuple[int, int]
    likeness: float


class Merger:
    """Sees all documents of all portions at once.

    folders: those of the portions (see portions.py), in the order of the sources. known: of documents that are to be
    left out, but are no part of the corpus themselves.
    """

    def __init__(self, folders: Sequence[Path], known: Sequence[Path] = ()) -> None:
        self.folders, self._known = [*known, *folders], len(known)
        indices = [np.load(folder / "documents.npy") for folder in self.folders]
        self._first = np.cumsum([0, *map(len, indices)])  # number of the first document of each portion
        self.index: Index = np.concatenate([np.zeros(0, INDEX), *indices])
        self.duplicates: list[Duplicate] = []
        self._files: OrderedDict[int, FileIO] = OrderedDict()
        hashes = self.index["hash"]
        order = np.lexsort(
            (hashes[:, 3], hashes[:, 2], hashes[:, 1], hashes[:, 0])
        )  # stable: first found, first kept
        again = np.zeros(len(order), bool)
        again[1:] = (hashes[order[1:]] == hashes[order[:-1]]).all(axis=1)
        heads = np.maximum.accumulate(np.where(again, 0, np.arange(len(order))))
        for place in np.flatnonzero(again).tolist():
            self._duplicate(int(order[place]), int(order[heads[place]]), SAME, 1.0)
        self._order: NDArray[np.int64] = order[~again]

    def drop_near(self, threshold: float) -> None:
        """Leave out every text whose Jaccard index with one that stays is `threshold` or more."""
        if not len(self._order):
            return
        # Who comes first stays: what is known, then the longer text, then the smaller hash.
        own = self._order >= self._first[self._known]
        ranks = np.lexsort((np.arange(len(self._order)), -self.index["size"][self._order].astype(np.int64), own))
        ranked = self._order[ranks]
        gone: set[int] = set()
        memory: OrderedDict[int, NDArray[np.uint64]] = OrderedDict()

        def read(number: int) -> NDArray[np.uint64]:
            if number not in memory:
                memory[number] = shingles(self.document(number).text.encode("utf-8"))
                if len(memory) > REMEMBERED:
                    memory.popitem(last=False)
            memory.move_to_end(number)
            return memory[number]

        for rank, candidates in self._candidates(ranked):
            number = int(ranked[rank])
            if number < self._first[self._known]:
                continue
            for candidate in candidates:
                other = int(ranked[candidate])
                if other in gone or not self._possible(number, other, threshold):
                    continue
                likeness = jaccard(read(number), read(other))
                if likeness >= threshold:
                    gone.add(number)
                    self._duplicate(number, other, NEAR, likeness)
                    break
        if gone:
            self._order = self._order[~np.isin(self._order, np.fromiter(gone, np.int64, len(gone)))]

    def _possible(self, number: int, other: int, threshold: float) -> bool:
        """Whether two texts of these sizes can be so much alike; generously, since words differ in length."""
        a, b = int(self.index["size"][number]), int(self.index["size"][other])
        return 3 * min(a, b) >= threshold * max(a, b)

    def _candidates(self, ranked: NDArray[np.int64]) -> Iterator[tuple[int, list[int]]]:
        """(rank, ranks before it that share a band with it), by rank, for those that have any.

        For each band those that come first of all, at most `MOST_CANDIDATES`.
        """
        found: list[NDArray[np.int64]] = []
        members: list[NDArray[np.int64]] = []
        offset = 0
        for band in range(BANDS):
            values = np.concatenate(
                [np.load(folder / "signatures.npy", mmap_mode="r")[band] for folder in self.folders]
            )[ranked]
            order = np.argsort(values, kind="stable")  # equal values stay in the order of ranks
            same = np.zeros(len(order), bool)
            same[1:] = values[order[1:]] == values[order[:-1]]
            start = np.maximum.accumulate(np.where(same, 0, np.arange(len(order))))
            grouped = same.copy()
            grouped[:-1] |= same[1:]
            place = np.cumsum(grouped) - 1 + offset  # of each member among all that are in a group
            later = np.flatnonzero(same)
            found.append(np.stack([order[later], place[start[later]], place[later]], axis=1))
            members.append(order[grouped].astype(np.int64))
            offset += int(grouped.sum())
        member = np.concatenate(members)
        links = np.concatenate(found)
        links = links[np.lexsort((links[:, 1], links[:, 0]))]
        borders = np.flatnonzero(np.diff(links[:, 0], prepend=-1, append=-2))
        for begin, end in zip(borders[:-1].tolist(), borders[1:].tolist(), strict=True):
            groups = (member[s : min(s + MOST_CANDIDATES, e)].tolist() for _, s, e in links[begin:end].tolist())
            yield int(links[begin, 0]), sorted(set(chain.from_iterable(groups)))

    def split(self, share: float) -> Split:
        """Divide what stays: a document is held out when its hash, as a fraction, is below `share`.

        With few documents the next ones in the order too, until there is a quarter of the share due, and
        `MINIMUM_HELD_OUT`; but never the last document.
        """
        kept = self._kept()
        sizes = self.index["size"][kept].astype(np.int64)
        total = int(sizes.sum())
        least = max(MINIMUM_HELD_OUT, share / 4 * total)
        held = held_bytes = 0
        while held < len(kept) - 1:
            if fraction(self.index["hash"][kept[held]].astype(">u8").tobytes()) >= share and held_bytes >= least:
                break
            held_bytes += int(sizes[held])
            held += 1
        return Split(len(kept), held, total, held_bytes)

    def lines(self) -> Iterator[bytes]:
        """The documents that stay as lines of JSON, sorted by hash."""
        for number in self._kept().tolist():
            yield self._line(number)

    def document(self, number: int) -> Document:
        """A document by its number."""
        return from_line(self._line(number))

    def at(self, portion: int, row: int) -> Document:
        """The document in a row of a portion."""
        return self.document(int(self._first[portion]) + row)

    def size(self, duplicate: Duplicate) -> int:
        """Bytes of the text of a duplicate."""
        return int(self.index["size"][self._first[duplicate.portion] + duplicate.row])

    def source(self, duplicate: Duplicate) -> int:
        """The number of a duplicate's source in its portion."""
        return int(self.index["source"][self._first[duplicate.portion] + duplicate.row])

    def close(self) -> None:
        """Close the files."""
        while self._files:
            self._files.popitem()[1].close()

    def __enter__(self) -> Merger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _kept(self) -> NDArray[np.int64]:
        kept: NDArray[np.int64] = self._order[self._order >= self._first[self._known]]
        return kept

    def _duplicate(self, number: int, of: int, reason: str, likeness: float) -> None:
        (portion, row), kept = self._where(number), self._where(of)
        if portion >= self._known:
            reason = KNOWN if kept[0] < self._known else reason
            self.duplicates.append(Duplicate(portion, row, reason, kept, likeness))

    def _where(self, number: int) -> tuple[int, int]:
        portion = int(np.searchsorted(self._first, number, side="right")) - 1
        return portion, number - int(self._first[portion])

    def _line(self, number: int) -> bytes:
        portion, entry = self._where(number)[0], self.index[number]
        if portion not in self._files:
            if len(self._files) == MOST_OPEN:
                self._files.popitem(last=False)[1].close()
            self._files[portion] = open(self.folders[portion] / "documents.jsonl", "rb", buffering=0)
        self._files.move_to_end(portion)
        return os.pread(self._files[portion].fileno(), int(entry["length"]), int(entry["place"]))


def fraction(digest: bytes) -> float:
    """The first 8 bytes of a hash as a number in [0, 1)."""
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53  # 53 bits, so that it cannot be rounded up to 1
