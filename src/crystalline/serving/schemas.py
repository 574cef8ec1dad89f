"""Requests and answers in the form of OpenAI's API, with the fields that llama.cpp and vLLM add.

Fields that are not known are passed over, as other servers do; those that are known and cannot be followed are
refused. A field that is null is as if it was not there.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

MOST_STOPS, LONGEST_STOP = 16, 1000
MOST_ALTERNATIVES = 20


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False, protected_namespaces=())


def _strings(value: Any) -> Any:
    """One string is a list of one."""
    return [value] if isinstance(value, str) else value


def _prompts(value: Any) -> Any:
    """Several prompts, all texts or all lists of tokens; one is a list of one."""
    if isinstance(value, str) or (isinstance(value, list) and value and all(_is_token(item) for item in value)):
        return [value]
    if isinstance(value, list) and value:
        texts = all(isinstance(item, str) for item in value)
        if texts or all(isinstance(item, list) and all(_is_token(token) for token in item) for item in value):
            return value
    raise ValueError("give a text, a list of texts, a list of token numbers or a list of such lists")


def _is_token(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**31


def _only(*neutral: Any) -> BeforeValidator:
    """A field that may be there only with a value that asks for nothing."""

    def check(value: Any) -> None:
        if value is not None and not any(type(value) is type(one) and value == one for one in neutral):
            raise ValueError("this server cannot do that; leave it out")

    return BeforeValidator(check)


Stop = Annotated[str, Field(min_length=1, max_length=LONGEST_STOP)]
Token = Annotated[int, Field(ge=0, lt=2**31)]


class StreamOptions(_Part):
    """What a stream has besides text."""

    include_usage: bool | None = None


class _Request(_Part):
    """What both kinds of request have."""

    model: str = Field(min_length=1, max_length=1000)
    n: int | None = Field(None, ge=1, le=128)
    temperature: float | None = Field(None, ge=0, le=10)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=-1, le=1_000_000_000)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, ge=0.1, le=10)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = Field(None, max_length=1024)
    seed: int | None = Field(None, ge=-(2**63), lt=2**64)
    stop: Annotated[list[Stop] | None, BeforeValidator(_strings)] = Field(None, max_length=MOST_STOPS)
    max_tokens: int | None = Field(None, ge=0)
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @model_validator(mode="after")
    def _options_are_of_a_stream(self) -> _Request:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options: only a stream has options")
        return self

    @property
    def with_usage(self) -> bool:
        """Whether a stream ends with the counts of tokens."""
        return bool(self.stream_options and self.stream_options.include_usage)


class CompletionRequest(_Request):
    """POST /v1/completions: a text is continued. prompt: one, or a list, of text or tokens."""

    prompt: Annotated[list[str] | list[list[Token]], BeforeValidator(_prompts)] = Field(min_length=1)
    echo: bool | None = None
    logprobs: int | None = Field(None, ge=0, le=MOST_ALTERNATIVES)
    best_of: Annotated[None, _only(1)] = None
    suffix: Annotated[None, _only("")] = None


class TextPart(_Part):
    """A message may be in parts; only text is understood."""

    type: Literal["text"]
    text: str


class Message(_Part):
    """What was said, and by whom. All become paragraphs of one text."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]

    @property
    def text(self) -> str:
        """All of it."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class _PlainText(_Part):
    type: Literal["text"]


class ChatRequest(_Request):
    """POST /v1/chat/completions: the next paragraph of a conversation."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=0)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MOST_ALTERNATIVES)
    response_format: _PlainText | None = None
    tools: Annotated[None, _only([])] = None
    functions: Annotated[None, _only([])] = None
    tool_choice: Annotated[None, _only("none", "auto")] = None

    @model_validator(mode="after")
    def _alternatives_are_of_tokens(self) -> ChatRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs: needs logprobs to be true")
        return self


# --- answers ----------------------------------------------------------------------------------------------------


class Problem(BaseModel):
    """What was wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(BaseModel):
    """The body of every answer with a status from 400 up."""

    error: Problem


class ModelCard(BaseModel):
    """A model that can be asked for."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "crystalline"
    max_model_len: int


class ModelList(BaseModel):
    """All of them."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class Usage(BaseModel):
    """How many tokens were read and written."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class CompletionLogprobs(BaseModel):
    """Of each token: text, log-probability, the most likely ones, and where its text begins."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class CompletionChoice(BaseModel):
    """One text."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Literal["stop", "length"] | None


class Completion(BaseModel):
    """The answer of /v1/completions, or a part of it in a stream."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: Usage | None = None


class TokenLogprob(BaseModel):
    """A token and how likely it was. bytes: its text in UTF-8, of which it may have a part only."""

    token: str
    logprob: float
    bytes: list[int]


class ChosenLogprob(TokenLogprob):
    """One that came, with the most likely ones in its place."""

    top_logprobs: list[TokenLogprob]


class ChatLogprobs(BaseModel):
    """Of each token of an answer."""

    content: list[ChosenLogprob]
    refusal: None = None


class Answer(BaseModel):
    """A message of the model."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(BaseModel):
    """One answer."""

    index: int
    message: Answer
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length"]


class ChatCompletion(BaseModel):
    """The answer of /v1/chat/completions."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: Usage


class ChatDeltaChoice(BaseModel):
    """More of one answer. delta: role, content, both or none."""

    index: int
    delta: dict[str, str]
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length"] | None


class ChatChunk(BaseModel):
    """A part of a streamed answer of /v1/chat/completions."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatDeltaChoice]
    usage: Usage | None = None


class ModelHealth(BaseModel):
    """How one model is doing."""

    id: str
    checkpoint: str | None
    step: int
    precision: str | None
    context: int | None
    slots: int
    running: int
    waiting: int


class Health(BaseModel):
    """How the server is doing. status: ok, loading or stopping."""

    status: Literal["ok", "loading", "stopping"]
    models: list[ModelHealth]


def spelled(data: bytes) -> str:
    """The text of a token; one that is no whole characters as OpenAI writes it: bytes:\\xe2\\x80."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)
