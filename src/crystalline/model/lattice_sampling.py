"""Lattice sampling: only the tokens beside the most likely one, in the lattice of the prime codes, may come.

After the network, before the choice. Of its logits those are kept of

    the most likely token (after the repetition penalty),
    the k tokens most similar to it by their codes (tokens/similarity.py: places, shared primes, root and derived),
    the end of the text,

and all others are impossible. Among those kept the network's probabilities decide, through temperature, top-k, top-p
and min-p as ever. With k = 0 it is off; with k as large as the vocabulary nothing is left out, which is the same.

Beam search takes the same neighbours (a lattice beam): each beam goes on with them only. Its scores stay what
the network says, so that both searches can be compared.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from crystalline.tokens.similarity import Similarity, largest


class Neighbourhood:
    """What may come beside each token: itself, its k nearest, and `always`. Looked up once and kept.

    structure: tokens that are no text, and so nobody's neighbours.
    """

    def __init__(
        self, similarity: Similarity, k: int, structure: Sequence[int] = (), always: Sequence[int] = ()
    ) -> None:
        self.k = k
        self._similarity, self._structure, self._always = similarity, list(structure), list(always)
        self._found: dict[int, NDArray[np.int64]] = {}

    def of(self, token: int) -> NDArray[np.int64]:
        """The tokens that may come where `token` is the most likely one, ascending."""
        if token not in self._found:
            values = self._similarity.row(token)
            values[self._structure] = -1.0  # below all others, which are from 0 to 1
            near = [id_ for id_, value in largest(values, self.k, without=token) if value >= 0]
            self._found[token] = np.array(sorted({token, *near, *self._always}), np.int64)
        return self._found[token]

    def keep(self, logits: np.ndarray, most_likely: int) -> np.ndarray:
        """The logits, (V,), with -inf for all tokens that may not come."""
        ids = self.of(most_likely)
        kept = np.full_like(logits, -np.inf)
        kept[ids] = logits[ids]
        return kept
