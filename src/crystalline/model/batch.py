"""Many texts continued together: as one ends, the next takes its slot. Each is what it would be alone."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from crystalline.model.generation import Continuation, LanguageModel, advance
from crystalline.model.pieces import Pieces
from crystalline.model.sampling import Sampling, log_probabilities, most_likely

SLOTS = 16  # at once


@dataclass(frozen=True)
class Request:
    """A text to continue, by at most `limit` tokens. best: tell how likely each is, and so many of the likeliest."""

    prompt: str
    how: Sampling
    limit: int
    stop: Sequence[str] = ()
    best: int | None = None


@dataclass(frozen=True)
class Likelihood:
    """A token, ln of its probability by the network, and the most likely tokens in its place with theirs."""

    token: int
    log_probability: float
    best: list[tuple[int, float]]


@dataclass
class Continued:
    """What became of a request. seconds: from when its turn came. likelihoods: of each token, if asked for."""

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    reason: str = "length"
    seconds: float = 0.0
    likelihoods: list[Likelihood] = field(default_factory=list)


class _Text:
    """A request in its slot."""

    def __init__(self, model: LanguageModel, number: int, request: Request) -> None:
        self.number, self.request, self.result = number, request, Continued()
        self.continuation: Continuation = model.continuation(model.tokenizer.encode(request.prompt), request.how)
        self.pieces = Pieces(model.tokenizer, request.stop)
        self.began = time.perf_counter()


def continue_all(
    model: LanguageModel, requests: Sequence[Request], slots: int = SLOTS
) -> Iterator[tuple[int, Continued]]:
    """Each request's number and result, as soon as it is there."""
    slots = min(slots, len(requests))
    decoder = model.decoder.fresh(max(1, slots))
    waiting = iter(enumerate(requests))
    texts: dict[int, _Text] = {}
    free = list(range(slots))
    while True:
        while free and (following := next(waiting, None)) is not None:
            texts[free.pop()] = _Text(model, *following)
        if not texts:
            return
        for slot, logits in advance(decoder, {slot: text.continuation for slot, text in texts.items()}).items():
            text, result = texts[slot], texts[slot].result
            token = text.continuation.choose(logits)
            if token is not None:
                result.tokens.append(token)
                result.text += text.pieces.add(token)
                if text.request.best is not None:
                    logs = log_probabilities(logits)
                    likely = [(id_, log) for id_, log in most_likely(logs, text.request.best) if log > -float("inf")]
                    result.likelihoods.append(Likelihood(token, float(logs[token]), likely))
            if token is None or text.pieces.stopped:
                result.reason = "stop"
            elif len(result.tokens) < text.request.limit:
                continue
            result.text += text.pieces.rest(ended=result.reason == "stop")
            result.seconds = time.perf_counter() - text.began
            del texts[slot]
            free.append(slot)
            yield text.number, result
