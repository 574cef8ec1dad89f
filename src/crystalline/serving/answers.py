"""From the pieces of texts to answers, at once or as streams."""

from __future__ import annotations

import json
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from typing import Any, Literal

from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel

from crystalline.model.chat_text import Answer
from crystalline.serving import schemas
from crystalline.serving.engine import Piece, TokenFacts
from crystalline.serving.exchange import Exchange, Gone
from crystalline.serving.models import Loaded
from crystalline.serving.refusals import FAILED, Refusal
from crystalline.serving.schemas import ChatRequest, CompletionRequest

Reason = Literal["stop", "length"]
DONE = "data: [DONE]\n\n"


class AnswerInParts(ABC):
    """What both kinds of answer have: who answers, and the counts of tokens."""

    prefix: str

    def __init__(self, asked: CompletionRequest | ChatRequest, loaded: Loaded, exchange: Exchange) -> None:
        self.head: dict[str, Any] = {
            "id": f"{self.prefix}-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": asked.model,
            "system_fingerprint": loaded.fingerprint,
        }
        self.with_usage = asked.with_usage
        self.tokenizer = loaded.engine.model.tokenizer
        self.count = sum(job.n for job in exchange.jobs)
        self._prompt_tokens = sum(len(job.prompt) for job in exchange.jobs)
        self._written = [0] * self.count

    def note(self, index: int, piece: Piece) -> None:
        """Count its tokens."""
        self._written[index] = piece.tokens

    def usage(self) -> schemas.Usage:
        """So far."""
        written = sum(self._written)
        return schemas.Usage(
            prompt_tokens=self._prompt_tokens, completion_tokens=written, total_tokens=self._prompt_tokens + written
        )

    def spelled(self, token: int) -> str:
        """The text of a token; special ones by their names."""
        t = self.tokenizer
        return t.special_tokens[token] if t.is_special(token) else schemas.spelled(t.token_bytes(token))

    def beginnings(self) -> list[BaseModel]:
        """What a stream begins with."""
        return []

    @abstractmethod
    def part(self, index: int, piece: Piece) -> BaseModel | None:
        """A part of a stream; None when there is nothing to tell yet."""

    @abstractmethod
    def last(self) -> BaseModel:
        """The part of a stream with the counts."""

    @abstractmethod
    def whole(self, pieces: list[list[Piece]]) -> BaseModel:
        """The answer at once, from the pieces of each text."""


class CompletionAnswer(AnswerInParts):
    """Of /v1/completions."""

    prefix = "cmpl"

    def __init__(self, asked: CompletionRequest, loaded: Loaded, exchange: Exchange) -> None:
        super().__init__(asked, loaded, exchange)
        self._tells = asked.logprobs is not None

    def part(self, index: int, piece: Piece) -> BaseModel:
        """See `AnswerInParts`."""
        return schemas.Completion(**self.head, choices=[self._choice(index, [piece])])

    def last(self) -> BaseModel:
        return schemas.Completion(**self.head, choices=[], usage=self.usage())

    def whole(self, pieces: list[list[Piece]]) -> BaseModel:
        choices = [self._choice(index, each) for index, each in enumerate(pieces)]
        return schemas.Completion(**self.head, choices=choices, usage=self.usage())

    def _choice(self, index: int, pieces: list[Piece]) -> schemas.CompletionChoice:
        return schemas.CompletionChoice(
            index=index,
            text="".join(piece.text for piece in pieces),
            logprobs=self._logprobs([fact for piece in pieces for fact in piece.facts]) if self._tells else None,
            finish_reason=_reason(pieces[-1]),
        )

    def _logprobs(self, facts: list[TokenFacts]) -> schemas.CompletionLogprobs:
        names = [self.spelled(fact.token) for fact in facts]
        return schemas.CompletionLogprobs(
            tokens=names,
            token_logprobs=[fact.log_probability for fact in facts],
            # The token that came is always among them.
            top_logprobs=[
                {self.spelled(token): value for token, value in fact.alternatives} | {name: fact.log_probability}
                for name, fact in zip(names, facts, strict=True)
            ],
            text_offset=[fact.offset for fact in facts],
        )


