"""Crawler: the loop that asks the frontier what to fetch and Scrapy's downloader to fetch it.

Scrapy gives connections, TLS, time and size limits, and unpacking. What must outlive a crash is not Scrapy's: the
queue, the URLs seen, redirects, retries, delays and robots.txt are the frontier's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from scrapy import Request, Spider, signals
from scrapy.core.downloader.handlers.http11 import HTTP11DownloadHandler
from scrapy.crawler import AsyncCrawlerProcess, Crawler
from scrapy.exceptions import (
    CannotResolveHostError,
    DownloadCancelledError,
    DownloadConnectionRefusedError,
    DownloadFailedError,
    DownloadTimeoutError,
    IgnoreRequest,
    ResponseDataLossError,
    StopDownload,
)
from scrapy.http import Response

from crystalline.corpus.crawl import urls
from crystalline.corpus.crawl.addresses import Resolver
from crystalline.corpus.crawl.answers import Answer, meaning, wanted_by_header
from crystalline.corpus.crawl.frontier import Frontier
from crystalline.corpus.crawl.outcomes import Claim, Failure, Outcome, Skip, Wait
from crystalline.corpus.crawl.scope import PRIVATE
from crystalline.settings import Crawl

LOOK_SECONDS = 0.5  # how often it is looked whether others have added something, or want an end
SHORTEST_WAIT = 0.002
MIDDLEWARES = "scrapy.downloadermiddlewares"


def fetch_all(frontier: Frontier, user_agent: str, stopped: Callable[[], bool]) -> tuple[str, float]:
    """Fetch until nothing is left ("finished"), what is left must wait long ("put off", seconds), or it is "stopped".

    Once in a process: Twisted's reactor cannot be started again.
    """
    process = AsyncCrawlerProcess(_scrapy_settings(frontier.settings, user_agent))
    result = _Result()
    process.crawl(_Fetcher, frontier=frontier, stopped=stopped, result=result)
    process.start(install_signal_handlers=False)
    if result.error is not None:
        raise result.error
    return result.ended, result.seconds


class Handler(HTTP11DownloadHandler):
    """Scrapy's, without Twisted's own second try on a kept connection, which would not wait for the delay."""

    def __init__(self, crawler: Crawler) -> None:
        super().__init__(crawler)
        self._pool.retryAutomatically = False


class _Result:
    ended, seconds = "stopped", 0.0
    error: BaseException | None = None


class _Fetcher(Spider):
    """A spider that has only a beginning: the whole loop."""

    name = "crystalline"
    frontier: Frontier
    stopped: Callable[[], bool]
    result: _Result

    async def start(self) -> AsyncIterator[Any]:
        """Called by Scrapy when all is ready."""
        from twisted.internet import reactor

        self._refused: set[str] = set()
        inner: Any = reactor
        inner.installNameResolver(
            Resolver(inner.nameResolver, lambda: self.frontier.scope.may_be_private, self._refused.add)
        )
        self.crawler.signals.connect(self._look_at_headers, signals.headers_received)
        try:
            self.result.ended, self.result.seconds = await self._loop()
        except Exception as error:
            self.result.error = error
        nothing: tuple[Any, ...] = ()
        for request in nothing:  # this makes it the generator that Scrapy wants
            yield request

    async def _loop(self) -> tuple[str, float]:
        frontier, settings = self.frontier, self.frontier.settings
        tasks: dict[asyncio.Task[None], int] = {}
        try:
            while not self.stopped():
                wait: float | None = None
                while len(tasks) < settings.concurrency:
                    claim = frontier.claim(time.time())
                    if isinstance(claim, Wait):
                        wait = claim.seconds
                        if wait is None and not tasks and not self._others():
                            return "finished", 0.0
                        break
                    tasks[asyncio.create_task(self._fetch(claim))] = claim.id
                if not tasks and wait is not None and wait > settings.patience + frontier.longest_delay():
                    return "put off", wait
                seconds = max(SHORTEST_WAIT, min(LOOK_SECONDS if wait is None else wait, LOOK_SECONDS))
                if tasks:
                    done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        del tasks[task]
                        task.result()
                else:
                    await asyncio.sleep(seconds)
            return "stopped", 0.0
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            frontier.release(tasks.values())

    def _others(self) -> bool:
        """Whether another worker is fetching; what a dead one was fetching is to be fetched again."""
        return self.frontier.release_dead() > 0 or self.frontier.others_fetch()

    async def _fetch(self, claim: Claim) -> None:
        began = time.time()
        outcome = await self._ask(claim)
        self.frontier.finish(claim, outcome, time.time(), time.time() - began)

    async def _ask(self, claim: Claim) -> Outcome:
        headers = {"If-None-Match": claim.etag, "If-Modified-Since": claim.modified}
        request = Request(
            claim.address,
            headers={name: value for name, value in headers.items() if value},
            meta={"kind": claim.kind, "download_timeout": self.frontier.settings.timeout},
        )
        try:
            response = await self.crawler.engine.download_async(request)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            host = urls.host(claim.address)
            if isinstance(error, CannotResolveHostError) and host in self._refused:
                return Failure(PRIVATE) if claim.kind == "robots" else Skip(PRIVATE, 0)
            return failure_of(error)
        return meaning(claim, _answer(response), self.frontier.settings, self.frontier.agent)

    def _look_at_headers(self, headers: Any, request: Request, **_: Any) -> None:
        """Do not take the body of what is not wanted anyway."""
        kind = (headers.get("Content-Type") or b"").decode("latin-1")
        if request.meta["kind"] == "page" and not wanted_by_header(kind, self.frontier.settings):
            raise StopDownload(fail=False)


def failure_of(error: BaseException) -> Outcome:
    """What an error of the downloader means."""
    match error:
        case DownloadTimeoutError():
            return Failure("no answer in time", again=True, dead=True)
        case DownloadConnectionRefusedError():
            return Failure("connection refused", again=True, dead=True)
        case CannotResolveHostError():
            return Failure("unknown host", again=True, dead=True)
        case ResponseDataLossError():
            return Failure("answer cut off", again=True)
        case DownloadCancelledError() | IgnoreRequest():  # by the size limit: on the way, or while unpacking
            return Skip("too large")
        case DownloadFailedError() if "certificate" in repr(error).lower() or "Verification" in repr(error):
            return Failure("certificate")
        case DownloadFailedError():
            return Failure("connection lost", again=True)
    return Failure("broken answer", again=True)


def _answer(response: Response) -> Answer:
    headers = {
        name.decode("latin-1").lower(): [_text(value) for value in values]
        for name, values in response.headers.items()
    }
    return Answer(response.status, headers, response.body, stopped="download_stopped" in response.flags)


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _scrapy_settings(settings: Crawl, user_agent: str) -> dict[str, Any]:
    handler = f"{__name__}.{Handler.__name__}"
    return {
        "USER_AGENT": user_agent,
        "CONCURRENT_REQUESTS": settings.concurrency,
        "CONCURRENT_REQUESTS_PER_DOMAIN": settings.per_host,
        "DOWNLOAD_DELAY": 0,  # the frontier's, since it must hold over restarts and among workers
        "DOWNLOAD_MAXSIZE": settings.max_bytes,
        "DOWNLOAD_WARNSIZE": 0,
        "DOWNLOAD_VERIFY_CERTIFICATES": settings.verify_certificates,
        "DOWNLOAD_HANDLERS_BASE": {"http": handler, "https": handler},  # no file:, ftp:, data:
        "DOWNLOADER_MIDDLEWARES_BASE": {
            f"{MIDDLEWARES}.defaultheaders.DefaultHeadersMiddleware": 400,
            f"{MIDDLEWARES}.useragent.UserAgentMiddleware": 500,
            f"{MIDDLEWARES}.httpcompression.HttpCompressionMiddleware": 590,
        },
        "DEFAULT_REQUEST_HEADERS": {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"},
        "SPIDER_MIDDLEWARES_BASE": {},
        "EXTENSIONS_BASE": {},
        "TWISTED_DNS_RESOLVER": "scrapy.resolver.CachingHostnameResolver",
        "LOG_ENABLED": False,
        "LOG_INSTALL_ROOT_HANDLER": False,
    }
