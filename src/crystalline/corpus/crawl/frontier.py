"""Crawler, the memory: which URL is fetched next, and what came of it. It survives a kill at any moment.

A URL is `waiting`, being fetched (`fetching`, by the worker that holds the lock numbered `slot`), or settled:
`done` (a page is stored), `redirect`, `skipped`, `failed`, or `gone` (deleted: a tombstone). Whatever an answer
brings (the page, its links, the URL's new state) is one transaction. A lock is freed by the kernel when its process
ends, however it ends; what was fetched under it is then waiting again.

A stored page stays usable while it waits to be looked at again: `hash` says what is stored, `state` what is to do.
"""

from __future__ import annotations

import sqlite3
import time
import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from crystalline.corpus.crawl import scope as scopes
from crystalline.corpus.crawl import urls
from crystalline.corpus.crawl.addresses import is_local
from crystalline.corpus.crawl.known import DAY, NO_ROBOTS, WAITING_ANEW, KnownUrls
from crystalline.corpus.crawl.outcomes import (
    Claim,
    Failure,
    Gone,
    Map,
    Outcome,
    Redirect,
    Rules,
    Skip,
    Stored,
    Unchanged,
    Wait,
)
from crystalline.corpus.crawl.robots import SECONDS_VALID
from crystalline.corpus.crawl.slots import in_use
from crystalline.settings import Crawl

STATES = ("waiting", "fetching", "done", "redirect", "skipped", "failed", "gone")
HOST_GIVES_UP = 20  # connections in a row that came to nothing
LONGEST_BACKOFF = 300.0  # seconds
HOSTS_LOOKED_AT = 200  # when the next URL is chosen
GUESSED_MAP = "/sitemap.xml"  # where a site's robots.txt names none

# When as many pages are stored as the user wants: only what is stored is looked at again, and its robots.txt.
_AGAIN_ONLY = """AND (u.hash IS NOT NULL OR (u.kind = 'robots' AND EXISTS
  (SELECT 1 FROM urls o WHERE o.site = u.site AND o.state = 'waiting' AND o.hash IS NOT NULL))) """
# Hosts that something waits for, and that may be asked one thing more.
_FREE = """EXISTS (SELECT 1 FROM counts WHERE host = hosts.id AND state = 'waiting' AND n > 0) AND
  (SELECT coalesce(sum(n), 0) FROM counts WHERE host = hosts.id AND state = 'fetching') < ?"""


