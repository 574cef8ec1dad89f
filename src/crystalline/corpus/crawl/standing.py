"""Crawler: how far a crawl is, for people and scripts. Reads only."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from crystalline.corpus.crawl.frontier import STATES, Frontier
from crystalline.corpus.crawl.scope import BLOCKED
from crystalline.corpus.crawl.slots import in_use

RATE_SECONDS = 30.0  # over which the rate is measured


def facts(frontier: Frontier) -> dict[str, Any]:
    """State, counts and rate of a crawl. Of the URLs: found = pages + waiting + fetching + skipped + failed + ...

    state: crawling, finished, full (max_pages are stored) or interrupted. pages: stored and not blocked;
    per_second: answers; seconds_left: for what is known now, as more may be found.
    """
    db, now = frontier.db, time.time()
    rows = db.execute(
        "SELECT kind, state, reason, stored, sum(n) AS n, sum(bytes) AS bytes FROM counts GROUP BY 1, 2, 3, 4"
    )
    states, skipped, failed = dict.fromkeys(STATES, 0), dict[str, int](), dict[str, int]()
    pages = size = maps = again = 0
    for row in rows:
        if row["kind"] == "robots" or not row["n"]:
            continue
        states[row["state"]] += row["n"]
        if row["kind"] == "map":
            maps += row["n"]
        if row["stored"] and row["reason"] != BLOCKED:
            pages, size = pages + row["n"], size + row["bytes"]
            again += row["n"] if row["state"] in ("waiting", "fetching") else 0
        for reasons, state in ((skipped, "skipped"), (failed, "failed")):
            if row["state"] == state:
                reasons[row["reason"]] = reasons.get(row["reason"], 0) + row["n"]
    workers = in_use(frontier.folder)
    since = max(now - RATE_SECONDS, frontier.get("began", now))
    answers = db.execute("SELECT count(*) FROM urls WHERE checked > ? AND kind <> 'robots'", (since,)).fetchone()[0]
    rate = answers / max(0.1, now - since) if workers else 0.0
    to_do = states["waiting"] + states["fetching"]
    room = frontier.settings.max_pages - pages + again
    hosts = db.execute(
        "SELECT count(DISTINCT host) FROM counts WHERE n > 0 AND (stored OR state <> 'skipped')"
    ).fetchone()[0]
    return {
        "folder": str(frontier.folder),
        "state": "crawling" if workers else frontier.get("ended") or "interrupted",
        "workers": len(workers),
        "starts": frontier.get("starts", []),
        "found": sum(states.values()),
        "pages": pages,
        "bytes": size,
        "waiting": states["waiting"],
        "fetching": states["fetching"],
        "redirects": states["redirect"],
        "gone": states["gone"],
        "sitemaps": maps,
        "skipped": dict(sorted(skipped.items(), key=lambda pair: -pair[1])),
        "failed": dict(sorted(failed.items(), key=lambda pair: -pair[1])),
        "hosts": hosts,
        "max_pages": frontier.settings.max_pages,
        "per_second": round(rate, 3),
        "seconds_left": round(min(to_do, room) / rate, 1) if rate and workers else None,
    }


def facts_of(folder: Path) -> dict[str, Any]:
    """The same of a folder. Raises UserError when there is no crawl in it."""
    frontier = Frontier(folder)
    try:
        return facts(frontier)
    finally:
        frontier.close()


def domains(frontier: Frontier) -> list[dict[str, Any]]:
    """Of every host: URLs found, pages and bytes stored, URLs by state, and its delay; most pages first."""
    by_state = ", ".join(
        f"sum(CASE WHEN state = '{state}' THEN n ELSE 0 END) AS {state}"
        for state in ("waiting", "skipped", "failed", "gone")
    )
    rows = frontier.db.execute(
        f"""SELECT hosts.name AS host, sum(n) AS found,
          sum(CASE WHEN stored AND reason <> '{BLOCKED}' THEN n ELSE 0 END) AS pages,
          sum(CASE WHEN stored AND reason <> '{BLOCKED}' THEN bytes ELSE 0 END) AS bytes,
          {by_state}, hosts.delay AS delay
        FROM counts JOIN hosts ON hosts.id = counts.host WHERE kind <> 'robots' AND n > 0
        GROUP BY hosts.id ORDER BY pages DESC, found DESC, host"""
    )
    return [dict(row) for row in rows]
