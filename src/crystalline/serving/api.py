"""The HTTP interface: OpenAI's models, completions and chat, and /health and /metrics."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

from fastapi import FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from crystalline import __version__
from crystalline.model.chat_text import END_OF_TURN, render
from crystalline.model.generation import LanguageModel
from crystalline.model.sampling import Sampling
from crystalline.serving import bodies, refusals, schemas
from crystalline.serving.answers import ChatAnswer, CompletionAnswer, answered
from crystalline.serving.engine import Full, Job
from crystalline.serving.exchange import Exchange, Gone
from crystalline.serving.guards import Counted, Keys
from crystalline.serving.metrics import CONTENT_TYPE, Metrics
from crystalline.serving.models import Loaded, Models, ServedModel
from crystalline.serving.refusals import FAILED, Refusal, wrong
from crystalline.serving.schemas import ChatRequest, CompletionRequest
from crystalline.settings import Serving

REFUSALS = {400: "the request is wrong", 401: "no valid key", 404: "no such model or path", 405: "another method",
            408: "the body did not come", 413: "the body is too large", 415: "the body is not JSON",
            429: "too many texts wait", 503: "not ready, or too busy"}  # fmt: skip
# An answer may also come as a stream of events.
STREAM: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {}}}}


def make(models: Models, settings: Serving, metrics: Metrics, keys: Sequence[str] = ()) -> FastAPI:
    """The application. keys: who has one of them may ask; none: everybody."""
    app = FastAPI(
        title="crystalline",
        version=__version__,
        docs_url=None,  # its page would load programs from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        responses={status: {"model": schemas.ErrorAnswer, "description": text} for status, text in REFUSALS.items()},
    )
    _add_routes(app, models, settings, metrics)
    _add_refusals(app)
    _describe_bodies(app)
    if keys:
        app.add_middleware(Keys, keys=keys)
    if settings.cors:
        app.add_middleware(CORSMiddleware, allow_origins=settings.cors, allow_methods=["*"], allow_headers=["*"])
    app.add_middleware(Counted, metrics=metrics)
    return app


def _add_routes(app: FastAPI, models: Models, settings: Serving, metrics: Metrics) -> None:
    def served(name: str) -> ServedModel:
        if models.leaving:
            raise refusals.not_now("the server is being stopped")
        model = models.all.get(name)
        if model is None:
            known = ", ".join(models.all)
            raise Refusal(404, f"there is no model '{name[:100]}' here, but {known}", "model_not_found", "model")
        if model.current is None:
            raise refusals.not_now(f"the model '{name}' is being loaded")
        return model

    def card(model: ServedModel) -> schemas.ModelCard:
        assert model.current is not None
        return schemas.ModelCard(id=model.name, created=model.current.created, max_model_len=model.current.context)

    @app.get("/v1/models", response_model=schemas.ModelList)
    async def list_models() -> schemas.ModelList:
        return schemas.ModelList(data=[card(model) for model in models.all.values() if model.current])

    @app.get("/v1/models/{name:path}", response_model=schemas.ModelCard)
    async def show_model(name: str) -> schemas.ModelCard:
        return card(served(name))

    @app.post(
        "/v1/completions", response_model=schemas.Completion, responses=STREAM, openapi_extra=_body(CompletionRequest)
    )
    async def complete(request: Request) -> Response:
        asked = await bodies.read(request, CompletionRequest, settings.max_body_bytes)
        exchange = Exchange(request)

        def jobs(loaded: Loaded) -> list[Job]:
            prompts = [_tokens(prompt, loaded, settings, "prompt") for prompt in asked.prompt]
            rest = _options(asked, loaded.engine.model, settings, asked.max_tokens)
            return [
                Job(
                    prompt,
                    deliver=exchange.deliver(number),
                    echo=bool(asked.echo),
                    alternatives=asked.logprobs,
                    **rest,
                )
                for number, prompt in enumerate(prompts)
            ]

        answer = CompletionAnswer(asked, _submit(served(asked.model), jobs, exchange, settings), exchange)
        return await answered(answer, exchange, bool(asked.stream))

    @app.post(
        "/v1/chat/completions",
        response_model=schemas.ChatCompletion,
        responses=STREAM,
        openapi_extra=_body(ChatRequest),
    )
    async def chat(request: Request) -> Response:
        asked = await bodies.read(request, ChatRequest, settings.max_body_bytes)
        exchange = Exchange(request)

        def jobs(loaded: Loaded) -> list[Job]:
            text = render([message.text for message in asked.messages if message.text.strip()])
            limit = asked.max_tokens if asked.max_completion_tokens is None else asked.max_completion_tokens
            rest = _options(asked, loaded.engine.model, settings, limit)
            rest["stop"] = [END_OF_TURN, *rest["stop"]]
            alternatives = (asked.top_logprobs or 0) if asked.logprobs else None
            prompt = _tokens(text, loaded, settings, "messages")
            return [Job(prompt, deliver=exchange.deliver(0), alternatives=alternatives, **rest)]

        answer = ChatAnswer(asked, _submit(served(asked.model), jobs, exchange, settings), exchange)
        return await answered(answer, exchange, bool(asked.stream))

    @app.get("/health", response_model=schemas.Health, responses={503: {"model": schemas.Health}})
    async def health() -> Response:
        status: Literal["ok", "loading", "stopping"] = (
            "stopping" if models.leaving else "ok" if models.ready else "loading"
        )
        found = schemas.Health(status=status, models=[_health(model, settings) for model in models.all.values()])
        return JSONResponse(found.model_dump(), 200 if status == "ok" else 503)

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def measures() -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE)


def _health(model: ServedModel, settings: Serving) -> schemas.ModelHealth:
    now = model.current
    return schemas.ModelHealth(
        id=model.name,
        checkpoint=now.folder.name if now else None,
        step=now.step if now else 0,
        precision=now.engine.model.decoder.precision if now else None,
        context=now.context if now else None,
        slots=settings.slots,
        running=model.running,
        waiting=model.waiting,
    )


# --- from a request to jobs -------------------------------------------------------------------------------------


def _submit(model: ServedModel, jobs: Callable[[Loaded], list[Job]], exchange: Exchange, settings: Serving) -> Loaded:
    def made(loaded: Loaded) -> list[Job]:
        exchange.jobs = result = jobs(loaded)
        texts = sum(job.n for job in result)
        if texts > settings.slots + settings.queue:
            raise wrong("prompt", f"{texts} texts are more than this server takes at once")
        return result

    try:
        return model.submit(made)
    except Full:
        raise refusals.busy("too many texts are being written and wait: try again in a moment") from None


def _tokens(prompt: str | list[int], loaded: Loaded, settings: Serving, param: str) -> list[int]:
    """A prompt's tokens, as many as fit beside the mark of the beginning and the token to come."""
    tokenizer, room = loaded.engine.model.tokenizer, loaded.context - 2
    if isinstance(prompt, str):
        # Cutting a long text into tokens would hold up all others, only to find that it is too long.
        longest = room * loaded.longest_token
        if len(prompt) > longest and settings.long_prompts == "refuse":
            raise _too_long(f"{len(prompt):,} characters", room, param)
        tokens = tokenizer.encode(prompt[-longest:])
    else:
        tokens = prompt
        if max(tokens, default=0) >= tokenizer.vocabulary_size:
            raise wrong(param, f"tokens are numbers from 0 to {tokenizer.vocabulary_size - 1}")
    if len(tokens) > room and settings.long_prompts == "refuse":
        raise _too_long(f"{len(tokens):,} tokens", room, param)
    return tokens[-room:]


