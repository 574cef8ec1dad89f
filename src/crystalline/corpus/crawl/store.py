"""Crawler: the pages that were stored, for the stages that make text of them."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from crystalline.corpus.crawl.database import reporting
from crystalline.corpus.crawl.frontier import Frontier
from crystalline.corpus.crawl.scope import BLOCKED
from crystalline.errors import UserError

# Pages to use: stored and not blocked; not those whose canonical URL is there itself; of equal ones the shortest URL.
_USED = f"""
WITH stored AS (
  SELECT * FROM urls WHERE hash IS NOT NULL AND kind = 'page' AND reason <> '{BLOCKED}'
), own AS (
  SELECT * FROM stored s WHERE s.canonical IN ('', s.url) OR NOT EXISTS
    (SELECT 1 FROM urls c WHERE c.url = s.canonical AND c.canonical IN ('', c.url) AND c.hash IS NOT NULL
     AND c.kind = 'page' AND c.reason <> '{BLOCKED}')
), ranked AS (
  SELECT *, row_number() OVER (PARTITION BY hash ORDER BY length(url), url) AS place FROM own
)
SELECT {{columns}} FROM ranked WHERE place = 1 ORDER BY url"""


@dataclass(frozen=True)
class Page:
    """A page as it came.

    url: in normal form. media_type: what it really is ("text/html"). encoding: as Python names it, or "".
    data: its bytes, unpacked. fetched: when these bytes came, in ISO 8601, UTC.
    metadata: `main_text` (take its main text only, or everything), and where known `language`, `modified` (of the
    headers), `canonical` (the URL that the page itself names), `also_at` (URLs with the same content).
    """

    url: str
    media_type: str
    encoding: str
    data: bytes
    fetched: str
    metadata: dict[str, Any] = field(default_factory=dict)


def pages(folder: Path) -> Iterator[Page]:
    """The pages to use of the crawl in `folder`, by URL, whatever the order in which they were fetched.

    Left out are deleted ones (tombstones), noindex, blocked ones, and all but one URL of the same content.
    Raises UserError when there is no crawl, or it is damaged.
    """
    with reporting(folder), closing(Frontier(folder)) as frontier:
        for row in frontier.db.execute(_USED.format(columns="*")):
            yield _page(frontier, row)


def listing(folder: Path) -> Iterator[tuple[str, str, int]]:
    """(URL, SHA-256 of its bytes, their number) of the same pages in the same order."""
    with reporting(folder), closing(Frontier(folder)) as frontier:
        yield from (tuple(row) for row in frontier.db.execute(_USED.format(columns="url, hash, size")))


def page(folder: Path, url: str) -> Page:
    """One of these pages. Raises UserError when it is not there, which a crawl that goes on meanwhile can cause."""
    with reporting(folder), closing(Frontier(folder)) as frontier:
        row = frontier.db.execute("SELECT * FROM urls WHERE url = ? AND hash IS NOT NULL", (url,)).fetchone()
        if row is None:
            raise UserError(
                f"could not read {url}",
                f"it is not stored any more in {folder}",
                "give the same command again when no crawl changes it",
            )
        return _page(frontier, row)


def _page(frontier: Frontier, row: sqlite3.Row) -> Page:
    known = {
        "language": row["language"],
        "modified": row["modified"],
        "canonical": row["canonical"],
        "also_at": _also(frontier.db, row),
    }
    metadata = {"main_text": frontier.settings.main_text, **{name: value for name, value in known.items() if value}}
    data, fetched = frontier.body(row["hash"]), _iso(row["changed"])
    return Page(row["url"], row["media_type"], row["encoding"], data, fetched, metadata)


def fingerprint(folder: Path) -> str:
    """SHA-256 that changes exactly when what `pages` gives changes (but for the times)."""
    digest = hashlib.sha256()
    with reporting(folder), closing(Frontier(folder)) as frontier:
        digest.update(json.dumps([frontier.settings.main_text]).encode())
        columns = "url, media_type, encoding, hash, language, modified, canonical"
        for row in frontier.db.execute(_USED.format(columns=columns)):
            also = _also(frontier.db, row)
            digest.update(json.dumps([*row, also], ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()


def _also(db: sqlite3.Connection, row: sqlite3.Row) -> list[str]:
    """Other URLs with the content of a page."""
    found = db.execute(
        f"SELECT url FROM urls WHERE hash = ? AND url <> ? AND reason <> '{BLOCKED}' ORDER BY url",
        (row["hash"], row["url"]),
    )
    return [other[0] for other in found]


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
