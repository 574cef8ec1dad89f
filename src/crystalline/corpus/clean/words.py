"""The words of a text as 64-bit numbers, and those of its runs of n words: what repetition and likeness are seen by.

A word is a run of letters, digits and bytes above ASCII, without regard to the case of ASCII letters; a Chinese,
Japanese or Korean character is a word by itself. Several documents are handled at once by numpy.
The numbers are the same on every machine. Two different words share one with a probability of about 2⁻⁶⁴.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Counts = NDArray[np.int64]

_SLICE = 1 << 18  # bytes handled at once, which bounds the memory

# Every byte as it counts in a word: ASCII letters in lower case, digits, bytes above ASCII; the others are spaces.
_FOLD = bytes(
    byte + 32 if 65 <= byte <= 90 else byte if chr(byte).isalnum() or byte >= 128 else 32 for byte in range(256)
)
_SPACE = 32
# First bytes of the UTF-8 of U+3000..U+DFFF: CJK, kana and Hangul, which have no spaces between words.
_WIDE_FIRST, _WIDE_LAST = 0xE3, 0xED

# Odd numbers without structure (fractional parts of √2, √3, √5 and the golden ratio, as in SplitMix64 and SHA-2).
_BASE = np.uint64(0x6A09E667F3BCC909)
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_JOIN = 0x9E3779B97F4A7C15


@dataclass(frozen=True)
class Words:
    """The words of several documents, one after the other.

    hashes, lengths: (words,): a number for each word, and its bytes.
    first: (documents + 1,): where the words of each document begin; the last entry is the number of words.
    """

    hashes: Hashes
    lengths: Counts
    first: Counts

    @classmethod
    def of(cls, documents: Sequence[bytes]) -> Words:
        """The words of documents in UTF-8."""
        _keep_memory()
        if not documents:
            return cls(np.empty(0, np.uint64), np.empty(0, np.int64), np.zeros(1, np.int64))
        borders = np.cumsum([0, *(len(document) + 1 for document in documents)])
        parts = [_words(piece, start) for piece, start in _slices(b" ".join(documents))]
        hashes, lengths, starts = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        return cls(hashes, lengths, np.searchsorted(starts, borders))

    def sums(self, values: Counts) -> Counts:
        """The sum of `values`, one for each word, in each document: shape (documents,)."""
        total = np.zeros(len(values) + 1, np.int64)
        np.cumsum(values, out=total[1:])
        return total[self.first[1:]] - total[self.first[:-1]]

    def one(self, document: int) -> tuple[Hashes, Counts]:
        """(hashes, lengths) of one document."""
        part = slice(int(self.first[document]), int(self.first[document + 1]))
        return self.hashes[part], self.lengths[part]

    def runs(self, n: int) -> tuple[Hashes, Counts]:
        """(a number for each run of n words in one document, where each document's begin); a document with fewer
        words has all of them as its one run."""
        counts = np.diff(self.first)
        found = runs(self.hashes, n)
        keep = np.ones(len(found), bool)
        for back in range(1, n):  # not those that begin in the last n - 1 words of a document
            places = self.first[1:] - back
            keep[places[(places >= 0) & (places < len(found))]] = False
        short = np.flatnonzero((counts > 0) & (counts < n))
        amounts = np.maximum(counts - n + 1, 0)
        if not len(short):
            return found[keep], np.concatenate([[0], np.cumsum(amounts)])
        amounts[short] = 1
        borders = np.concatenate([[0], np.cumsum(amounts)])
        every = np.empty(borders[-1], np.uint64)
        alone = np.zeros(len(every), bool)
        alone[borders[short]] = True
        every[~alone] = found[keep]
        every[borders[short]] = [runs(self.one(d)[0], int(counts[d]))[0] for d in short.tolist()]
        return every, borders


def _slices(data: bytes) -> Iterator[tuple[bytes, int]]:
    """(slice, its place): all of the text in slices of bounded size that cut no word, if there are spaces."""
    start = 0
    while len(data) - start > _SLICE:
        cut = data.rfind(b" ", start, start + _SLICE)
        end = cut + 1 if cut > start else start + _SLICE
        yield data[start:end], start
        start = end
    yield data[start:], start


def _words(data: bytes, place: int) -> tuple[Hashes, Counts, Counts]:
    """(hashes, lengths, places) of the words of a slice that lies at `place`."""
    text = np.frombuffer(data.translate(_FOLD), np.uint8)
    inside = np.zeros(len(text) + 2, bool)  # one more at each end, so that borders need no special case
    np.not_equal(text, _SPACE, out=inside[1:-1])
    wide = (text >= _WIDE_FIRST) & (text <= _WIDE_LAST)
    if wide.any():
        first = inside[1:-1] & ~inside[:-2]
        last = inside[1:-1] & ~inside[2:]
        first |= wide
        last[:-1] |= wide[1:] & inside[1:-2]  # whatever stands before such a character ends there
        starts, ends = np.flatnonzero(first), np.flatnonzero(last) + 1
    else:
        borders = np.flatnonzero(inside[1:] != inside[:-1])
        starts, ends = borders[::2], borders[1::2]
    # The value of the bytes up to each place, as a polynomial modulo 2⁶⁴; of a word: a difference, moved to place 0.
    powers, inverse = _powers()
    values = np.zeros(len(text) + 1, np.uint64)
    np.cumsum(text * powers[: len(text)], out=values[1:])
    return _mixed((values[ends] - values[starts]) * inverse[starts]), ends - starts, starts + place


@cache
def _keep_memory() -> None:
    """Have the C library's malloc (glibc's) keep up to 64 MB of what is freed instead of giving it back to the system
    and asking for it anew with each batch, which takes up to a fifth of the time."""
    np.empty(31 << 20, np.uint8)  # keeps twice the size of the largest block so far; never written to, it takes none


@cache
def _powers() -> tuple[Hashes, Hashes]:
    """Powers of an odd base modulo 2⁶⁴, and those of its inverse."""
    size = _SLICE + 1
    both = []
    for base in (int(_BASE), pow(int(_BASE), -1, 2**64)):
        factors = np.full(size, base, np.uint64)
        factors[0] = 1
        both.append(np.cumprod(factors, dtype=np.uint64))
    return both[0], both[1]


def _mixed(numbers: Hashes) -> Hashes:
    """Numbers whose bits all depend on all bits (SplitMix64, Steele et al. 2014)."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * _MIX_1
    numbers = (numbers ^ (numbers >> np.uint64(27))) * _MIX_2
    return numbers ^ (numbers >> np.uint64(31))


def runs(hashes: Hashes, n: int) -> Hashes:
    """A number for each run of n neighbouring words, in order: shape (words - n + 1,), empty for fewer words.

    The high bits are the best mixed ones.
    """
    if len(hashes) < n:
        return np.empty(0, np.uint64)
    joined, length = hashes, 1
    while length < n:  # runs of 2, 4, ... and in the end of n, made of two that may overlap
        step = min(length, n - length)
        # As in a polynomial, so that each place has a factor of its own (where two overlap, twice that).
        joined = joined[:-step] * np.uint64(pow(_JOIN, step, 2**64)) + joined[step:]
        length += step
    return joined
