"""A trained model that continues text: loading it, the token loop with its cache, streaming of whole characters."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from crystalline.errors import EXIT_DAMAGED, EXIT_USAGE, UserError
from crystalline.model import checkpoints, store
from crystalline.model.sampling import Sampling, choose
from crystalline.model.transformer import KVCache, Transformer
from crystalline.settings import Generation
from crystalline.tokens.tokenizer import Tokenizer


@dataclass
class Generated:
    """What a generation ended with. reason: "stop" (end of text or a stop string) or "length"."""

    tokens: list[int]
    reason: str


class LanguageModel:
    """A network with its tokenizer. Make one with `crystalline.load(RUN)`."""

    def __init__(self, model: Transformer, tokenizer: Tokenizer, defaults: Generation) -> None:
        self.model, self.tokenizer, self.defaults = model, tokenizer, defaults
        # Tokens that are structure, not text. Training never shows them as targets, except eos.
        self._hidden = [t for t in range(tokenizer.vocabulary_size) if tokenizer.is_special(t)]
        self._hidden.remove(tokenizer.eos)

    @torch.inference_mode()
    def next_tokens(self, prompt: Sequence[int], how: Sampling, result: Generated | None = None) -> Iterator[int]:
        """Tokens after `prompt`, one by one, until the end of the text. The caller stops when it has enough.

        Text longer than the context is continued from its last part: when the context is full, its second
        half is read again and generation goes on.
        """
        context = self.model.shape.context
        generator = torch.Generator().manual_seed(how.seed)
        tokens = [self.tokenizer.bos, *prompt]
        window = tokens[-(context - 1) :]
        cache = KVCache(self.model.shape, 1, self.model.dtype)
        while True:
            logits = self.model(torch.tensor([window]), cache, last_only=True)[0, -1]
            logits[self._hidden] = -torch.inf
            token = choose(logits, tokens, how, generator)
            if token == self.tokenizer.eos:
                if result is not None:
                    result.reason = "stop"
                return
            tokens.append(token)
            yield token
            window = [token]
            if cache.length == context:
                window = tokens[-(context // 2) :]
                cache.length = 0

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
        """Pieces of the continuation of `prompt`, as soon as they are certain.

        A character whose bytes are not all there, and text that may be the start of a stop string, is held back.
        `result` is filled with all tokens and the reason of the end.
        """
        result = Generated([], "length") if result is None else result
        result.reason = "length"
        how = how or self.sampling()
        limit = max_tokens or self.defaults.max_tokens
        characters = codecs.getincrementaldecoder("utf-8")("replace")
        held = ""
        for token in self.next_tokens(self.tokenizer.encode(prompt), how, result):
            result.tokens.append(token)
            held += characters.decode(self.tokenizer.token_bytes(token))
            found = [place for place in (held.find(s) for s in stop) if place >= 0]
            if found:
                result.reason = "stop"
                held = held[: min(found)]
                break
            sure = len(held) - _possible_start(held, stop)
            if sure:
                yield held[:sure]
                held = held[sure:]
            if len(result.tokens) == limit:
                break
        else:
            held += characters.decode(b"", final=True)
        if held:
            yield held

    def generate(self, prompt: str, how: Sampling | None = None, **options: Any) -> str:
        """The continuation of `prompt` as one string. Options as for `stream`."""
        return "".join(self.stream(prompt, how, **options))

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


def _possible_start(text: str, stop: Sequence[str]) -> int:
    """How many characters at the end of `text` could be the beginning of a stop string."""
    longest = 0
    for string in stop:
        for length in range(min(len(string) - 1, len(text)), longest, -1):
            if text.endswith(string[:length]):
                longest = length
                break
    return longest


def load(path: str | Path) -> LanguageModel:
    """The newest whole model of a run folder, or that of one checkpoint folder."""
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
    return LanguageModel(model, tokenizer, checkpoints.generation_defaults(folder))
