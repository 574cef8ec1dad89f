"""Crawler: starts the process that fetches, watches it, and hands on what the user says."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from crystalline import __version__
from crystalline.corpus.crawl import standing, urls
from crystalline.corpus.crawl.frontier import Frontier
from crystalline.corpus.crawl.scope import Scope
from crystalline.corpus.crawl.worker import Order
from crystalline.errors import EXIT_USAGE, UserError
from crystalline.settings import Crawl

LOOK_SECONDS = 0.2
PACKAGES = str(Path(__file__).parents[3])  # the folder that this package is in


def start_url(text: str) -> str:
    """The normal form of a URL that a user typed; "https://" may be left out. Raises UserError."""
    try:
        return urls.normal(text if "://" in text else f"https://{text}")
    except urls.Unusable as error:
        raise UserError(
            f"could not crawl {text}", str(error), "give a URL such as https://example.org", EXIT_USAGE
        ) from None


def user_agent(settings: Crawl) -> str:
    """What we call ourselves."""
    contact = f" (+{settings.contact})" if settings.contact else ""
    return settings.user_agent or f"crystalline/{__version__}{contact}"


def crawl(
    folder: Path,
    starts: Sequence[str],
    settings: Crawl,
    *,
    again: bool = False,
    retry: bool = False,
    join: bool = False,
    verbose: bool = False,
    watch: Callable[[dict[str, Any]], None] = lambda _: None,
    stopped: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Crawl into `folder`, or go on with the crawl that is there; returns the facts (`standing.facts`) at the end.

    starts: start URLs in normal form, added to those that are known. again: look at all pages anew (without it: at
    those older than `settings.again_after`). retry: try again what failed. join: crawl along with another process.
    watch: is given the facts now and then. stopped: is asked now and then; when true, the work is saved and ended.
    In the facts `ended` is finished, full (`max_pages` are stored), stopped, or put off: hosts asked for a wait that
    is longer than `settings.patience`, of `wait` seconds.
    Raises UserError.
    """
    Scope(settings, [])  # rules that cannot be read are told of now
    order = Order(
        str(folder), list(starts), settings.model_dump(exclude_defaults=True), user_agent(settings),
        again, retry, join, verbose,
    )  # fmt: skip
    # The package is found where ours is, and nothing in the current folder is taken for a module (-P).
    path = os.pathsep.join(filter(None, [PACKAGES, os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "crystalline.corpus.crawl.worker"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    frontier: Frontier | None = None
    try:
        process.stdin.write(json.dumps(asdict(order)).encode() + b"\n")
        process.stdin.flush()
        told = False
        while process.poll() is None:
            if stopped() and not told:
                process.terminate()
                told = True
            with suppress(UserError, sqlite3.Error):  # not there yet, or being made
                frontier = frontier or Frontier(folder)
                watch(standing.facts(frontier))
            with suppress(subprocess.TimeoutExpired):
                process.wait(LOOK_SECONDS)
        line = process.stdout.read()
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
        if frontier is not None:
            frontier.close()
    if not line:
        raise UserError(
            f"could not finish the crawl in {folder}",
            f"the process that fetches ended unexpectedly (exit code {process.returncode})",
            "give the same command again: it goes on where it was",
        )
    result = json.loads(line)
    if "error" in result:
        raise UserError(*result["error"])
    return {**standing.facts_of(folder), "ended": result["ended"], "wait": round(result["seconds"])}
