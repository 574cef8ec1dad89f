"""Crawler, the process that fetches.

    python -m crystalline.corpus.crawl.worker

reads one line of JSON (an `Order`) from standard input, crawls, and writes one line of JSON: how it ended. It is a
process of its own because Twisted's reactor cannot be started twice. SIGINT or SIGTERM: it gives back what it is
fetching and ends. When standard input ends, whoever started it is gone, and it ends at once.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crystalline.corpus.crawl import orders
from crystalline.corpus.crawl.database import reporting
from crystalline.corpus.crawl.frontier import Frontier
from crystalline.corpus.crawl.robots import product_token
from crystalline.corpus.crawl.slots import SLOTS, Slot
from crystalline.errors import UserError
from crystalline.settings import Crawl

LOCK_PATIENCE = 3.0  # seconds for a worker that is just ending


@dataclass(frozen=True)
class Order:
    """What a worker is to do.

    starts: in normal form. again, retry: see `Frontier.begin`. join: beside another worker, under its settings.
    """

    folder: str
    starts: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    user_agent: str = "crystalline"
    again: bool = False
    retry: bool = False
    join: bool = False
    verbose: bool = False


def work(order: Order, stopped: Callable[[], bool]) -> dict[str, Any]:
    """Carry out an order; returns how it ended: finished, full (as many pages as wanted), stopped or put off."""
    folder = Path(order.folder)
    slot = Slot.take(folder, range(2, SLOTS) if order.join else [1], 0.0 if order.join else LOCK_PATIENCE)
    with reporting(folder):
        frontier = Frontier(folder, create=not order.join, slot=slot.number)
        frontier.release_dead(mine=True)
        if order.join:
            orders.add(frontier, order.starts)
        else:
            settings = Crawl.model_validate(order.settings)
            frontier.begin(order.starts, settings, product_token(order.user_agent), order.again, order.retry)
        ended, seconds = "finished", 0.0
        if frontier.may_go_on() or frontier.others_fetch():
            from crystalline.corpus.crawl.fetching import fetch_all

            ended, seconds = fetch_all(frontier, order.user_agent, stopped)
        if ended == "finished":
            ended = frontier.end()
        frontier.close()
    slot.release()
    return {"ended": ended, "seconds": seconds}


def main() -> int:
    """Read the order, carry it out, say how it ended."""
    line = b""
    while not line.endswith(b"\n") and (more := os.read(0, 1)):
        line += more
    order = Order(**json.loads(line))
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    handler = logging.StreamHandler()
    handler.setLevel(logging.DEBUG if order.verbose else logging.CRITICAL)
    logging.getLogger().addHandler(handler)
    try:
        result = work(order, stopping.is_set)
    except UserError as error:
        result = {"error": [error.what, error.why, error.fix, error.exit_code]}
    print(json.dumps(result), flush=True)
    return 0


def _end_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
