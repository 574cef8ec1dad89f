"""What the server answers when it does not do what was asked, in OpenAI's form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Refusal(Exception):
    """A request that gets an error for an answer.

    status: of HTTP. code: for programs, None where OpenAI has none. param: the field that was wrong, if it was one.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.headers = dict(headers or {})

    @property
    def kind(self) -> str:
        """OpenAI's type of it."""
        return {401: "authentication_error", 429: "rate_limit_error"}.get(
            self.status, "server_error" if self.status >= 500 else "invalid_request_error"
        )

    def body(self) -> dict[str, Any]:
        """As JSON."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}


def wrong(param: str, message: str, code: str | None = "invalid_value") -> Refusal:
    """A field that cannot be used as it is."""
    return Refusal(400, f"{param}: {message}", code, param)


def busy(message: str) -> Refusal:
    """Come again later."""
    return Refusal(429, message, "rate_limit_exceeded", headers={"Retry-After": "1"})


def not_now(message: str) -> Refusal:
    """The server cannot answer yet, or any more."""
    return Refusal(503, message, "unavailable", headers={"Retry-After": "1"})


FAILED = Refusal(500, "the server failed; its log says how", "internal_error")
