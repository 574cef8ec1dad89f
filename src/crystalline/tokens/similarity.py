"""How near two tokens are by their codes alone: for exploring a vocabulary, and as a kernel for training.

Similarity is a mean of three parts, each from 0 to 1 and 1 for a token with itself:

    closeness   1 / (1 + distance of their positions)
    shared      weight of the primes they share / weight of the primes that either has
    relation    1 the same token, ¾ one code divides the other, ½ the same root, ¼ a common operator only, 0 coprime

A prime that n of V tokens have weighs ln((V + 1) / n): a rare root says much, the space before a word almost nothing
(inverse document frequency, Spärck Jones 1972). Weights are whole numbers, so sums of them have no order and
a token is exactly as similar to another as that one to it.

This is the neighbourhood of spelling. Neighbours in meaning are in the vectors that a model has learned: see
`nearest_vectors`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crystalline.errors import EXIT_USAGE, UserError
from crystalline.tokens.codes import TokenCodes
from crystalline.tokens.positions import OFFSET, ONE, Positions, checked_count

Floats = NDArray[np.float64]
Ids = Sequence[int] | NDArray[np.integer[Any]]
Neighbours = list[tuple[int, float]]  # token id and similarity, most similar first

WEIGHT_UNIT = 1 << 20  # of the whole numbers that stand for the weights of primes
SAME, DIVIDES, SAME_ROOT, COMMON_OPERATOR, COPRIME = 1.0, 0.75, 0.5, 0.25, 0.0


@dataclass(frozen=True)
class Weights:
    """What each part of the similarity counts: any numbers from 0 up, of which only the ratios matter."""

    closeness: float = 0.5
    shared: float = 0.3
    relation: float = 0.2

    def normalised(self) -> tuple[float, float, float]:
        """(closeness, shared, relation) with the sum 1. UserError when that cannot be."""
        values = self.closeness, self.shared, self.relation
        if not (all(math.isfinite(value) and value >= 0 for value in values) and 0 < sum(values) < math.inf):
            raise UserError(
                f"could not weigh similarity by {', '.join(f'{value:g}' for value in values)}",
                "weights are numbers from 0 up, and not all of them 0",
                "for example: 0.5, 0.3 and 0.2",
                EXIT_USAGE,
            )
        closeness, shared, relation = (value / sum(values) for value in values)
        return closeness, shared, relation


@dataclass(frozen=True)
class Incidence:
    """Which token has which of the F primes, both ways, and what the primes weigh.

    tokens: of each prime the tokens that have it, ascending. rows: (V, most factors of a token) int64, of each token
    the indices of its primes, root first; what is left over of a row is -1.
    weights: (F,) int64, in units of 1 / WEIGHT_UNIT.
    totals: (V,) int64, the weight of all of a token's primes. counts: (V,) its operators.
    """

    tokens: list[NDArray[np.int64]]
    rows: NDArray[np.int64]
    weights: NDArray[np.int64]
    totals: NDArray[np.int64]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, codes: TokenCodes) -> Incidence:
        """The incidence of a vocabulary. Primes that no token has are left out."""
        size = codes.vocabulary_size
        factors = [codes.factors(id_) for id_ in range(size)]
        used = sorted({factor for of_token in factors for factor in of_token})
        index = {factor.prime: i for i, factor in enumerate(used)}
        tokens: list[list[int]] = [[] for _ in used]
        counts = np.array([len(of_token) - 1 for of_token in factors], dtype=np.int64)
        rows = np.full((size, 1 + int(counts.max(initial=0))), -1, dtype=np.int64)
        for id_, of_token in enumerate(factors):
            indices = [index[factor.prime] for factor in of_token]
            rows[id_, : len(indices)] = indices
            for i in indices:
                tokens[i].append(id_)
        weights = np.array([round(WEIGHT_UNIT * math.log((size + 1) / len(having))) for having in tokens])
        return cls(
            tokens=[np.array(having, dtype=np.int64) for having in tokens],
            rows=rows,
            weights=weights,
            totals=np.where(rows >= 0, weights[rows], 0).sum(axis=1),
            counts=counts,
        )

    def of_token(self, id_: int) -> NDArray[np.int64]:
        """Indices of the token's primes, the root first."""
        return self.rows[id_, : 1 + self.counts[id_]]


