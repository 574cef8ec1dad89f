"""Crawler, orders of the user about single URLs: list, add, remove, block, unblock, prioritise."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence

from crystalline.corpus.crawl import scope as scopes
from crystalline.corpus.crawl.frontier import Frontier
from crystalline.corpus.crawl.scope import Rule
from crystalline.errors import UserError


def rows(frontier: Frontier, rules: Sequence[Rule] = (), state: str = "") -> Iterator[sqlite3.Row]:
    """The URLs that one of the rules matches (all without rules), by URL; without robots.txt."""
    condition, values = ("AND state = ?", (state,)) if state else ("", ())
    found = frontier.db.execute(f"SELECT * FROM urls WHERE kind <> 'robots' {condition} ORDER BY url", values)
    return (row for row in found if not rules or scopes.any_of(rules, row["url"]))


def add(frontier: Frontier, found: Iterable[str], depth: int = 0) -> int:
    """Add URLs (in normal form) by hand; returns how many of them are new."""
    before = frontier.found()
    with frontier.transaction():
        for url in found:
            frontier.add_url(url, depth, now=time.time())
        if frontier.may_go_on():
            frontier.put("ended", "")
    return frontier.found() - before


def remove(frontier: Frontier, rules: Sequence[Rule]) -> int:
    """Forget URLs and their pages; returns how many. One that is linked will be found again."""
    with frontier.transaction():
        found = list(rows(frontier, rules))
        for row in found:
            frontier.db.execute("DELETE FROM urls WHERE id = ?", (row["id"],))
            frontier.db.execute("DELETE FROM history WHERE url = ?", (row["id"],))
            frontier.forget_body(row["hash"])
        gone = {row["url"] for row in found}
        frontier.put("starts", [url for url in frontier.get("starts", []) if url not in gone])
    return len(found)


def block(frontier: Frontier, rules: Sequence[Rule]) -> int:
    """Fetch and use nothing that these rules match, from now on; returns how many known URLs that are."""
    with frontier.transaction():
        frontier.db.executemany(
            "INSERT OR IGNORE INTO rules VALUES ('block', ?, ?, 0)", [(r.kind, r.text) for r in rules]
        )
        found = [row for row in list(rows(frontier, rules)) if row["reason"] != scopes.BLOCKED]
        for row in found:
            frontier.update(row["id"], state="skipped", reason=scopes.BLOCKED, slot=0)
        frontier.changed()
    return len(found)


def unblock(frontier: Frontier, rules: Sequence[Rule]) -> int:
    """Take rules back; returns how many URLs are free again. Raises UserError for one that is not there."""
    for rule in rules:
        if rule not in frontier.scope.blocked:
            there = ", ".join(f"{r.text} ({r.kind})" for r in frontier.scope.blocked) or "none"
            raise UserError(
                f"could not unblock {rule.text}", f"there is no such {rule.kind} rule; there are: {there}",
                "name one of these as it was blocked",
            )  # fmt: skip
    with frontier.transaction():
        before = _blocked(frontier)
        for rule in rules:
            frontier.db.execute(
                "DELETE FROM rules WHERE action = 'block' AND kind = ? AND text = ?", (rule.kind, rule.text)
            )
        frontier.changed()
        frontier.reconsider()
        frontier.ask_robots(time.time(), anew=True)
        if frontier.may_go_on():
            frontier.put("ended", "")
        return before - _blocked(frontier)


def prioritise(frontier: Frontier, rules: Sequence[Rule], amount: int) -> int:
    """Fetch what these rules match sooner (or later, below 0), now and in future; returns how many wait."""
    with frontier.transaction():
        for rule in rules:
            frontier.db.execute(
                "DELETE FROM rules WHERE action = 'priority' AND kind = ? AND text = ?", (rule.kind, rule.text)
            )
            if amount:
                frontier.db.execute("INSERT INTO rules VALUES ('priority', ?, ?, ?)", (rule.kind, rule.text, amount))
        frontier.changed()
        found = list(rows(frontier, rules))
        for row in found:
            new = sum(value for rule, value in frontier.priorities if rule.matches(row["url"]))
            frontier.update(row["id"], priority=new, score=row["score"] - row["priority"] + new)
    return sum(row["state"] == "waiting" for row in found)


def _blocked(frontier: Frontier) -> int:
    found = frontier.db.execute("SELECT coalesce(sum(n), 0) FROM counts WHERE reason = ?", (scopes.BLOCKED,))
    return int(found.fetchone()[0])
