"""What stands before every request: keys, and the count of what was answered."""

from __future__ import annotations

import hashlib
import hmac
import logging
import time
from collections.abc import Sequence

from h11 import LocalProtocolError
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from crystalline.serving.metrics import Metrics
from crystalline.serving.refusals import Refusal

log = logging.getLogger("crystalline.serving")
KNOWN = ("/v1/models", "/v1/completions", "/v1/chat/completions", "/health", "/metrics", "/openapi.json")


class Keys:
    """Lets nobody without a key to /v1 and /metrics. Comparing takes as long for a wrong key as for a right one."""

    def __init__(self, app: ASGIApp, keys: Sequence[str]) -> None:
        self._app = app
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(("/v1", "/metrics")) and not self._allowed(scope):
            refusal = Refusal(401, "give a valid key: Authorization: Bearer KEY", "invalid_api_key")
            headers = {"WWW-Authenticate": "Bearer"}
            await JSONResponse(refusal.body(), refusal.status, headers)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _allowed(self, scope: Scope) -> bool:
        scheme, _, key = Headers(scope=scope).get("authorization", "").partition(" ")
        digest = hashlib.sha256(key.strip().encode("latin-1", "replace")).digest()
        matches = [hmac.compare_digest(digest, known) for known in self._digests]  # all of them, each time
        return any(matches) and scheme.lower() == "bearer"


class Counted:
    """Counts requests by path and status, and logs them for -v."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, began, path = 500, time.monotonic(), scope["path"]

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except LocalProtocolError:
            status = 400  # uvicorn has answered: the rest of the request was no HTTP
        finally:
            known = path if path in KNOWN else "/v1/models/{id}" if path.startswith("/v1/models/") else "other"
            self._metrics.requests.labels(known, str(status)).inc()
            seconds = time.monotonic() - began
            log.debug("%s %s %d, %.3f s", scope["method"], path.encode("unicode_escape").decode(), status, seconds)
