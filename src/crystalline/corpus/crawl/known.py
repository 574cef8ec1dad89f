"""Crawler, what is known: adding the URLs that are found, and judging them by settings, rules and robots.txt."""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Iterable
from pathlib import Path

from crystalline.corpus.crawl import scope as scopes
from crystalline.corpus.crawl import urls
from crystalline.corpus.crawl.database import Database, reporting
from crystalline.corpus.crawl.robots import Robots
from crystalline.corpus.crawl.scope import Rule, Scope
from crystalline.settings import Crawl

SETTLED = ("done", "redirect", "failed", "gone")
ROBOTS_FIRST, MAPS_FIRST = 1e9, 1e6  # scores
NO_ROBOTS = "no robots.txt"  # it is there, and cannot be read
ROWS_AT_ONCE = 10_000  # in memory, of what may be millions
DAY = 86_400.0
WAITING_ANEW = "state = 'waiting', reason = '', attempts = 0, ready = 0, slot = 0"


class KnownUrls(Database):
    """The URLs of one crawl, and what the settings, the user's rules and each robots.txt say of them."""

    def __init__(self, folder: Path, create: bool = False) -> None:
        super().__init__(folder, create)
        self._robots: dict[int, tuple[float, Robots]] = {}  # of a site, and until when it was valid
        with reporting(folder):
            self._load()

    def _load(self) -> None:
        """Read settings, start URLs and rules anew."""
        self.settings = Crawl.model_validate(self.get("settings", {}))
        self.agent = self.get("agent", "crystalline")
        starts = self.get("starts", [])
        self.scope = Scope(self.settings, [urls.host(url) for url in starts], self.get("local", []))
        rows = self.db.execute("SELECT * FROM rules").fetchall()
        self.scope.blocked = [Rule(row["kind"], row["text"]) for row in rows if row["action"] == "block"]
        self.priorities = [(Rule(r["kind"], r["text"]), r["amount"]) for r in rows if r["action"] == "priority"]
        self._loaded = self.get("orders", 0)

    def refresh(self) -> None:
        """Notice rules and settings that another process has changed."""
        if self.get("orders", 0) != self._loaded:
            self._load()

    def changed(self) -> None:
        """Rules or settings are others now: tell the other processes, and ourselves."""
        self.put("orders", self.get("orders", 0) + 1)
        self._load()

    def add_url(
        self, url: str, depth: int, kind: str = "page", hops: int = 0, nofollow: bool = False, now: float = 0.0
    ) -> None:
        """Add a URL that was found, or note that it was found on a shorter way."""
        pending = [(url, depth, hops, nofollow)]
        while pending:
            url, depth, hops, nofollow = pending.pop()
            row = self.db.execute("SELECT * FROM urls WHERE url = ?", (url,)).fetchone()
            if row is None:
                self._insert(url, depth, kind, hops, nofollow, now)
            else:
                pending += self._nearer(row, depth, nofollow)

    def _insert(self, url: str, depth: int, kind: str, hops: int, nofollow: bool, now: float) -> None:
        host, site = self.host_id(urls.host(url)), self.site_id(url)
        reason = scopes.NO_FOLLOW if nofollow else self._refuses(url, depth, site, kind, hops)
        if not reason and depth and "?" in url and self._queries(urls.stem(url)) > self.settings.max_queries:
            reason = scopes.TOO_MANY_QUERIES
        priority = sum(amount for rule, amount in self.priorities if rule.matches(url))
        # 100 if never fetched, 50 (its age has no end then), - 5 path depth; `claim` adds the share of its domain.
        score = 150.0 - 5 * urls.segments(url) + priority + (MAPS_FIRST if kind == "map" else 0)
        self.db.execute(
            "INSERT INTO urls (url, host, site, kind, state, reason, depth, hops, priority, score, tie, found) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (url, host, site, kind, "skipped" if reason else "waiting", reason, depth, hops, priority, score,
             urls.tie(url), now),
        )  # fmt: skip
        if not reason:
            self.need_robots(site, now)

    def _nearer(self, row: sqlite3.Row, depth: int, nofollow: bool) -> list[tuple[str, int, int, bool]]:
        """What follows when a known URL is found again; what to look at next for it."""
        if nofollow or row["kind"] != "page":
            return []
        # A way that may not be followed is no way: its length does not count.
        nearer = depth < row["depth"] or row["reason"] == scopes.NO_FOLLOW
        if nearer:
            self.update(row["id"], depth=depth)
        if row["state"] == "skipped" and nearer and not row["checked"]:
            if row["reason"] != scopes.TOO_MANY_QUERIES:
                reason = self._refuses(row["url"], depth, row["site"], row["kind"], row["hops"])
                self.update(row["id"], state="skipped" if reason else "waiting", reason=reason)
                if not reason:
                    self.need_robots(row["site"], time.time())
            return []
        if not nearer or row["depth"] <= 0:
            return []
        # What it leads to is nearer too, and may have been too far before.
        if row["state"] == "redirect":
            return [(row["target"], depth, row["hops"] + 1, False)]
        if row["hash"] and row["media_type"] in ("text/html", "application/xhtml+xml"):
            from crystalline.corpus.crawl.reading import links_of_page

            links = links_of_page(self.body(row["hash"]), row["encoding"], row["url"], self.agent, [])
            return [(target, depth + 1, 0, False) for target in links.follow]
        if row["state"] == "skipped" and row["reason"] == "noindex":
            self.update(row["id"], state="waiting", reason="")  # its links are not stored: read it again
        return []

    def _queries(self, stem: str) -> int:
        self.db.execute("INSERT INTO stems VALUES (?, 1) ON CONFLICT DO UPDATE SET queries = queries + 1", (stem,))
        return int(self.db.execute("SELECT queries FROM stems WHERE stem = ?", (stem,)).fetchone()[0])

    def reconsider(self) -> None:
        """Judge anew, by the settings, robots.txt and rules of now, every URL that waits or was skipped unasked."""
        last = -1
        while rows := self.db.execute(
            "SELECT id, url, depth, site, kind, hops, state, reason, hash FROM urls "
            "WHERE id > ? AND kind <> 'robots' AND "
            "(state = 'waiting' OR (state = 'skipped' AND (checked = 0 OR reason = ?))) "
            f"ORDER BY id LIMIT {ROWS_AT_ONCE}", (last, scopes.BLOCKED),
        ).fetchall():  # fmt: skip
            last = rows[-1]["id"]
            self._reconsider(rows)

    def _reconsider(self, rows: Iterable[sqlite3.Row]) -> None:
        for row in rows:
            if row["state"] == "skipped" and row["reason"] in (scopes.NO_FOLLOW, scopes.TOO_MANY_QUERIES):
                continue
            reason = self._refuses(row["url"], row["depth"], row["site"], row["kind"], row["hops"])
            if reason:
                self.update(row["id"], state="skipped", reason=reason)
            elif row["state"] == "skipped":
                # What was stored before it was blocked is there still.
                self.update(row["id"], state="done" if row["hash"] else "waiting", reason="")

    def _refuses(self, url: str, depth: int, site: int, kind: str, hops: int) -> str:
        """Why a URL is not to be fetched; "" when it is."""
        reason = self.scope.refuses(url, depth)
        if kind == "map" and reason in (scopes.OTHER_TYPE, scopes.NOT_ALLOWED, scopes.OFF_DOMAIN):
            reason = ""  # sitemaps and feeds are no pages, and often lie on a host of their own
        if not reason and hops > self.settings.redirects:
            reason = "many redirects"
        return reason or ("" if self.rules_of(site).allowed(url) else scopes.ROBOTS)

    def look_again(self, before: float, now: float) -> None:
        """Let all that was last looked at before a time wait again."""
        last = -1
        while rows := self.db.execute(
            f"SELECT id, url, kind, priority, checked FROM urls WHERE id > ? AND state IN {SETTLED} "
            f"AND kind <> 'robots' AND checked < ? ORDER BY id LIMIT {ROWS_AT_ONCE}", (last, before),
        ).fetchall():  # fmt: skip
            last = rows[-1]["id"]
            for row in rows:
                score = 50 * (1 - math.exp(-0.5 * (now - row["checked"]) / DAY)) - 5 * urls.segments(row["url"])
                score += row["priority"] + (MAPS_FIRST if row["kind"] == "map" else 0)
                self.db.execute(f"UPDATE urls SET {WAITING_ANEW}, score = ? WHERE id = ?", (score, row["id"]))
        if last >= 0:
            self.db.execute("UPDATE sites SET valid = 0")

    def widen(self, before: Crawl) -> None:
        """What was skipped for its type, its size or its query is looked at again when the settings now want more."""
        now, reasons = self.settings, []
        if (before.types, before.sitemaps) != (now.types, now.sitemaps):
            reasons += [scopes.OTHER_TYPE, "binary"]
        if now.max_bytes > before.max_bytes:
            reasons += ["too large"]
        for reason in reasons:
            self.db.execute(f"UPDATE urls SET {WAITING_ANEW} WHERE state = 'skipped' AND reason = ?", (reason,))
        if now.max_queries > before.max_queries:
            self.db.execute("UPDATE stems SET queries = min(queries, ?)", (before.max_queries,))
            for row in self.db.execute(
                "SELECT id, url FROM urls WHERE reason = ? ORDER BY id", (scopes.TOO_MANY_QUERIES,)
            ).fetchall():
                if self._queries(urls.stem(row["url"])) <= now.max_queries:
                    self.update(row["id"], state="waiting", reason="")

    def rules_of(self, site: int) -> Robots:
        """The robots.txt of a site."""
        row = self.db.execute("SELECT robots, valid FROM sites WHERE id = ?", (site,)).fetchone()
        if site not in self._robots or self._robots[site][0] != row["valid"]:
            self._robots[site] = row["valid"], Robots(row["robots"], self.agent)
        return self._robots[site][1]

    def need_robots(self, site: int, now: float, anew: bool = False) -> None:
        """Let the robots.txt of a site be fetched, unless it is known. anew: or could not be read."""
        row = self.db.execute("SELECT origin, valid FROM sites WHERE id = ?", (site,)).fetchone()
        url = f"{row['origin']}/robots.txt"
        known = self.db.execute("SELECT id, state, kind, reason, status FROM urls WHERE url = ?", (url,)).fetchone()
        if known is None:
            self.db.execute(
                "INSERT INTO urls (url, host, site, kind, state, depth, score, tie, found) "
                "VALUES (?, ?, ?, 'robots', 'waiting', 0, ?, ?, ?)",
                (url, self.host_id(urls.host(url)), site, ROBOTS_FIRST, urls.tie(url), now),
            )
        elif known["state"] == "failed" and known["kind"] == "robots" and not anew:
            self.fail_all("site", site, known["reason"] if not known["status"] else NO_ROBOTS)
        elif known["kind"] != "robots" or (row["valid"] <= now and known["state"] not in ("waiting", "fetching")):
            self.update(
                known["id"], kind="robots", state="waiting", reason="", score=ROBOTS_FIRST, attempts=0, ready=0,
                hops=0, target="", host=self.host_id(urls.host(url)), hash=None,
            )  # fmt: skip

    def ask_robots(self, now: float, anew: bool = False) -> None:
        """Let every robots.txt that has become too old, and that something waits for, be fetched again."""
        for row in self.db.execute(
            "SELECT id FROM sites WHERE valid <= ? AND EXISTS "
            "(SELECT 1 FROM urls WHERE urls.site = sites.id AND state = 'waiting' AND kind <> 'robots')", (now,)
        ).fetchall():  # fmt: skip
            self.need_robots(row["id"], now, anew)

    def fail_all(self, column: str, value: int, reason: str) -> None:
        """Give up everything that waits for a site or a host."""
        self.db.execute(
            f"UPDATE urls SET state = 'failed', reason = ? WHERE {column} = ? AND state = 'waiting'", (reason, value)
        )