class Similarity:
    """Similarities between the tokens of a vocabulary of V, one by one, in pairs, or one against all."""

    def __init__(self, codes: TokenCodes, positions: Positions | None = None, weights: Weights = Weights()) -> None:
        self.weights = weights.normalised()
        self.positions = positions or Positions(codes)
        self.incidence = Incidence.of(codes)
        self._x, self._y = np.ascontiguousarray(self.positions.plane.T)

    def parts(self, a: Ids, b: Ids) -> Floats:
        """Closeness, shared primes and relation of the pairs (a[0], b[0]), (a[1], b[1]), …: (N, 3)."""
        first, second = self._known(a), self._known(b)
        incidence = self.incidence
        rows = incidence.rows[first]
        common = (rows[:, :, None] == incidence.rows[second][:, None, :]).any(axis=2) & (rows >= 0)
        weight = np.where(common, incidence.weights[rows], 0).sum(axis=1)
        return self._parts(first, second, weight, common[:, 1:].sum(axis=1), common[:, 0])

    def pairs(self, a: Ids, b: Ids) -> Floats:
        """Similarities of the pairs (a[0], b[0]), (a[1], b[1]), …: (N,), in [0, 1], 1 for equal tokens."""
        first, second = self._known(a), self._known(b)
        return self._mean(first, second, self.parts(first, second))

    def row(self, id_: int) -> Floats:
        """Similarities of one token to all: (V,)."""
        (token,) = self._known([id_])
        incidence = self.incidence
        size = len(incidence.totals)
        weight, common = np.zeros(size, dtype=np.int64), np.zeros(size, dtype=np.int64)
        root, *operators = incidence.of_token(token)
        for index in operators:
            weight[incidence.tokens[index]] += incidence.weights[index]
            common[incidence.tokens[index]] += 1
        weight[incidence.tokens[root]] += incidence.weights[root]
        same_root = np.zeros(size, dtype=np.bool_)
        same_root[incidence.tokens[root]] = True
        everyone = np.arange(size)
        return self._mean(token, everyone, self._parts(token, everyone, weight, common, same_root))

    def rows(self, ids: Ids) -> Floats:
        """The same of several tokens: (B, V)."""
        found = [self.row(int(id_)) for id_ in ids]
        return np.array(found, dtype=np.float64).reshape(len(found), len(self.incidence.totals))

    def nearest(self, id_: int, k: int = 10) -> Neighbours:
        """The k tokens most similar to this one, itself left out; equally similar ones by id.

        Every token is compared, so none is missed.
        """
        return largest(self.row(id_), k, without=id_)

    def _parts(
        self,
        a: NDArray[np.int64] | np.int64,
        b: NDArray[np.int64],
        weight: NDArray[np.int64],
        common: NDArray[np.int64],
        same_root: NDArray[np.bool_],
    ) -> Floats:
        """(N, 3). weight: of the shared primes; common: number of shared operators. `a` may be one for all of `b`."""
        incidence = self.incidence
        counts_a, counts_b = incidence.counts[a], incidence.counts[b]
        apart = counts_a + counts_b - 2 * common
        squared = (self._x[a] - self._x[b]) ** 2 + (self._y[a] - self._y[b]) ** 2 + apart * (OFFSET / ONE) ** 2
        parts = np.empty((len(b), 3))
        parts[:, 0] = 1 / (1 + np.sqrt(squared))
        parts[:, 1] = weight / (incidence.totals[a] + incidence.totals[b] - weight)
        relation = np.where(common > 0, COMMON_OPERATOR, COPRIME)
        relation[same_root] = SAME_ROOT
        relation[same_root & (common == np.minimum(counts_a, counts_b))] = DIVIDES
        relation[a == b] = SAME
        parts[:, 2] = relation
        return parts

    def _mean(self, a: NDArray[np.int64] | np.int64, b: NDArray[np.int64], parts: Floats) -> Floats:
        """The weighted mean of the parts. Rounding takes nothing beyond 1, and leaves equal tokens at exactly 1."""
        closeness, shared, relation = self.weights
        mean = np.minimum(parts[:, 0] * closeness + parts[:, 1] * shared + parts[:, 2] * relation, 1.0)
        mean[a == b] = 1.0
        return mean

    def _known(self, ids: Ids) -> NDArray[np.int64]:
        return known(ids, len(self.incidence.totals))