def _too_long(found: str, room: int, param: str) -> Refusal:
    message = f"{param} has {found}, and the context of this model has room for {room} tokens"
    return Refusal(400, message, "context_length_exceeded", param)


def _options(
    asked: CompletionRequest | ChatRequest, model: LanguageModel, settings: Serving, limit: int | None
) -> dict[str, Any]:
    """What the jobs of a request have in common. What it does not say is as the model was made to do."""
    n = asked.n or 1
    if n > settings.slots:
        raise wrong("n", f"this server writes at most {settings.slots} texts at once")
    limit = min(model.defaults.max_tokens, settings.max_tokens) if limit is None else limit
    if limit > settings.max_tokens:
        raise wrong("max_tokens", f"this server writes at most {settings.max_tokens}")
    return {
        "how": _sampling(asked, model),
        "max_tokens": limit,
        "n": n,
        "stop": asked.stop or [],
        "in_parts": bool(asked.stream),
        "presence": asked.presence_penalty or 0.0,
        "frequency": asked.frequency_penalty or 0.0,
        "bias": _bias(asked.logit_bias or {}, model.tokenizer.vocabulary_size),
        "deadline": time.monotonic() + settings.timeout,
    }


def _sampling(asked: CompletionRequest | ChatRequest, model: LanguageModel) -> Sampling:
    seed = secrets.randbits(63) if asked.seed is None else asked.seed % 2**64
    return model.sampling(
        temperature=asked.temperature,
        top_k=None if asked.top_k is None else max(asked.top_k, 0),  # others write -1 for all
        top_p=None if asked.top_p is None else max(asked.top_p, 1e-9),  # 0: the most likely one only
        min_p=asked.min_p,
        repetition_penalty=asked.repetition_penalty,
        seed=seed,
    )