class ChatAnswer(AnswerInParts):
    """Of /v1/chat/completions."""

    prefix = "chatcmpl"

    def __init__(self, asked: ChatRequest, loaded: Loaded, exchange: Exchange) -> None:
        super().__init__(asked, loaded, exchange)
        self._tells = bool(asked.logprobs)
        self._answers = [Answer() for _ in range(self.count)]

    def beginnings(self) -> list[BaseModel]:
        return [self._chunk(index, {"role": "assistant", "content": ""}) for index in range(self.count)]

    def part(self, index: int, piece: Piece) -> BaseModel | None:
        text = self._answers[index].add(piece.text)
        if not (text or piece.facts or piece.reason):
            return None
        return self._chunk(index, {"content": text} if text else {}, [piece])

    def last(self) -> BaseModel:
        return schemas.ChatChunk(**self.head, choices=[], usage=self.usage())

    def whole(self, pieces: list[list[Piece]]) -> BaseModel:
        choices = []
        for index, each in enumerate(pieces):
            text = "".join(self._answers[index].add(piece.text) for piece in each)
            reason = _reason(each[-1])
            assert reason is not None
            choices.append(
                schemas.ChatChoice(
                    index=index,
                    message=schemas.Answer(content=text),
                    logprobs=self._logprobs(each),
                    finish_reason=reason,
                )
            )
        return schemas.ChatCompletion(**self.head, choices=choices, usage=self.usage())

    def _chunk(self, index: int, delta: dict[str, str], pieces: Sequence[Piece] = ()) -> schemas.ChatChunk:
        reason = _reason(pieces[-1]) if pieces else None
        choice = schemas.ChatDeltaChoice(
            index=index, delta=delta, logprobs=self._logprobs(pieces), finish_reason=reason
        )
        return schemas.ChatChunk(**self.head, choices=[choice])

    def _logprobs(self, pieces: Sequence[Piece]) -> schemas.ChatLogprobs | None:
        if not self._tells or not pieces:
            return None
        return schemas.ChatLogprobs(
            content=[
                schemas.ChosenLogprob(
                    **self._likelihood(fact.token, fact.log_probability),
                    top_logprobs=[schemas.TokenLogprob(**self._likelihood(*each)) for each in fact.alternatives],
                )
                for piece in pieces
                for fact in piece.facts
            ]
        )

    def _likelihood(self, token: int, value: float) -> dict[str, Any]:
        return {"token": self.spelled(token), "logprob": value, "bytes": list(self.tokenizer.token_bytes(token))}


def _reason(piece: Piece) -> Reason | None:
    return {"stop": "stop", "length": "length"}.get(piece.reason)  # type: ignore[return-value]


async def answered(answer: AnswerInParts, exchange: Exchange, as_stream: bool) -> Response:
    """Wait for the texts and answer with them, or begin as soon as there is a piece. Raises Refusal or Gone."""
    pieces = exchange.pieces()
    if not as_stream:
        texts: list[list[Piece]] = [[] for _ in range(answer.count)]
        async for index, piece in pieces:
            texts[index].append(piece)
            answer.note(index, piece)
        return JSONResponse(answer.whole(texts).model_dump())
    first = await anext(pieces)  # what goes wrong until here is an error of HTTP
    return StreamingResponse(
        _events(answer, first, pieces), media_type="text/event-stream",
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )  # fmt: skip


async def _events(
    answer: AnswerInParts, first: tuple[int, Piece], pieces: AsyncIterator[tuple[int, Piece]]
) -> AsyncIterator[str]:
    def event(part: BaseModel) -> str:
        # Only where counts were asked for there is a field for them, empty but in the last part.
        return f"data: {part.model_dump_json(exclude=None if answer.with_usage else {'usage'})}\n\n"

    try:
        for part in answer.beginnings():
            yield event(part)
        index, piece = first
        while True:
            answer.note(index, piece)
            if (more := answer.part(index, piece)) is not None:
                yield event(more)
            try:
                index, piece = await anext(pieces)
            except StopAsyncIteration:
                break
        if answer.with_usage:
            yield event(answer.last())
        yield DONE
    except Gone:
        return
    except Exception as error:  # too late for a status: the stream tells of it, as other servers' do
        refusal = error if isinstance(error, Refusal) else FAILED
        yield f"data: {json.dumps(refusal.body())}\n\n{DONE}"