class CrystallineKernel:
    """K = share · shared + closeness · close: a positive definite kernel on the V tokens, for a training objective.

    close: as in `Similarity`: 1 / (1 + distance) is positive definite in Euclidean space (Schoenberg 1938: a mixture
    of the kernels e^(-s · distance)), strictly so as no two tokens have one position.
    shared: the cosine form, weight of the primes that a and b share / √(weight of a's · weight of b's). Like the form
    over the union it is 1 for a token with itself and 0 for coprime ones, but it is an inner product of sparse
    vectors: to multiply it by a distribution costs as much as the tokens have primes, 3 each, instead of V².

    So ½ (p - e_y)ᵀ K (p - e_y) is a strictly proper score of a prediction p of token y (Steinwart & Ziegel 2019,
    arXiv 1712.05279).
    """

    def __init__(self, codes: TokenCodes, share: float = 0.7, closeness: float = 0.3) -> None:
        self.closeness, self.share, _ = Weights(closeness, share, 0.0).normalised()
        self.incidence = Incidence.of(codes)
        positions = Positions(codes)
        self._x, self._y = np.ascontiguousarray(positions.plane.T)
        self._operators = positions.operators
        incidence = self.incidence
        self._tokens = np.concatenate(incidence.tokens)
        self._starts = np.cumsum([0, *map(len, incidence.tokens[:-1])])
        used = incidence.rows >= 0
        self._rows = np.maximum(incidence.rows, 0)
        squares = np.where(used, incidence.weights[self._rows], 0) / incidence.totals[:, None]
        self._values = np.sqrt(squares)
        of_prime = np.repeat(incidence.weights, [len(having) for having in incidence.tokens])
        self._by_prime = np.sqrt(of_prime / incidence.totals[self._tokens])

    def features(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """The sparse vectors φ of the tokens, shared(a, b) = φ(a) · φ(b), as (indices, offsets, values).

        Token t has values[i] at place indices[i] for i from offsets[t] to offsets[t + 1]: what
        `torch.nn.functional.embedding_bag` takes with per_sample_weights. indices: 0..F-1, F primes in use.
        """
        used = self.incidence.rows >= 0
        offsets = np.concatenate([[0], np.cumsum(used.sum(axis=1))]).astype(np.int64)
        return self.incidence.rows[used], offsets, self._values[used].astype(np.float32)

    def prime_masses(self, p: Floats) -> Floats:
        """Σ_t p_t φ(t): (B, V) -> (B, F). Its squared length is the shared part of pᵀ K p."""
        return np.add.reduceat(np.asarray(p)[:, self._tokens] * self._by_prime, self._starts, axis=1)

    def shared_product(self, p: Floats) -> Floats:
        """The shared part of K times p, without its share: (B, V) -> (B, V)."""
        masses = self.prime_masses(p)
        out = np.zeros((len(masses), len(self._rows)))
        for column, values in zip(self._rows.T, self._values.T, strict=True):
            out += masses[:, column] * values
        return out

    def rows(self, ids: Ids) -> Floats:
        """The rows of K of these tokens: (B, V)."""
        tokens = known(ids, len(self._rows))
        shared = np.zeros((len(tokens), len(self._rows)))
        for line, token in zip(shared, tokens.tolist(), strict=True):
            for index, value in zip(self.incidence.of_token(token), self._values[token], strict=False):
                having = self.incidence.tokens[index]
                start = self._starts[index]
                line[having] += value * self._by_prime[start : start + len(having)]
        return self.share * shared + self.closeness * self._close(tokens)

    def product(self, p: Floats) -> Floats:
        """K times p: (B, V) -> (B, V). The shared part is sparse; closeness takes V² steps, in blocks of rows."""
        p = np.asarray(p, dtype=np.float64)
        close = np.empty_like(p)
        for start in range(0, p.shape[1], 256):
            block = np.arange(start, min(start + 256, p.shape[1]))
            close[:, block] = p @ self._close(block).T
        return self.share * self.shared_product(p) + self.closeness * close

    def _close(self, tokens: NDArray[np.int64]) -> Floats:
        """1 / (1 + distance) of these tokens to all: (B, V)."""
        operators, counts = self._operators, self.incidence.counts
        apart = counts[tokens][:, None] + counts - 2 * (operators[tokens] @ operators.T)
        squared = (self._x[tokens][:, None] - self._x) ** 2 + (self._y[tokens][:, None] - self._y) ** 2
        return np.asarray(1 / (1 + np.sqrt(squared + apart * (OFFSET / ONE) ** 2)))


def nearest_vectors(vectors: NDArray[np.floating[Any]], id_: int, k: int = 10) -> Neighbours:
    """The k rows of (V, D) vectors with the largest cosine to row `id_`, itself left out; equal ones by id.

    A row of zeros has cosine 0 with all.
    """
    (token,) = known([id_], len(vectors))
    wide = np.asarray(vectors, dtype=np.float64)
    lengths = np.linalg.norm(wide, axis=1)
    lengths[lengths == 0] = 1
    return largest(wide @ wide[token] / lengths / lengths[token], k, without=id_)


def largest(values: Floats, k: int, without: int) -> Neighbours:
    """(index, value) of the k largest of `values` (V,), all but one; largest first, equal ones by index."""
    k = min(checked_count(k), len(values) - 1)
    if k < 1:
        return []
    falling = -values
    falling[without] = np.inf
    limit = np.partition(falling, k - 1)[k - 1]
    found = np.flatnonzero(falling <= limit)
    best = found[np.argsort(falling[found], kind="stable")][:k]
    return [(int(index), float(values[index])) for index in best]


def known(ids: Ids, size: int) -> NDArray[np.int64]:
    """The ids as an array; UserError when one is no token of a vocabulary of this size."""
    found = np.asarray(ids, dtype=np.int64).reshape(-1)
    outside = found[(found < 0) | (found >= size)]
    if len(outside):
        raise UserError(
            f"there is no token {outside[0]}",
            f"the vocabulary has tokens 0 to {size - 1}",
            "give numbers in this range",
        )
    return found