class Frontier(KnownUrls):
    """The queue of one crawl. Several processes may have one on the same folder.

    folder: made when missing, with `create`. slot: the number of the lock that this process holds; 0: none, it only
    looks and gives orders.
    """

    def __init__(self, folder: Path, create: bool = False, slot: int = 0) -> None:
        super().__init__(folder, create)
        self.slot = slot

    def begin(self, starts: Sequence[str], settings: Crawl, agent: str, again: bool, retry: bool) -> None:
        """Make ready to crawl: new, or going on.

        starts: start URLs to add, in normal form. agent: our product token. retry: try again what failed.
        again: look at everything anew; when such a round is under way already, go on with that one. Without it at
        what is older than `settings.again_after`.
        """
        local = self.get("local", [])
        known = self.get("starts", [])
        new = [url for url in dict.fromkeys(starts) if url not in known]
        local += [host for host in {urls.host(url) for url in new} if host not in local and is_local(host)]
        now, before = time.time(), self.settings
        with self.transaction():
            self.put("starts", known + new)
            self.put("local", local)
            self.put("settings", settings.model_dump(exclude_defaults=True))
            self.put("agent", agent)
            self.put("began", now)
            self.changed()
            for url in known + new:
                self.add_url(url, 0, now=now)
            self.widen(before)
            self.reconsider()
            if again:
                self.put("again", self.get("again") or now)  # until this round has ended
                self.look_again(self.get("again"), now)
            elif settings.again_after is not None:
                self.look_again(now - settings.again_after * DAY, now)
            nothing = not self.db.execute("SELECT 1 FROM urls WHERE hash IS NOT NULL LIMIT 1").fetchone()
            if retry or nothing:
                self.db.execute(f"UPDATE urls SET {WAITING_ANEW} WHERE state = 'failed'")
                self.db.execute("UPDATE hosts SET failures = 0")
            self.ask_robots(now, anew=True)
            if self.may_go_on():
                self.put("ended", "")

    def end(self) -> str:
        """Nothing is left to do: note it. Returns "finished", or "full" when no more pages are wanted."""
        waiting = self.db.execute("SELECT 1 FROM urls WHERE state = 'waiting' LIMIT 1").fetchone()
        ended = "full" if waiting else "finished"
        with self.transaction():
            self.put("ended", ended)
            self.put("again", None)
        return ended

    def may_go_on(self) -> bool:
        """Whether anything waits that may be fetched, now or later."""
        stored, flying = self._room()
        full = stored + flying >= self.settings.max_pages
        return self._next(time.time(), full) is not None

    # --- fetching ---

    def claim(self, now: float) -> Claim | Wait:
        """The next URL to fetch, marked as being fetched by this worker; or how long to wait."""
        with self.transaction():
            self.refresh()
            hosts = self.db.execute(
                "SELECT id, delay, "
                "(SELECT coalesce(sum(n), 0) FROM counts WHERE host = hosts.id AND stored) AS stored "
                f"FROM hosts WHERE ready <= ? AND {_FREE} ORDER BY ready LIMIT ?",
                (now, self.settings.per_host, HOSTS_LOOKED_AT),
            ).fetchall()
            stored, flying = self._room()
            full = stored + flying >= self.settings.max_pages
            best: tuple[float, int, sqlite3.Row, sqlite3.Row] | None = None
            for host in hosts:
                row = self.db.execute(
                    "SELECT u.* FROM urls u JOIN sites s ON s.id = u.site WHERE u.host = ? AND u.state = 'waiting' "
                    "AND u.ready <= ? AND (u.kind = 'robots' OR s.valid > ?) "
                    f"{_AGAIN_ONLY if full else ''}ORDER BY u.score DESC, u.tie LIMIT 1",
                    (host["id"], now, now),
                ).fetchone()
                if row is not None:
                    score = row["score"] + 50 * (1 - host["stored"] / max(1, stored))
                    if best is None or (score, -row["tie"]) > best[:2]:
                        best = (score, -row["tie"], row, host)
            if best is None:
                return Wait(self._next(now, full))
            _, _, row, host = best
            self.update(row["id"], state="fetching", slot=self.slot)
            pause = max(self.settings.delay, host["delay"])
            self.db.execute("UPDATE hosts SET ready = ? WHERE id = ?", (now + pause, host["id"]))
        known = bool(row["hash"]) or row["kind"] == "map"
        return Claim(
            row["id"], row["url"], row["target"] if row["kind"] == "robots" and row["target"] else row["url"],
            row["kind"], row["depth"], row["hops"], row["attempts"],
            row["etag"] if known else "", row["modified"] if known else "",
        )  # fmt: skip

    def _room(self) -> tuple[int, int]:
        """(pages that are stored, pages being fetched that may become more)."""
        row = self.db.execute(
            "SELECT coalesce(sum(CASE WHEN stored THEN n END), 0), "
            "coalesce(sum(CASE WHEN state = 'fetching' AND NOT stored THEN n END), 0) "
            f"FROM counts WHERE kind = 'page' AND reason <> '{scopes.BLOCKED}'"
        ).fetchone()
        return int(row[0]), int(row[1])

    def _next(self, now: float, full: bool) -> float | None:
        """Seconds until something that waits may be asked; None when nothing waits that may be asked at all."""
        may = f"state = 'waiting' AND (u.kind = 'robots' OR s.valid > ?) {_AGAIN_ONLY if full else ''}"
        source = f"FROM urls u JOIN sites s ON s.id = u.site WHERE u.host = ? AND {may}"
        times: list[float] = []
        for host in self.db.execute(
            f"SELECT id, ready FROM hosts WHERE {_FREE}", (self.settings.per_host,)
        ).fetchall():
            if host["ready"] > now:  # no need to look at all that waits for it
                found = self.db.execute(f"SELECT 0.0 {source} LIMIT 1", (host["id"], now)).fetchone()
            else:
                found = self.db.execute(f"SELECT min(u.ready) {source}", (host["id"], now)).fetchone()
            if found is not None and found[0] is not None:
                times.append(max(host["ready"], found[0]))
        if times:
            return max(0.0, min(times) - now)
        asked = self.db.total_changes
        self.ask_robots(now)  # a robots.txt that grew too old holds everything up
        return 0.0 if self.db.total_changes > asked and not full else None

    def finish(self, claim: Claim, outcome: Outcome, now: float, seconds: float = 0.0) -> None:
        """Record what came of a claim, all of it in one transaction.

        now: when the answer was complete; seconds: how long it took.
        """
        with self.transaction():
            self.refresh()
            row = self.db.execute("SELECT * FROM urls WHERE id = ?", (claim.id,)).fetchone()
            if row is None or row["state"] != "fetching" or row["slot"] != self.slot:
                return  # removed or blocked meanwhile
            self.update(claim.id, checked=now, slot=0)
            self._pace(row["host"], outcome, now, seconds)
            match outcome:
                case Stored():
                    self._store(row, outcome, now)
                case Map():
                    self.drop(row, 200, now)
                    self._settle(row, "done", "", 200, now, kind="map", etag=outcome.etag, modified=outcome.modified)
                    self._follow(row["depth"], outcome.pages, (), now)
                    for url in outcome.maps:
                        self.add_url(url, row["depth"], "map", row["hops"] + 1, now=now)
                case Rules():
                    self._know(row, outcome, now)
                case Unchanged():
                    self._settle(row, "done", "", row["status"], now)
                case Redirect() if claim.kind == "robots":
                    self.update(
                        claim.id, state="waiting", target=outcome.target, hops=row["hops"] + 1,
                        host=self.host_id(urls.host(outcome.target)),
                    )  # fmt: skip
                case Redirect():
                    self.drop(row, outcome.status, now)
                    self._settle(row, "redirect", "", outcome.status, now, target=outcome.target)
                    self._redirect(row, outcome.target, now)
                case Gone() | Skip() | Failure(again=False) if self._guessed(row):
                    self.db.execute("DELETE FROM urls WHERE id = ?", (row["id"],))
                    self.put("without_map", [*self.get("without_map", []), row["site"]])
                case Gone():
                    self.drop(row, outcome.status, now)
                    self._settle(row, "gone", "", outcome.status, now)
                case Skip():
                    self.drop(row, outcome.status, now)
                    self._settle(row, "skipped", outcome.reason, outcome.status, now)
                    self._follow(row["depth"], outcome.follow, outcome.nofollow, now)
                    self._maps(outcome.maps, now)
                case Failure():
                    self._fail(row, outcome, now)

    def _settle(self, row: sqlite3.Row, state: str, reason: str, status: int, now: float, **more: Any) -> None:
        self.update(row["id"], state=state, reason=reason, status=status, attempts=0, ready=0, **more)

    def _store(self, row: sqlite3.Row, page: Stored, now: float) -> None:
        digest = sha256(page.data).hexdigest()
        if digest != row["hash"]:
            self.db.execute("INSERT OR IGNORE INTO bodies VALUES (?, ?)", (digest, zlib.compress(page.data)))
            self.db.execute("INSERT INTO history VALUES (?, ?, ?, ?)", (row["id"], now, page.status, digest))
        self._settle(
            row, "done", "", page.status, now, hash=digest, size=len(page.data), media_type=page.media_type,
            encoding=page.encoding, etag=page.etag, modified=page.modified, language=page.language,
            canonical=page.canonical, kind="page", changed=now if digest != row["hash"] else row["changed"],
        )  # fmt: skip
        if digest != row["hash"]:
            self.forget_body(row["hash"])
        depth = self.db.execute("SELECT depth FROM urls WHERE id = ?", (row["id"],)).fetchone()[0]
        self._follow(depth, page.follow, page.nofollow, now)
        if page.canonical and page.canonical != row["url"]:
            self.add_url(page.canonical, max(1, depth), now=now)
        self._maps(page.maps, now)

    def _follow(self, depth: int, follow: Iterable[str], nofollow: Iterable[str], now: float) -> None:
        for url in follow:
            self.add_url(url, depth + 1, now=now)
        for url in nofollow:
            self.add_url(url, depth + 1, nofollow=True, now=now)

    def _maps(self, maps: Iterable[str], now: float) -> None:
        if self.settings.sitemaps:
            for url in maps:
                self.add_url(url, 0, "map", now=now)

    def _guessed(self, row: sqlite3.Row) -> bool:
        """Whether nobody has ever said that there is such a sitemap."""
        new = row["kind"] == "map" and not row["checked"] and not row["hops"]
        return new and row["url"].endswith(GUESSED_MAP) and not self.rules_of(row["site"]).sitemaps

    def _redirect(self, row: sqlite3.Row, target: str, now: float) -> None:
        """Go where a redirect leads. What a start URL leads to is a start URL, unless the user said where to stay."""
        starts = self.get("starts", [])
        new = row["url"] in starts and target not in starts and not self.settings.domains
        if new and not self.scope.refuses(target, 0):
            self.put("starts", [*starts, target])
            self.changed()
            self.reconsider()
        depth = 0 if target in self.get("starts", []) else max(1, row["depth"])
        self.add_url(target, depth, row["kind"], row["hops"] + 1, now=now)

    def _know(self, row: sqlite3.Row, rules: Rules, now: float) -> None:
        """A site's robots.txt is known: judge what waits for it."""
        site = row["site"]
        self.db.execute(
            "UPDATE sites SET robots = ?, valid = ? WHERE id = ?", (rules.text, now + SECONDS_VALID, site)
        )
        known = self.rules_of(site)
        origin, host = self.db.execute("SELECT origin, host FROM sites WHERE id = ?", (site,)).fetchone()
        self.db.execute("UPDATE sites SET delay = ? WHERE id = ?", (known.delay, site))
        self.db.execute(
            "UPDATE hosts SET delay = (SELECT max(delay) FROM sites WHERE host = hosts.id), ready = max(ready, ?) "
            "WHERE id = ?", (now + known.delay, host),
        )  # fmt: skip
        self._settle(row, "done", "", rules.status, now)
        for found in self.db.execute(
            "SELECT id, url, state FROM urls WHERE site = ? AND kind <> 'robots' AND "
            "(state = 'waiting' OR (state = 'skipped' AND reason = ?))", (site, scopes.ROBOTS),
        ).fetchall():  # fmt: skip
            if not known.allowed(found["url"]):
                self.update(found["id"], state="skipped", reason=scopes.ROBOTS)
            elif found["state"] == "skipped":
                self.update(found["id"], state="waiting", reason="")
        if self.settings.sitemaps:
            guess = [] if site in self.get("without_map", []) else [GUESSED_MAP]
            for text in known.sitemaps or guess:
                with suppress(urls.Unusable):
                    self.add_url(urls.normal(text, origin), 0, "map", now=now)

    def _fail(self, row: sqlite3.Row, failure: Failure, now: float) -> None:
        attempts = row["attempts"] + 1
        if failure.again and attempts <= self.settings.retries:
            wait = min(self.settings.backoff * 2 ** (attempts - 1), LONGEST_BACKOFF)
            ready = now + max(wait, failure.after or 0.0)
            self.update(row["id"], state="waiting", attempts=attempts, ready=ready, reason="", status=failure.status)
        else:
            self._settle(row, "failed", failure.reason, failure.status, now)
            if row["kind"] == "robots":  # RFC 9309: as long as it cannot be read, nothing is allowed
                self.fail_all("site", row["site"], NO_ROBOTS if failure.status else failure.reason)
        host = self.db.execute("SELECT failures FROM hosts WHERE id = ?", (row["host"],)).fetchone()
        if host["failures"] >= HOST_GIVES_UP:
            self.fail_all("host", row["host"], "no answer")

    def _pace(self, host: int, outcome: Outcome, now: float, seconds: float) -> None:
        """When the host may be asked next: after the delay, and not sooner than it took to answer."""
        row = self.db.execute("SELECT * FROM hosts WHERE id = ?", (host,)).fetchone()
        pause = max(self.settings.delay, row["delay"])
        if self.settings.per_host == 1:
            pause = max(pause, min(seconds, LONGEST_BACKOFF))
        ready = now + pause if self.settings.per_host == 1 else row["ready"]
        busy = isinstance(outcome, Failure) and outcome.busy
        dead = isinstance(outcome, Failure) and outcome.dead
        if isinstance(outcome, Failure) and busy:
            wait = min(self.settings.backoff * 2 ** row["refusals"], LONGEST_BACKOFF)
            ready = max(ready, now + (wait if outcome.after is None else outcome.after))
        self.db.execute(
            "UPDATE hosts SET ready = max(ready, ?), refusals = ?, failures = ? WHERE id = ?",
            (ready, row["refusals"] + 1 if busy else 0, row["failures"] + 1 if dead else 0, host),
        )

    # --- workers ---

    def release(self, ids: Iterable[int]) -> None:
        """Give claims back that were not fetched."""
        with self.transaction():
            for id_ in ids:
                self.db.execute(
                    "UPDATE urls SET state = 'waiting', slot = 0 WHERE id = ? AND state = 'fetching'", (id_,)
                )

    def release_dead(self, mine: bool = False) -> int:
        """Let what dead workers were fetching wait again; returns how many URLs that were.

        mine: also what was fetched under our own number; for the beginning, when that was somebody before us.
        """
        rows = self.db.execute("SELECT id, host, slot FROM urls WHERE state = 'fetching'").fetchall()
        alive = [number for number in in_use(self.folder) if not (mine and number == self.slot)] if rows else []
        dead = [row for row in rows if row["slot"] not in alive]
        with self.transaction():
            for row in dead:
                self.update(row["id"], state="waiting", slot=0)
                # Nobody knows when that request ended, so the delay begins now.
                self.db.execute(
                    "UPDATE hosts SET ready = max(ready, ? + max(delay, ?)) WHERE id = ?",
                    (time.time(), self.settings.delay, row["host"]),
                )
        return len(dead)

    def others_fetch(self) -> bool:
        """Whether another worker is fetching something, which may lead to more."""
        return bool(
            self.db.execute(
                "SELECT 1 FROM urls WHERE state = 'fetching' AND slot <> ? LIMIT 1", (self.slot,)
            ).fetchone()
        )

    def longest_delay(self) -> float:
        """Seconds between two requests to the host that wants the most."""
        asked = self.db.execute("SELECT coalesce(max(delay), 0) FROM hosts").fetchone()[0]
        return max(self.settings.delay, float(asked))
