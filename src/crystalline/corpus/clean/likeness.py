"""How alike two texts are: the Jaccard index of their runs of five words, and MinHash signatures that find
candidates.

Broder 1997; the banding of signatures is that of Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", chapter
3. Two texts of Jaccard index s share a band with probability 1 - (1 - s⁵)¹⁶: 0.998 at 0.8, 0.987 at 0.75, 0.4 at
0.5. Candidates are compared in full afterwards, so that bands decide what is looked at, not what is removed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from crystalline.corpus.clean.words import Hashes, Words

SHINGLE = 5  # words, as in FineWeb's MinHash
BANDS, ROWS = 16, 5
_SEED = 1  # of the permutations
_JOIN = np.uint64(0x9E3779B97F4A7C15)


def shingles(data: bytes) -> Hashes:
    """The different runs of five words of a text in UTF-8, sorted; of a shorter text all its words as one."""
    return np.unique(Words.of([data]).runs(SHINGLE)[0])


def signatures(data: Sequence[bytes]) -> NDArray[np.uint64]:
    """A number for each band of each text, shape (texts, BANDS): equal numbers in one band make two texts candidates.

    Texts of fewer than five words are alike only if they are equal: they may be nothing but signs and numbers, which
    words do not tell apart.
    """
    from rensa import RMinHash

    found = Words.of(data)
    every, borders = found.runs(SHINGLE)
    digests = RMinHash.digest_matrix_from_flat_token_hashes(every, borders.astype(np.uint64), BANDS * ROWS, _SEED)
    minima = np.array(digests.to_rows(), np.uint64).reshape(len(data), BANDS, ROWS)
    bands = np.zeros((len(data), BANDS), np.uint64)
    for row in range(ROWS):  # five numbers of 32 bits into one of 64
        bands = (bands ^ minima[:, :, row]) * _JOIN
        bands ^= bands >> np.uint64(29)
    for short in np.flatnonzero(np.diff(found.first) < SHINGLE).tolist():
        bands[short] = np.frombuffer(hashlib.sha512(data[short]).digest() * (BANDS // 8), "<u8")
    return bands


def jaccard(a: Hashes, b: Hashes) -> float:
    """The share of runs that both texts have among those that either has; a, b: from `shingles`."""
    both = len(np.intersect1d(a, b, assume_unique=True))
    either = len(a) + len(b) - both
    return both / either if either else 1.0