def _bias(given: dict[str, float], vocabulary: int) -> dict[int, float]:
    for token in given:
        if not (token.isascii() and token.isdigit() and int(token[:20]) < vocabulary):
            raise wrong("logit_bias", f"its names are numbers of tokens, from 0 to {vocabulary - 1}")
    return {int(token): bias for token, bias in given.items()}


# --- errors, and the description of the interface -----------------------------------------------------------------


def _add_refusals(app: FastAPI) -> None:
    def answer(refusal: Refusal) -> JSONResponse:
        return JSONResponse(refusal.body(), refusal.status, refusal.headers)

    @app.exception_handler(Refusal)
    async def refused(_: Request, refusal: Refusal) -> JSONResponse:
        return answer(refusal)

    @app.exception_handler(HTTPException)
    async def routing(request: Request, error: HTTPException) -> JSONResponse:
        path = request.url.path[:200]
        if error.status_code == 405:
            message, code = f"{request.method} is not for {path}", "method_not_allowed"
        else:
            message, code = f"there is nothing at {path}", "not_found"
        return answer(Refusal(error.status_code, message, code, headers=error.headers))

    @app.exception_handler(Gone)
    @app.exception_handler(ClientDisconnect)
    async def nobody(_: Request, __: Exception) -> Response:
        return Response(status_code=499)  # as nginx counts it; nobody reads it

    @app.exception_handler(Exception)
    async def failed(_: Request, __: Exception) -> JSONResponse:
        return answer(FAILED)


def _body(kind: type[BaseModel]) -> dict[str, Any]:
    """For the description: bodies are read by `bodies.read`, of which FastAPI knows nothing."""
    schema = {"$ref": f"#/components/schemas/{kind.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _describe_bodies(app: FastAPI) -> None:
    def describe() -> dict[str, Any]:
        if app.openapi_schema is None:
            described = get_openapi(title=app.title, version=app.version, routes=app.routes)
            kinds: list[tuple[type[BaseModel], Literal["validation"]]] = [
                (CompletionRequest, "validation"), (ChatRequest, "validation"),
            ]  # fmt: skip
            _, definitions = models_json_schema(kinds, ref_template="#/components/schemas/{model}")
            described["components"]["schemas"].update(definitions["$defs"])
            app.openapi_schema = described
        return app.openapi_schema

    app.openapi = describe  # type: ignore[method-assign]
