"""Choosing the next token from the network's logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Sampling:
    """How to choose. The same prompt, settings and seed give the same text.

    temperature: 0 takes the most likely token. top_k: only the k most likely (0: all). top_p: only the smallest set
    with that probability (Holtzman et al. 2020). min_p: only tokens with at least this share of the best one's
    probability (Nguyen et al. 2025). repetition_penalty: above 1 makes tokens that are there already less likely
    (Keskar et al. 2019). lattice: first of all leave only the most likely token and the k most similar to it by their
    codes (0: all; see lattice_sampling.py); lattice_weights: of closeness, shared primes and relation.
    Where two tokens are equally likely the one with the lower number comes first.
    """

    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    lattice: int = 0
    lattice_weights: tuple[float, float, float] = (0.5, 0.3, 0.2)
    seed: int = 0

    def generator(self) -> np.random.Generator:
        """The random numbers of one text."""
        return np.random.default_rng(self.seed)


def penalize(logits: np.ndarray, seen: Sequence[int], penalty: float) -> np.ndarray:
    """Logits with those of `seen` tokens divided (if positive) or multiplied (if negative) by `penalty`."""
    if penalty == 1 or not seen:
        return logits
    ids = np.unique(np.asarray(seen))
    penalized, values = logits.copy(), logits[ids]
    penalized[ids] = np.where(values > 0, values / penalty, values * penalty)
    return penalized


def candidates(logits: np.ndarray, seen: Sequence[int], how: Sampling) -> tuple[np.ndarray, np.ndarray]:
    """The tokens that may come, in rising order, and their probabilities after penalty, temperature and the cuts.

    logits: (V,) fp32. seen: tokens already in the text. how.temperature must not be 0.
    """
    logits = penalize(logits, seen, how.repetition_penalty)
    # Relative to the best before dividing: a temperature near 0 must not make infinities of all.
    shares = np.exp((logits - logits.max()) / np.float32(max(how.temperature, 1e-30)))
    whole = shares.sum(dtype=np.float64)
    least = max(how.min_p, float(np.finfo(np.float32).tiny))
    if 0 < how.top_k < len(shares):
        least = max(least, float(np.partition(shares, -how.top_k)[-how.top_k]))
    if how.top_p < 1:
        # Tokens under this share are less than 1 - top_p all together, so the smallest set has none of them.
        least = max(least, float((1 - how.top_p) * whole / len(shares)))
    ids = np.flatnonzero(shares >= np.float32(min(least, 1.0)))
    kept = shares[ids]
    if how.top_k or how.top_p < 1:
        best = np.sort(kept)[::-1][: how.top_k or None]
        if how.top_p < 1:  # the token that crosses the line stays
            best = best[: 1 + int(np.searchsorted(best.cumsum(dtype=np.float64), how.top_p * whole))]
        if len(best) < len(kept):
            inside = kept > best[-1]
            inside[np.flatnonzero(kept == best[-1])[: len(best) - np.count_nonzero(inside)]] = True
            ids, kept = ids[inside], kept[inside]
    probabilities = kept.astype(np.float64)
    return ids, probabilities / probabilities.sum()


def distribution(logits: np.ndarray, seen: Sequence[int], how: Sampling) -> np.ndarray:
    """(V,) fp64: the probabilities of all tokens, see `candidates`."""
    probabilities = np.zeros(len(logits))
    ids, kept = candidates(logits, seen, how)
    probabilities[ids] = kept
    return probabilities


def choose(logits: np.ndarray, seen: Sequence[int], how: Sampling, generator: np.random.Generator) -> int:
    """The next token. logits: (V,) fp32; tokens that must not come have -inf."""
    if how.temperature == 0:
        return int(penalize(logits, seen, how.repetition_penalty).argmax())
    ids, probabilities = candidates(logits, seen, how)
    place = int(np.searchsorted(probabilities.cumsum(), generator.random(), side="right"))
    return int(ids[min(place, len(ids) - 1)])


def log_probabilities(logits: np.ndarray) -> np.ndarray:
    """(V,) fp64: ln softmax(logits), what the network itself says of each token."""
    relative = (logits - logits.max()).astype(np.float64)
    result: np.ndarray = relative - np.log(np.exp(relative).sum())
    return result


def most_likely(log_probabilities: np.ndarray, count: int) -> list[tuple[int, float]]:
    """The `count` most likely tokens with their log-probabilities, best first."""
    count = min(count, len(log_probabilities))
    if count < 1:
        return []
    least = np.partition(log_probabilities, -count)[-count]
    ids = np.flatnonzero(log_probabilities >= least)
    best = ids[np.argsort(-log_probabilities[ids], kind="stable")[:count]]
    return [(int(token), float(log_probabilities[token])) for token in best]
