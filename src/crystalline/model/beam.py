"""Beam search: the continuations that the network as a whole finds most likely, `width` of them kept at each step.

All beams are one step of the decoder together. What a beam has read is copied when it branches, never read again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from crystalline.model.decoder import Decoder
from crystalline.model.lattice_sampling import Neighbourhood
from crystalline.model.sampling import log_probabilities, most_likely


@dataclass(frozen=True)
class Hypothesis:
    """A continuation that was found.

    tokens: without the one that ends a text. log_probability: ln of what the network says of them (and of that end).
    score: that divided by the length penalty; the larger the better. reason: "stop" or "length".
    """

    tokens: list[int]
    log_probability: float
    score: float
    reason: str


@dataclass(frozen=True)
class _Beam:
    slot: int
    tokens: list[int]
    log_probability: float


def length_penalty(length: int, alpha: float) -> float:
    """((5 + length) / 6) ** alpha (Wu et al. 2016, arXiv 1609.08144, equation 14): 1 for alpha 0, so no penalty."""
    return float(((5 + length) / 6) ** alpha)


def beam_search(
    decoder: Decoder,
    prompt: Sequence[int],
    width: int,
    length: int,
    eos: int,
    *,
    hidden: Sequence[int] | np.ndarray = (),
    alpha: float = 0.6,
    best: int = 1,
    neighbours: Neighbourhood | None = None,
    ended: Callable[[list[int]], bool] = lambda _: False,
) -> list[Hypothesis]:
    """The `best` continuations of `prompt` with the highest score that were met, best first.

    At each step every beam is tried as a text that ends here, and the `width` most likely of all that go on become
    the next beams; at `length` tokens they end. Once no beam can get better than the `best` that have ended, the
    search does: what is left out by that could not have been among them. Of equal ones the first one met is first.

    decoder: with `width` slots, whose texts are lost. prompt: one token at least; text longer than the context goes
    on as in `Continuation`. hidden: tokens that must not come. alpha: of the length penalty, from 0 up; the end
    counts as a token. neighbours: beams go on only with the lattice neighbours of their most likely token. ended:
    whether a continuation holds a stop string, which ends it.
    """
    context = decoder.shape.context
    hidden = np.asarray(hidden, np.int64)
    finished: list[Hypothesis] = []

    def finish(tokens: list[int], log_probability: float, counted: int, reason: str) -> None:
        score = log_probability / length_penalty(counted, alpha)
        finished.append(Hypothesis(tokens, log_probability, score, reason))

    decoder.cut(0, 0)
    logits = decoder.read(0, list(prompt)[-(context - 1) :])[None]
    beams = [_Beam(0, [], 0.0)]
    for count in range(1, length + 1):
        totals = np.stack([_totals(*pair, hidden, neighbours) for pair in zip(beams, logits, strict=True)])
        for beam, total in zip(beams, totals[:, eos].tolist(), strict=True):
            if total > -np.inf:
                finish(beam.tokens, total, count, "stop")
        totals[:, eos] = -np.inf
        chosen = [(*divmod(place, totals.shape[1]), total) for place, total in most_likely(totals.ravel(), width)]
        children: list[tuple[int, list[int], float]] = []  # the parent's slot, tokens, log-probability
        for parent, token, total in chosen:
            tokens = [*beams[parent].tokens, token]
            if total == -np.inf:
                continue
            if count == length or ended(tokens):
                finish(tokens, total, count, "stop" if ended(tokens) else "length")
            else:
                children.append((beams[parent].slot, tokens, total))
        finished.sort(key=lambda found: -found.score)  # stable: of equal ones the first stays first
        del finished[best:]
        reachable = max((total for _, _, total in children), default=-np.inf) / length_penalty(length, alpha)
        if not children or (len(finished) == best and finished[-1].score >= reachable):
            break
        slots = _branch(decoder, [slot for slot, _, _ in children])
        beams = [_Beam(slot, tokens, total) for slot, (_, tokens, total) in zip(slots, children, strict=True)]
        if decoder.length(slots[0]) < context:
            logits = decoder.step(slots, [beam.tokens[-1] for beam in beams])
        else:
            logits = np.stack([_read_half(decoder, beam.slot, [*prompt, *beam.tokens]) for beam in beams])
    return finished


def _totals(beam: _Beam, logits: np.ndarray, hidden: np.ndarray, neighbours: Neighbourhood | None) -> np.ndarray:
    """(V,) fp64: the log-probability of the beam with each token after it."""
    logits[hidden] = -np.inf
    each = log_probabilities(logits)
    if neighbours is not None:
        each = neighbours.keep(each, int(logits.argmax()))
    return beam.log_probability + each


def _branch(decoder: Decoder, parents: list[int]) -> list[int]:
    """A slot for each child, given the slots of their parents: the parent's own for its first child, else a copy."""
    free = [slot for slot in range(decoder.slots) if slot not in parents]
    slots: list[int] = []
    for parent in parents:
        slot = parent if parent not in slots else free.pop()
        decoder.copy(parent, slot)
        slots.append(slot)
    return slots


def _read_half(decoder: Decoder, slot: int, text: list[int]) -> np.ndarray:
    decoder.cut(slot, 0)
    return decoder.read(slot, text[-(decoder.shape.context // 2) :])
