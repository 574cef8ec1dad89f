"""One request's texts, between the engine's thread and the event loop that answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence

from fastapi import Request

from crystalline.serving import refusals
from crystalline.serving.engine import Expired, Job, Piece


class Gone(Exception):
    """The client does not wait for an answer any more."""


class Exchange:
    """Jobs of one request, and their pieces as they come. When the client goes away the jobs are cancelled."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._loop = asyncio.get_running_loop()
        self._came: asyncio.Queue[tuple[int, Piece | Exception]] = asyncio.Queue()
        self.jobs: Sequence[Job] = ()

    def deliver(self, number: int) -> Callable[[Piece | Exception], None]:
        """What job `number` gives its pieces to, from any thread."""
        return lambda what: self._put(number, what)

    def _put(self, number: int, what: Piece | Exception) -> None:
        self._loop.call_soon_threadsafe(self._came.put_nowait, (number, what))

    async def pieces(self) -> AsyncIterator[tuple[int, Piece]]:
        """(number of the text among all, its next piece), until all have ended. Raises Refusal or Gone."""
        watch = asyncio.create_task(self._until_gone())
        try:
            unfinished = sum(job.n for job in self.jobs)
            while unfinished:
                number, what = await self._came.get()
                if isinstance(what, Expired):
                    raise refusals.not_now("the server was too busy to begin within the time of a request")
                if isinstance(what, Exception):
                    raise what
                unfinished -= bool(what.reason)
                yield number * self.jobs[0].n + what.index, what
        finally:
            self.cancel()
            watch.cancel()

    def cancel(self) -> None:
        """Free the slots."""
        for job in self.jobs:
            job.cancelled = True

    async def _until_gone(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            while (await self._request.receive())["type"] != "http.disconnect":
                pass
            self.cancel()
            self._came.put_nowait((0, Gone()))
