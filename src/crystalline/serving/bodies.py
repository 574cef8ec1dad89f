"""Reading a request's body: JSON, nothing else, and not too much of it."""

from __future__ import annotations

import asyncio
import json
from typing import Any, NoReturn, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from crystalline.serving.refusals import Refusal, wrong

Kind = TypeVar("Kind", bound=BaseModel)
READ_AWAY = 64_000_000  # bytes that are read and forgotten so that the client, still sending, sees why it is refused
SECONDS = 60.0  # for the whole body


async def read(request: Request, kind: type[Kind], limit: int) -> Kind:
    """The body as a `kind`. limit: bytes. Raises Refusal."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise Refusal(
            415, "the body must be JSON, with the header Content-Type: application/json", "unsupported_media"
        )
    try:
        async with asyncio.timeout(SECONDS):
            data = await _receive(request, limit)
    except TimeoutError:
        raise Refusal(408, f"the body did not come within {SECONDS:.0f} seconds", "timeout") from None
    value = _parse(data)
    if not isinstance(value, dict):
        raise Refusal(400, "the body must be a JSON object", "invalid_json")
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise _first_problem(error) from None


async def _receive(request: Request, limit: int) -> bytes:
    announced = request.headers.get("content-length", "0")
    too_large = Refusal(413, f"the body is larger than {limit:,} bytes", "body_too_large")
    if announced.isascii() and announced.isdigit() and int(announced[:20]) > READ_AWAY:
        raise too_large
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size <= limit:
            parts.append(part)
        elif size > READ_AWAY:
            break
    if size > limit:
        raise too_large
    return b"".join(parts)


def _parse(data: bytes) -> Any:
    try:
        value = json.loads(data.decode("utf-8"), parse_constant=_refuse_constant)
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # finds half surrogate pairs, wherever they are
    except UnicodeEncodeError:
        raise Refusal(400, "the body has half a surrogate pair, which no text can have", "invalid_unicode") from None
    except UnicodeDecodeError:
        raise Refusal(400, "the body is not UTF-8", "invalid_unicode") from None
    except RecursionError:
        raise Refusal(400, "the JSON of the body is nested too deeply", "invalid_json") from None
    except ValueError as error:
        raise Refusal(400, f"the body is no valid JSON: {error}", "invalid_json") from None
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _first_problem(error: ValidationError) -> Refusal:
    first = error.errors(include_url=False, include_input=False)[0]
    message = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:  # of several fields; the message names them
        return Refusal(400, message, "invalid_value", message.partition(":")[0])
    # Of a list the place too, but not the names that pydantic gives to alternatives.
    path = [str(part) for part in first["loc"][1:] if isinstance(part, int)]
    missing = first["type"] == "missing"
    return wrong(
        ".".join([str(first["loc"][0]), *path]), message, "missing_required_parameter" if missing else "invalid_value"
    )
