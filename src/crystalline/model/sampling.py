"""Choosing the next token from the network's logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """How to choose. The same prompt, settings and seed give the same text.

    temperature: 0 takes the most likely token. top_k: only the k most likely (0: all). top_p: only the smallest set
    with that probability (Holtzman et al. 2020). min_p: only tokens with at least this share of the best one's
    probability (Nguyen et al. 2025). repetition_penalty: above 1 makes tokens that are there already less likely
    (Keskar et al. 2019).
    """

    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0


def distribution(logits: Tensor, seen: Sequence[int], how: Sampling) -> Tensor:
    """(V,) probabilities after penalty, temperature and the cuts, in the order of the settings.

    logits: (V,) fp32. seen: tokens already in the text. how.temperature must not be 0.
    """
    logits = penalize(logits, seen, how.repetition_penalty)
    # Relative to the best before dividing: a temperature near 0 must not make infinities of all.
    probabilities = torch.softmax((logits - logits.max()) / how.temperature, dim=-1)
    ordered, order = probabilities.sort(descending=True, stable=True)
    keep = torch.ones_like(ordered, dtype=torch.bool)
    if how.top_k:
        keep[how.top_k :] = False
    if how.top_p < 1:
        keep &= ordered.cumsum(-1) - ordered < how.top_p  # the token that crosses the line stays
    if how.min_p:
        keep &= ordered >= how.min_p * ordered[0]
    keep[0] = True
    kept = torch.where(keep, ordered, 0.0)
    return torch.zeros_like(probabilities).scatter_(0, order, kept / kept.sum())


def penalize(logits: Tensor, seen: Sequence[int], penalty: float) -> Tensor:
    """Logits with those of `seen` tokens divided (if positive) or multiplied (if negative) by `penalty`."""
    if penalty == 1 or not seen:
        return logits
    ids = torch.tensor(sorted(set(seen)))
    values = logits[ids]
    return logits.index_put((ids,), torch.where(values > 0, values / penalty, values * penalty))


def choose(logits: Tensor, seen: Sequence[int], how: Sampling, generator: torch.Generator) -> int:
    """The next token. logits: (V,) fp32; tokens that must not come have -inf."""
    if how.temperature == 0:
        return int(penalize(logits, seen, how.repetition_penalty).argmax())
    return int(torch.multinomial(distribution(logits, seen, how), 1, generator=generator))
