"""A trained model that continues text: loading it, the token loop with its cache, streaming of whole characters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from crystalline.errors import EXIT_DAMAGED, EXIT_USAGE, UserError
from crystalline.model import checkpoints, store
from crystalline.model.beam import Hypothesis, beam_search
from crystalline.model.decoder import Decoder, decoder
from crystalline.model.lattice_sampling import Neighbourhood
from crystalline.model.pieces import Pieces
from crystalline.model.sampling import Sampling, choose, penalize
from crystalline.model.transformer import Transformer
from crystalline.settings import Generation
from crystalline.tokens import codes
from crystalline.tokens.similarity import Similarity, Weights
from crystalline.tokens.tokenizer import Tokenizer


@dataclass
class Generated:
    """What a generation ended with. reason: "stop" (end of text or a stop string) or "length"."""

    tokens: list[int]
    reason: str


class Continuation:
    """One text that grows in a slot of a decoder: read its `pending` tokens there (`advance`), `choose` the next one.

    Text longer than the context is continued from its last part: when the context is full, its second half is read
    again and generation goes on.

    tokens: the text so far, with bos; at least one. hidden: tokens that must not come. eos: the one that ends a text.
    neighbours: the only tokens that may come beside the most likely one (how.lattice).
    """

    def __init__(
        self,
        tokens: Sequence[int],
        how: Sampling,
        context: int,
        hidden: np.ndarray,
        eos: int,
        neighbours: Neighbourhood | None = None,
    ) -> None:
        self.tokens, self.how, self._neighbours = list(tokens), how, neighbours
        self.pending = self.tokens[-(context - 1) :]
        self.starts = True  # with an empty slot
        self._context, self._hidden, self._eos = context, hidden, eos
        self._generator = how.generator()
        self._length = 0

    def choose(self, logits: np.ndarray) -> int | None:
        """The next token, which is now pending, after those logits; None: the text has ended.

        In `logits` hidden tokens become impossible; else they stay as they are.
        """
        logits[self._hidden] = -np.inf
        kept = logits
        if self._neighbours is not None:
            most_likely = penalize(logits, self.tokens, self.how.repetition_penalty).argmax()
            kept = self._neighbours.keep(logits, int(most_likely))
        token = choose(kept, self.tokens, self.how, self._generator)
        if token == self._eos:
            return None
        self.tokens.append(token)
        self._length += len(self.pending)
        self.pending, self.starts = [token], self._length == self._context
        if self.starts:
            self.pending, self._length = self.tokens[-(self._context // 2) :], 0
        return token


def advance(decoder: Decoder, texts: Mapping[int, Continuation]) -> dict[int, np.ndarray]:
    """Read what is pending of each text into its slot; slot -> (V,) fp32 logits.

    Texts with one pending token are read together: many cost little more than one.
    """
    logits: dict[int, np.ndarray] = {}
    single: list[int] = []
    for slot, text in texts.items():
        if text.starts:
            decoder.cut(slot, 0)
        if len(text.pending) == 1:
            single.append(slot)
        else:
            logits[slot] = decoder.read(slot, text.pending)
    if single:
        logits.update(zip(single, decoder.step(single, [texts[slot].pending[0] for slot in single]), strict=True))
    return logits


class LanguageModel:
    """A network with its tokenizer. Make one with `crystalline.load(RUN)`.

    precision: of the network's matrices while it generates: fp32, bf16, int8, or None for that of its training.
    folder: where its files are, if it has any.
    """

    def __init__(
        self,
        model: Transformer,
        tokenizer: Tokenizer,
        defaults: Generation,
        precision: str | None = None,
        folder: Path | None = None,
    ) -> None:
        self.model, self.tokenizer, self.defaults, self.precision = model, tokenizer, defaults, precision
        self.folder = folder
        self._neighbourhoods: dict[tuple[int, tuple[float, float, float]], Neighbourhood] = {}
        # Tokens that are structure, not text. Training never shows them as targets, except eos.
        special = [t for t in range(tokenizer.vocabulary_size) if tokenizer.is_special(t) and t != tokenizer.eos]
        self._hidden = np.array(special, np.int64)

    @cached_property
    def decoder(self) -> Decoder:
        """The network made ready to generate. Its one slot is nobody's: `fresh` gives slots to use."""
        return decoder(self.model, precision=self.precision)

    def compute_in(self, precision: str) -> None:
        """Let what is begun from now on be computed with matrices in another precision."""
        self.precision = precision
        self.__dict__.pop("decoder", None)

    def continuation(self, prompt: Sequence[int], how: Sampling) -> Continuation:
        """A text that begins with the tokens of `prompt`."""
        t, context = self.tokenizer, self.model.shape.context
        return Continuation([t.bos, *prompt], how, context, self._hidden, t.eos, self.neighbours(how))

    def neighbours(self, how: Sampling) -> Neighbourhood | None:
        """What may come beside each token, if how.lattice asks for it. UserError where tokens have no codes."""
        if not how.lattice:
            return None
        key = how.lattice, how.lattice_weights
        if key not in self._neighbourhoods:
            if self.folder is None or not (self.folder / codes.FILE).exists():
                raise UserError(
                    "could not look for lattice neighbours",
                    "the tokens of this model have no prime codes",
                    "leave lattice sampling out (--lattice 0), or use a model that cllm has trained",
                )
            t = self.tokenizer
            similarity = Similarity(codes.TokenCodes.load(self.folder), weights=Weights(*how.lattice_weights))
            structure = [id_ for id_ in range(t.vocabulary_size) if t.is_special(id_)]
            self._neighbourhoods[key] = Neighbourhood(similarity, how.lattice, structure, [t.eos])
        return self._neighbourhoods[key]

    def next_tokens(self, prompt: Sequence[int], how: Sampling, result: Generated | None = None) -> Iterator[int]:
        """Tokens after `prompt`, one by one, until the end of the text. The caller stops when it has enough."""
        text, decoder = self.continuation(prompt, how), self.decoder.fresh()
        while (token := text.choose(advance(decoder, {0: text})[0])) is not None:
            yield token
        if result is not None:
            result.reason = "stop"

    def continue_tokens(self, prompt: Sequence[int], how: Sampling, limit: int) -> str:
        """At most `limit` tokens after `prompt`, as text."""
        tokens: list[int] = []
        for token in self.next_tokens(prompt, how):
            tokens.append(token)
            if len(tokens) == limit:
                break
        return self.tokenizer.decode(tokens)

    def stream(
        self,
        prompt: str,
        how: Sampling | None = None,
        max_tokens: int | None = None,
        stop: Sequence[str] = (),
        result: Generated | None = None,
    ) -> Iterator[str]:
        """Pieces of the continuation of `prompt`, as soon as they are certain (see `Pieces`).

        `result` is filled with all tokens and the reason of the end.
        """
        result = Generated([], "length") if result is None else result
        result.reason = "length"
        how = how or self.sampling()
        limit = max_tokens or self.defaults.max_tokens
        pieces = Pieces(self.tokenizer, stop)
        for token in self.next_tokens(self.tokenizer.encode(prompt), how, result):
            result.tokens.append(token)
            if piece := pieces.add(token):
                yield piece
            if pieces.stopped:
                result.reason = "stop"
            if pieces.stopped or len(result.tokens) == limit:
                break
        if rest := pieces.rest(ended=result.reason == "stop"):
            yield rest

    def generate(self, prompt: str, how: Sampling | None = None, **options: Any) -> str:
        """The continuation of `prompt` as one string. Options as for `stream`."""
        return "".join(self.stream(prompt, how, **options))

    def beams(
        self,
        prompt: str,
        width: int,
        best: int = 1,
        max_tokens: int | None = None,
        stop: Sequence[str] = (),
        alpha: float = 0.6,
        how: Sampling | None = None,
    ) -> list[Hypothesis]:
        """The `best` most likely continuations of `prompt` that a beam search of `width` finds (see beam.py).

        A hypothesis that ends with a stop string holds its tokens. Of `how` only the lattice counts: nothing is
        drawn.
        """
        t = self.tokenizer
        stops = [string.encode() for string in stop]
        longest = max(map(len, stops), default=0)  # each token has a byte at least

        def ended(tokens: list[int]) -> bool:
            end = t.decode_bytes(tokens[-longest:]) if stops else b""
            return any(string in end for string in stops)

        return beam_search(
            self.decoder.fresh(width),
            [t.bos, *t.encode(prompt)],
            width,
            max_tokens or self.defaults.max_tokens,
            t.eos,
            hidden=self._hidden,
            alpha=alpha,
            best=best,
            neighbours=self.neighbours(how) if how else None,
            ended=ended,
        )

    def sampling(self, **changes: Any) -> Sampling:
        """The model's default sampling, with the changes that are not None."""
        names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
        values: dict[str, Any] = {name: getattr(self.defaults, name) for name in names}
        values.update({name: value for name, value in changes.items() if value is not None})
        try:
            Generation.model_validate({name: values[name] for name in names} | {"max_tokens": 1})
        except ValidationError as error:
            problems = [f"{item['loc'][0]} = {item['input']!r}: {item['msg']}" for item in error.errors()]
            raise UserError(
                "these sampling settings cannot be used",
                "; ".join(problems),
                "see the section [generation] of docs/settings.md for the limits",
                EXIT_USAGE,
            ) from error
        return Sampling(**values)


def visible(text: str) -> str:
    """Text that is safe to show in a terminal: control characters, which could do things to it, become dots."""
    return "".join(c if c.isprintable() or c in "\n\t" else "·" for c in text)


def load(path: str | Path, precision: str | None = None) -> LanguageModel:
    """The newest whole model of a run folder, or that of one checkpoint folder.

    precision: of its weights while it generates: "fp32", "bf16", "int8", "auto" for that of its training, or None for
    the run's setting.
    """
    folder = checkpoints.find(Path(path))
    tokenizer = Tokenizer.load(folder)
    model = store.read_model(folder)
    if model.shape.vocabulary != tokenizer.vocabulary_size:
        raise UserError(
            f"could not load the model in {folder}",
            f"its weights are for {model.shape.vocabulary} tokens, its tokenizer has {tokenizer.vocabulary_size}",
            "restore the folder from a backup",
            EXIT_DAMAGED,
        )
    defaults = checkpoints.generation_defaults(folder)
    precision = precision or defaults.precision
    return LanguageModel(model, tokenizer, defaults, None if precision == "auto" else precision, folder)
