"""Crawler, the memory: every URL that was found, in one SQLite file that survives a kill at any moment.

A URL is `waiting`, being fetched (`fetching`, by the worker that holds the lock numbered `slot`), or settled:
`done` (a page is stored), `redirect`, `skipped`, `failed`, or `gone` (deleted: a tombstone). Whatever an answer
brings (the page, its links, the URL's new state) is one transaction. A lock is freed by the kernel when its process
ends, however it ends; what was fetched under it is then waiting again.

A stored page stays usable while it waits to be looked at again: `hash` says what is stored, `state` what is to do.
"""

from __future__ import annotations

import fcntl
import json
import math
import sqlite3
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, TextIO

from crystalline.corpus.crawl import scope as scopes
from crystalline.corpus.crawl import urls
from crystalline.corpus.crawl.robots import SECONDS_VALID, Robots
from crystalline.corpus.crawl.scope import Rule, Scope
from crystalline.errors import EXIT_BUSY, EXIT_DAMAGED, EXIT_SYSTEM, UserError
from crystalline.run_folder import reporting_os_errors
from crystalline.settings import Crawl

FILE = "crawl.sqlite"
FORMAT = 1
SLOTS = 64  # most workers on one crawl
STATES = ("waiting", "fetching", "done", "redirect", "skipped", "failed", "gone")
SETTLED = ("done", "redirect", "failed", "gone")
ROBOTS_FIRST, MAPS_FIRST = 1e9, 1e6  # scores
NO_ROBOTS = "no robots.txt"  # it is there, and cannot be read
HOST_GIVES_UP = 20  # connections in a row that came to nothing
LONGEST_BACKOFF = 300.0  # seconds
HOSTS_LOOKED_AT = 200  # when the next URL is chosen
ROWS_AT_ONCE = 10_000  # in memory, of what may be millions
DAY = 86_400.0

# When as many pages are stored as the user wants: only what is stored is looked at again, and its robots.txt.
_AGAIN_ONLY = """AND (u.hash IS NOT NULL OR (u.kind = 'robots' AND EXISTS
  (SELECT 1 FROM urls o WHERE o.site = u.site AND o.state = 'waiting' AND o.hash IS NOT NULL))) """
# Hosts that something waits for, and that may be asked one thing more.
_FREE = """EXISTS (SELECT 1 FROM counts WHERE host = hosts.id AND state = 'waiting' AND n > 0) AND
  (SELECT coalesce(sum(n), 0) FROM counts WHERE host = hosts.id AND state = 'fetching') < ?"""
_WAITING_ANEW = "state = 'waiting', reason = '', attempts = 0, ready = 0, slot = 0"
_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE hosts (
  id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,
  ready REAL NOT NULL DEFAULT 0,      -- no request before this time
  delay REAL NOT NULL DEFAULT 0,      -- the longest that one of its sites asks for
  refusals INTEGER NOT NULL DEFAULT 0,  -- answers in a row that said: not now
  failures INTEGER NOT NULL DEFAULT 0   -- connections in a row that came to nothing
);
CREATE TABLE sites (
  id INTEGER PRIMARY KEY, origin TEXT NOT NULL UNIQUE, host INTEGER NOT NULL,
  robots TEXT NOT NULL DEFAULT '', valid REAL NOT NULL DEFAULT 0,  -- its robots.txt, until when
  delay REAL NOT NULL DEFAULT 0       -- seconds that it asks for
);
CREATE TABLE urls (
  id INTEGER PRIMARY KEY, url TEXT NOT NULL UNIQUE,
  host INTEGER NOT NULL,              -- that the next request goes to
  site INTEGER NOT NULL,              -- whose robots.txt counts
  kind TEXT NOT NULL,                 -- page, map (sitemap or feed) or robots
  state TEXT NOT NULL, reason TEXT NOT NULL DEFAULT '',
  depth INTEGER NOT NULL,             -- links from a start URL
  hops INTEGER NOT NULL DEFAULT 0,    -- redirects, or sitemaps, that led here in a row
  priority INTEGER NOT NULL DEFAULT 0, score REAL NOT NULL DEFAULT 0, tie INTEGER NOT NULL,
  ready REAL NOT NULL DEFAULT 0, attempts INTEGER NOT NULL DEFAULT 0, slot INTEGER NOT NULL DEFAULT 0,
  status INTEGER NOT NULL DEFAULT 0, target TEXT NOT NULL DEFAULT '', canonical TEXT NOT NULL DEFAULT '',
  found REAL NOT NULL, checked REAL NOT NULL DEFAULT 0, changed REAL NOT NULL DEFAULT 0,
  etag TEXT NOT NULL DEFAULT '', modified TEXT NOT NULL DEFAULT '', language TEXT NOT NULL DEFAULT '',
  media_type TEXT NOT NULL DEFAULT '', encoding TEXT NOT NULL DEFAULT '',
  hash TEXT, size INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX queue ON urls (host, score DESC, tie) WHERE state = 'waiting';
CREATE INDEX of_site ON urls (site, state);
CREATE INDEX flying ON urls (slot) WHERE state = 'fetching';
CREATE INDEX stored ON urls (hash) WHERE hash IS NOT NULL;
CREATE INDEX answered ON urls (checked);
CREATE TABLE bodies (hash TEXT PRIMARY KEY, data BLOB NOT NULL);  -- zlib
CREATE TABLE stems (stem TEXT PRIMARY KEY, queries INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE rules (
  action TEXT NOT NULL, kind TEXT NOT NULL, text TEXT NOT NULL, amount INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (action, kind, text)
) WITHOUT ROWID;
CREATE TABLE history (url INTEGER NOT NULL, time REAL NOT NULL, status INTEGER NOT NULL, hash TEXT);
CREATE TABLE counts (
  host INTEGER NOT NULL, kind TEXT NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL, stored INTEGER NOT NULL,
  n INTEGER NOT NULL, bytes INTEGER NOT NULL, PRIMARY KEY (host, kind, state, reason, stored)
) WITHOUT ROWID;
CREATE TRIGGER counted AFTER INSERT ON urls BEGIN
  INSERT INTO counts VALUES (new.host, new.kind, new.state, new.reason, new.hash IS NOT NULL, 1, new.size)
    ON CONFLICT DO UPDATE SET n = n + 1, bytes = bytes + new.size;
END;
CREATE TRIGGER recounted AFTER UPDATE OF host, kind, state, reason, hash, size ON urls BEGIN
  UPDATE counts SET n = n - 1, bytes = bytes - old.size WHERE host = old.host AND kind = old.kind
    AND state = old.state AND reason = old.reason AND stored = (old.hash IS NOT NULL);
  INSERT INTO counts VALUES (new.host, new.kind, new.state, new.reason, new.hash IS NOT NULL, 1, new.size)
    ON CONFLICT DO UPDATE SET n = n + 1, bytes = bytes + new.size;
END;
CREATE TRIGGER uncounted AFTER DELETE ON urls BEGIN
  UPDATE counts SET n = n - 1, bytes = bytes - old.size WHERE host = old.host AND kind = old.kind
    AND state = old.state AND reason = old.reason AND stored = (old.hash IS NOT NULL);
END;
"""


@dataclass(frozen=True)
class Claim:
    """A URL that is ours to fetch.

    url: its name. address: what to ask for (robots.txt may have moved). etag, modified: of what is stored, or "".
    """

    id: int
    url: str
    address: str
    kind: str
    depth: int
    hops: int
    attempts: int
    etag: str = ""
    modified: str = ""


# What an answer came to. Each is one argument of `Frontier.finish`.
@dataclass(frozen=True)
class Stored:
    """A page to keep, and where it leads."""

    data: bytes
    media_type: str
    encoding: str
    status: int = 200
    etag: str = ""
    modified: str = ""
    language: str = ""
    canonical: str = ""
    follow: Sequence[str] = ()
    nofollow: Sequence[str] = ()
    maps: Sequence[str] = ()


@dataclass(frozen=True)
class Map:
    """A sitemap or feed that was read: pages in it, and further sitemaps."""

    pages: Sequence[str]
    maps: Sequence[str]
    etag: str = ""
    modified: str = ""


@dataclass(frozen=True)
class Rules:
    """A robots.txt that was read; none has the text ""."""

    text: str
    status: int = 200


@dataclass(frozen=True)
class Unchanged:
    """What is stored is still so (304)."""


@dataclass(frozen=True)
class Redirect:
    """The page is elsewhere. target: in normal form."""

    target: str
    status: int


@dataclass(frozen=True)
class Gone:
    """There is no such page (any more)."""

    status: int


@dataclass(frozen=True)
class Skip:
    """There is a page, and it is not to be kept. Its links may still lead on."""

    reason: str
    status: int = 200
    follow: Sequence[str] = ()
    nofollow: Sequence[str] = ()
    maps: Sequence[str] = ()


@dataclass(frozen=True)
class Failure:
    """There was no answer that can be used.

    again: another try may help. busy: the host said "not now"; after: seconds that it asks for. dead: no connection.
    """

    reason: str
    status: int = 0
    again: bool = False
    busy: bool = False
    after: float | None = None
    dead: bool = False


Outcome = Stored | Map | Rules | Unchanged | Redirect | Gone | Skip | Failure


@dataclass(frozen=True)
class Wait:
    """Nothing may be asked now. seconds: until something may; None: nothing is waiting."""

    seconds: float | None


class Slot:
    """A numbered lock on a crawl's folder: its holder is one worker."""

    def __init__(self, number: int, handle: TextIO) -> None:
        self.number, self._handle = number, handle

    def release(self) -> None:
        """Give the lock back (the kernel does it too, when the process ends)."""
        self._handle.close()

    @classmethod
    def take(cls, folder: Path, numbers: Iterable[int], patience: float = 0.0) -> Slot:
        """The first free one of `numbers`; waits up to `patience` seconds. Raises UserError when none is."""
        numbers = list(numbers)
        end = time.monotonic() + patience
        with reporting_os_errors(f"lock {folder}"):
            folder.mkdir(parents=True, exist_ok=True)
            while True:
                for number in numbers:
                    if handle := _locked(folder, number):
                        return cls(number, handle)
                if time.monotonic() >= end:
                    raise UserError(
                        f"could not start in {folder}",
                        "another process crawls into this folder",
                        "wait until it ends or stop it, or crawl along with it: --join",
                        EXIT_BUSY,
                    )
                time.sleep(0.05)


def in_use(folder: Path) -> list[int]:
    """The numbers of the workers that crawl into this folder now."""
    found = []
    for path in folder.glob("lock-*"):
        number = int(path.name[5:])
        if handle := _locked(folder, number):
            handle.close()
        else:
            found.append(number)
    return sorted(found)


def _locked(folder: Path, number: int) -> TextIO | None:
    handle = open(folder / f"lock-{number}", "a")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        return None
    return handle


@contextmanager
def reporting(folder: Path) -> Iterator[None]:
    """Inside this block SQLite's errors become a `UserError` about the crawl in `folder`."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise UserError(
            f"could not write the crawl in {folder}", str(error),
            "check disk space and permissions, then give the same command again: it goes on", EXIT_SYSTEM,
        ) from error  # fmt: skip
    except sqlite3.DatabaseError as error:
        raise UserError(
            f"could not read the crawl in {folder}", f"{folder / FILE} is damaged: {error}",
            "restore it from a backup, or delete the folder and crawl again", EXIT_DAMAGED,
        ) from error  # fmt: skip


class Frontier:
    """The URLs of one crawl. Several processes may have one on the same folder.

    folder: made when missing, with `create`. slot: the number of the lock that this process holds; 0: none, it only
    looks and gives orders.
    """

    def __init__(self, folder: Path, create: bool = False, slot: int = 0) -> None:
        self.folder, self.slot = folder, slot
        path = folder / FILE
        if not create and not path.exists():
            raise UserError(
                f"there is no crawl in {folder}",
                f"it has no {FILE}" if folder.exists() else "the folder does not exist",
                f"make one: cllm crawl URL --into {folder}",
            )
        with reporting(folder):
            self.db = sqlite3.connect(path, timeout=60, isolation_level=None)
            self.db.row_factory = sqlite3.Row
            self.db.execute("PRAGMA synchronous = NORMAL")  # a kill loses nothing; a power failure the last moments
            if not self.db.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
                self._make()
            self._robots: dict[int, tuple[float, Robots]] = {}  # of a site, and until when it was valid
            found = self.get("format")
            if found == FORMAT:
                self._load()
        if found != FORMAT:
            raise UserError(
                f"could not open the crawl in {folder}",
                f"it has format {found}, this version of cllm reads format {FORMAT}",
                "use the version of crystalline that wrote it",
            )

    def _make(self) -> None:
        self.db.execute("PRAGMA journal_mode = WAL")
        with self.transaction():
            if not self.db.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
                for statement in _statements(_SCHEMA):
                    self.db.execute(statement)
                self.put("format", FORMAT)

    def close(self) -> None:
        self.db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of what is done inside, or nothing of it."""
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            with suppress(sqlite3.Error):
                self.db.execute("ROLLBACK")
            raise
        self.db.execute("COMMIT")

    def get(self, key: str, default: Any = None) -> Any:
        """A value that belongs to the crawl as a whole."""
        row = self.db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return default if row is None else json.loads(row[0])

    def put(self, key: str, value: Any) -> None:
        """Keep one."""
        self.db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, json.dumps(value)))

    # --- what belongs to the crawl --------------------------------------------------------------------

    def _load(self) -> None:
        """Read settings, start URLs and rules anew."""
        self.settings = Crawl.model_validate(self.get("settings", {}))
        self.agent = self.get("agent", "crystalline")
        starts = self.get("starts", [])
        self.scope = Scope(self.settings, [urls.host(url) for url in starts], self.get("local", []))
        rows = self.db.execute("SELECT * FROM rules").fetchall()
        self.scope.blocked = [Rule(row["kind"], row["text"]) for row in rows if row["action"] == "block"]
        self._priorities = [(Rule(r["kind"], r["text"]), r["amount"]) for r in rows if r["action"] == "priority"]
        self._loaded = self.get("orders", 0)

    def _refresh(self) -> None:
        """Notice rules and settings that another process has changed."""
        if self.get("orders", 0) != self._loaded:
            self._load()

    def _changed(self) -> None:
        """Rules or settings are others now: tell the other processes, and ourselves."""
        self.put("orders", self.get("orders", 0) + 1)
        self._load()

    def begin(self, starts: Sequence[str], settings: Crawl, agent: str, again: bool, retry: bool) -> None:
        """Make ready to crawl: new, or going on.

        starts: start URLs to add, in normal form. agent: our product token. retry: try again what failed.
        again: look at everything anew; when such a round is under way already, go on with that one. Without it at
        what is older than `settings.again_after`.
        """
        from crystalline.corpus.crawl.addresses import is_local

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
            self._changed()
            for url in known + new:
                self._add(url, 0, now=now)
            self._widen(before)
            self.reconsider()
            if again:
                self.put("again", self.get("again") or now)  # until this round has ended
                self._look_again(self.get("again"), now)
            elif settings.again_after is not None:
                self._look_again(now - settings.again_after * DAY, now)
            nothing = not self.db.execute("SELECT 1 FROM urls WHERE hash IS NOT NULL LIMIT 1").fetchone()
            if retry or nothing:
                self.db.execute(f"UPDATE urls SET {_WAITING_ANEW} WHERE state = 'failed'")
                self.db.execute("UPDATE hosts SET failures = 0")
            self._ask_robots(now, anew=True)
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

    def _look_again(self, before: float, now: float) -> None:
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
                self.db.execute(f"UPDATE urls SET {_WAITING_ANEW}, score = ? WHERE id = ?", (score, row["id"]))
        if last >= 0:
            self.db.execute("UPDATE sites SET valid = 0")

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

    def _widen(self, before: Crawl) -> None:
        """What was skipped for its type, its size or its query is looked at again when the settings now want more."""
        now, reasons = self.settings, []
        if (before.types, before.sitemaps) != (now.types, now.sitemaps):
            reasons += [scopes.OTHER_TYPE, "binary"]
        if now.max_bytes > before.max_bytes:
            reasons += ["too large"]
        for reason in reasons:
            self.db.execute(f"UPDATE urls SET {_WAITING_ANEW} WHERE state = 'skipped' AND reason = ?", (reason,))
        if now.max_queries > before.max_queries:
            self.db.execute("UPDATE stems SET queries = min(queries, ?)", (before.max_queries,))
            for row in self.db.execute(
                "SELECT id, url FROM urls WHERE reason = ? ORDER BY id", (scopes.TOO_MANY_QUERIES,)
            ).fetchall():
                if self._queries(urls.stem(row["url"])) <= now.max_queries:
                    self._set(row["id"], state="waiting", reason="")

    def _reconsider(self, rows: Iterable[sqlite3.Row]) -> None:
        for row in rows:
            if row["state"] == "skipped" and row["reason"] in (scopes.NO_FOLLOW, scopes.TOO_MANY_QUERIES):
                continue
            reason = self._refuses(row["url"], row["depth"], row["site"], row["kind"], row["hops"])
            if reason:
                self._set(row["id"], state="skipped", reason=reason)
            elif row["state"] == "skipped":
                # What was stored before it was blocked is there still.
                self._set(row["id"], state="done" if row["hash"] else "waiting", reason="")

    def _refuses(self, url: str, depth: int, site: int, kind: str, hops: int) -> str:
        """Why a URL is not to be fetched; "" when it is."""
        reason = self.scope.refuses(url, depth)
        if kind == "map" and reason in (scopes.OTHER_TYPE, scopes.NOT_ALLOWED, scopes.OFF_DOMAIN):
            reason = ""  # sitemaps and feeds are no pages, and often lie on a host of their own
        if not reason and hops > self.settings.redirects:
            reason = "many redirects"
        return reason or ("" if self._rules_of(site).allowed(url) else scopes.ROBOTS)

    def _rules_of(self, site: int) -> Robots:
        row = self.db.execute("SELECT robots, valid FROM sites WHERE id = ?", (site,)).fetchone()
        if site not in self._robots or self._robots[site][0] != row["valid"]:
            self._robots[site] = row["valid"], Robots(row["robots"], self.agent)
        return self._robots[site][1]

    # --- adding ---------------------------------------------------------------------------------------

    def add(self, found: Iterable[str], depth: int = 0) -> int:
        """Add URLs (in normal form) by hand; returns how many of them are new."""
        before = self.found()
        with self.transaction():
            for url in found:
                self._add(url, depth, now=time.time())
            if self.may_go_on():
                self.put("ended", "")
        return self.found() - before

    def _add(
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
        host, site = self._host(urls.host(url)), self._site(url)
        reason = scopes.NO_FOLLOW if nofollow else self._refuses(url, depth, site, kind, hops)
        if not reason and depth and "?" in url and self._queries(urls.stem(url)) > self.settings.max_queries:
            reason = scopes.TOO_MANY_QUERIES
        priority = sum(amount for rule, amount in self._priorities if rule.matches(url))
        # 100 if never fetched, 50 (its age has no end then), - 5 path depth; `claim` adds the share of its domain.
        score = 150.0 - 5 * urls.segments(url) + priority + (MAPS_FIRST if kind == "map" else 0)
        self.db.execute(
            "INSERT INTO urls (url, host, site, kind, state, reason, depth, hops, priority, score, tie, found) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (url, host, site, kind, "skipped" if reason else "waiting", reason, depth, hops, priority, score,
             urls.tie(url), now),
        )  # fmt: skip
        if not reason:
            self._need_robots(site, now)

    def _nearer(self, row: sqlite3.Row, depth: int, nofollow: bool) -> list[tuple[str, int, int, bool]]:
        """What follows when a known URL is found again; what to look at next for it."""
        if nofollow or row["kind"] != "page":
            return []
        # A way that may not be followed is no way: its length does not count.
        nearer = depth < row["depth"] or row["reason"] == scopes.NO_FOLLOW
        if nearer:
            self._set(row["id"], depth=depth)
        if row["state"] == "skipped" and nearer and not row["checked"]:
            if row["reason"] != scopes.TOO_MANY_QUERIES:
                reason = self._refuses(row["url"], depth, row["site"], row["kind"], row["hops"])
                self._set(row["id"], state="skipped" if reason else "waiting", reason=reason)
                if not reason:
                    self._need_robots(row["site"], time.time())
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
            self._set(row["id"], state="waiting", reason="")  # its links are not stored: read it again
        return []

    def _host(self, name: str) -> int:
        self.db.execute("INSERT OR IGNORE INTO hosts (name) VALUES (?)", (name,))
        return int(self.db.execute("SELECT id FROM hosts WHERE name = ?", (name,)).fetchone()[0])

    def _site(self, url: str) -> int:
        origin = urls.origin(url)
        self.db.execute(
            "INSERT OR IGNORE INTO sites (origin, host) VALUES (?, ?)", (origin, self._host(urls.host(url)))
        )
        return int(self.db.execute("SELECT id FROM sites WHERE origin = ?", (origin,)).fetchone()[0])

    def _need_robots(self, site: int, now: float, anew: bool = False) -> None:
        """Let the robots.txt of a site be fetched, unless it is known. anew: or could not be read."""
        row = self.db.execute("SELECT origin, valid FROM sites WHERE id = ?", (site,)).fetchone()
        url = f"{row['origin']}/robots.txt"
        known = self.db.execute("SELECT id, state, kind, reason, status FROM urls WHERE url = ?", (url,)).fetchone()
        if known is None:
            self.db.execute(
                "INSERT INTO urls (url, host, site, kind, state, depth, score, tie, found) "
                "VALUES (?, ?, ?, 'robots', 'waiting', 0, ?, ?, ?)",
                (url, self._host(urls.host(url)), site, ROBOTS_FIRST, urls.tie(url), now),
            )
        elif known["state"] == "failed" and known["kind"] == "robots" and not anew:
            self._fail_all("site", site, known["reason"] if not known["status"] else NO_ROBOTS)
        elif known["kind"] != "robots" or (row["valid"] <= now and known["state"] not in ("waiting", "fetching")):
            self._set(
                known["id"], kind="robots", state="waiting", reason="", score=ROBOTS_FIRST, attempts=0, ready=0,
                hops=0, target="", host=self._host(urls.host(url)), hash=None,
            )  # fmt: skip

    def _ask_robots(self, now: float, anew: bool = False) -> None:
        """Let every robots.txt that has become too old, and that something waits for, be fetched again."""
        for row in self.db.execute(
            "SELECT id FROM sites WHERE valid <= ? AND EXISTS "
            "(SELECT 1 FROM urls WHERE urls.site = sites.id AND state = 'waiting' AND kind <> 'robots')", (now,)
        ).fetchall():  # fmt: skip
            self._need_robots(row["id"], now, anew)

    def _queries(self, stem: str) -> int:
        self.db.execute("INSERT INTO stems VALUES (?, 1) ON CONFLICT DO UPDATE SET queries = queries + 1", (stem,))
        return int(self.db.execute("SELECT queries FROM stems WHERE stem = ?", (stem,)).fetchone()[0])

    def _set(self, id_: int, **values: Any) -> None:
        names = ", ".join(f"{name} = ?" for name in values)
        self.db.execute(f"UPDATE urls SET {names} WHERE id = ?", (*values.values(), id_))

    # --- fetching -------------------------------------------------------------------------------------

    def claim(self, now: float) -> Claim | Wait:
        """The next URL to fetch, marked as being fetched by this worker; or how long to wait."""
        with self.transaction():
            self._refresh()
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
            self._set(row["id"], state="fetching", slot=self.slot)
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
        self._ask_robots(now)  # a robots.txt that grew too old holds everything up
        return 0.0 if self.db.total_changes > asked and not full else None

    def finish(self, claim: Claim, outcome: Outcome, now: float, seconds: float = 0.0) -> None:
        """Record what came of a claim, all of it in one transaction.

        now: when the answer was complete; seconds: how long it took.
        """
        with self.transaction():
            self._refresh()
            row = self.db.execute("SELECT * FROM urls WHERE id = ?", (claim.id,)).fetchone()
            if row is None or row["state"] != "fetching" or row["slot"] != self.slot:
                return  # removed or blocked meanwhile
            self._set(claim.id, checked=now, slot=0)
            self._pace(row["host"], outcome, now, seconds)
            match outcome:
                case Stored():
                    self._store(row, outcome, now)
                case Map():
                    self._drop(row, 200, now)
                    self._settle(row, "done", "", 200, now, kind="map", etag=outcome.etag, modified=outcome.modified)
                    self._follow(row["depth"], outcome.pages, (), now)
                    for url in outcome.maps:
                        self._add(url, row["depth"], "map", row["hops"] + 1, now=now)
                case Rules():
                    self._know(row, outcome, now)
                case Unchanged():
                    self._settle(row, "done", "", row["status"], now)
                case Redirect() if claim.kind == "robots":
                    self._set(
                        claim.id, state="waiting", target=outcome.target, hops=row["hops"] + 1,
                        host=self._host(urls.host(outcome.target)),
                    )  # fmt: skip
                case Redirect():
                    self._drop(row, outcome.status, now)
                    self._settle(row, "redirect", "", outcome.status, now, target=outcome.target)
                    self._redirect(row, outcome.target, now)
                case Gone():
                    self._drop(row, outcome.status, now)
                    self._settle(row, "gone", "", outcome.status, now)
                case Skip():
                    self._drop(row, outcome.status, now)
                    self._settle(row, "skipped", outcome.reason, outcome.status, now)
                    self._follow(row["depth"], outcome.follow, outcome.nofollow, now)
                    self._maps(outcome.maps, now)
                case Failure():
                    self._fail(row, outcome, now)

    def _settle(self, row: sqlite3.Row, state: str, reason: str, status: int, now: float, **more: Any) -> None:
        self._set(row["id"], state=state, reason=reason, status=status, attempts=0, ready=0, **more)

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
            self._forget_body(row["hash"])
        depth = self.db.execute("SELECT depth FROM urls WHERE id = ?", (row["id"],)).fetchone()[0]
        self._follow(depth, page.follow, page.nofollow, now)
        if page.canonical and page.canonical != row["url"]:
            self._add(page.canonical, max(1, depth), now=now)
        self._maps(page.maps, now)

    def _follow(self, depth: int, follow: Iterable[str], nofollow: Iterable[str], now: float) -> None:
        for url in follow:
            self._add(url, depth + 1, now=now)
        for url in nofollow:
            self._add(url, depth + 1, nofollow=True, now=now)

    def _maps(self, maps: Iterable[str], now: float) -> None:
        if self.settings.sitemaps:
            for url in maps:
                self._add(url, 0, "map", now=now)

    def _redirect(self, row: sqlite3.Row, target: str, now: float) -> None:
        """Go where a redirect leads. What a start URL leads to is a start URL, unless the user said where to stay."""
        starts = self.get("starts", [])
        new = row["url"] in starts and target not in starts and not self.settings.domains
        if new and not self.scope.refuses(target, 0):
            self.put("starts", [*starts, target])
            self._changed()
            self.reconsider()
        depth = 0 if target in self.get("starts", []) else max(1, row["depth"])
        self._add(target, depth, row["kind"], row["hops"] + 1, now=now)

    def _know(self, row: sqlite3.Row, rules: Rules, now: float) -> None:
        """A site's robots.txt is known: judge what waits for it."""
        site = row["site"]
        self.db.execute(
            "UPDATE sites SET robots = ?, valid = ? WHERE id = ?", (rules.text, now + SECONDS_VALID, site)
        )
        known = self._rules_of(site)
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
                self._set(found["id"], state="skipped", reason=scopes.ROBOTS)
            elif found["state"] == "skipped":
                self._set(found["id"], state="waiting", reason="")
        if self.settings.sitemaps and rules.text:
            for text in known.sitemaps:
                with suppress(urls.Unusable):
                    self._add(urls.normal(text, origin), 0, "map", now=now)

    def _fail(self, row: sqlite3.Row, failure: Failure, now: float) -> None:
        attempts = row["attempts"] + 1
        if failure.again and attempts <= self.settings.retries:
            wait = min(self.settings.backoff * 2 ** (attempts - 1), LONGEST_BACKOFF)
            ready = now + max(wait, failure.after or 0.0)
            self._set(row["id"], state="waiting", attempts=attempts, ready=ready, reason="", status=failure.status)
        else:
            self._settle(row, "failed", failure.reason, failure.status, now)
            if row["kind"] == "robots":  # RFC 9309: as long as it cannot be read, nothing is allowed
                self._fail_all("site", row["site"], NO_ROBOTS if failure.status else failure.reason)
        host = self.db.execute("SELECT failures FROM hosts WHERE id = ?", (row["host"],)).fetchone()
        if host["failures"] >= HOST_GIVES_UP:
            self._fail_all("host", row["host"], "no answer")

    def _fail_all(self, column: str, value: int, reason: str) -> None:
        self.db.execute(
            f"UPDATE urls SET state = 'failed', reason = ? WHERE {column} = ? AND state = 'waiting'", (reason, value)
        )

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
                self._set(row["id"], state="waiting", slot=0)
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

    # --- what is stored -------------------------------------------------------------------------------

    def longest_delay(self) -> float:
        """Seconds between two requests to the host that wants the most."""
        asked = self.db.execute("SELECT coalesce(max(delay), 0) FROM hosts").fetchone()[0]
        return max(self.settings.delay, float(asked))

    def found(self) -> int:
        """How many URLs are known, without robots.txt."""
        return int(self.db.execute("SELECT coalesce(sum(n), 0) FROM counts WHERE kind <> 'robots'").fetchone()[0])

    def body(self, digest: str) -> bytes:
        """The stored bytes with this SHA-256."""
        row = self.db.execute("SELECT data FROM bodies WHERE hash = ?", (digest,)).fetchone()
        return zlib.decompress(row[0])

    def _drop(self, row: sqlite3.Row, status: int, now: float) -> None:
        """Forget what is stored of a URL; the history keeps that it was there."""
        if row["hash"]:
            self._set(row["id"], hash=None, size=0, etag="", modified="", changed=now)
            self.db.execute("INSERT INTO history VALUES (?, ?, ?, NULL)", (row["id"], now, status))
            self._forget_body(row["hash"])

    def _forget_body(self, digest: str | None) -> None:
        self.db.execute(
            "DELETE FROM bodies WHERE hash = ? AND NOT EXISTS (SELECT 1 FROM urls WHERE hash = ?)", (digest, digest)
        )

    # --- orders of the user ---------------------------------------------------------------------------

    def rows(self, rules: Sequence[Rule] = (), state: str = "") -> Iterator[sqlite3.Row]:
        """The URLs that one of the rules matches (all without rules), by URL; without robots.txt."""
        condition, values = ("AND state = ?", (state,)) if state else ("", ())
        found = self.db.execute(f"SELECT * FROM urls WHERE kind <> 'robots' {condition} ORDER BY url", values)
        return (row for row in found if not rules or scopes.any_of(rules, row["url"]))

    def remove(self, rules: Sequence[Rule]) -> int:
        """Forget URLs and their pages; returns how many. One that is linked will be found again."""
        with self.transaction():
            rows = list(self.rows(rules))
            for row in rows:
                self.db.execute("DELETE FROM urls WHERE id = ?", (row["id"],))
                self.db.execute("DELETE FROM history WHERE url = ?", (row["id"],))
                self._forget_body(row["hash"])
            gone = {row["url"] for row in rows}
            self.put("starts", [url for url in self.get("starts", []) if url not in gone])
        return len(rows)

    def block(self, rules: Sequence[Rule]) -> int:
        """Fetch and use nothing that these rules match, from now on; returns how many known URLs that are."""
        with self.transaction():
            self.db.executemany(
                "INSERT OR IGNORE INTO rules VALUES ('block', ?, ?, 0)", [(r.kind, r.text) for r in rules]
            )
            rows = [row for row in list(self.rows(rules)) if row["reason"] != scopes.BLOCKED]
            for row in rows:
                self._set(row["id"], state="skipped", reason=scopes.BLOCKED, slot=0)
            self._changed()
        return len(rows)

    def unblock(self, rules: Sequence[Rule]) -> int:
        """Take rules back; returns how many URLs are free again. Raises UserError for one that is not there."""
        for rule in rules:
            if rule not in self.scope.blocked:
                there = ", ".join(f"{r.text} ({r.kind})" for r in self.scope.blocked) or "none"
                raise UserError(
                    f"could not unblock {rule.text}", f"there is no such {rule.kind} rule; there are: {there}",
                    "name one of these as it was blocked",
                )  # fmt: skip
        with self.transaction():
            before = self._blocked()
            for rule in rules:
                self.db.execute(
                    "DELETE FROM rules WHERE action = 'block' AND kind = ? AND text = ?", (rule.kind, rule.text)
                )
            self._changed()
            self.reconsider()
            self._ask_robots(time.time(), anew=True)
            if self.may_go_on():
                self.put("ended", "")
            return before - self._blocked()

    def _blocked(self) -> int:
        return int(
            self.db.execute("SELECT coalesce(sum(n), 0) FROM counts WHERE reason = ?", (scopes.BLOCKED,)).fetchone()[
                0
            ]
        )

    def prioritise(self, rules: Sequence[Rule], amount: int) -> int:
        """Fetch what these rules match sooner (or later, below 0), now and in future; returns how many wait."""
        with self.transaction():
            for rule in rules:
                self.db.execute(
                    "DELETE FROM rules WHERE action = 'priority' AND kind = ? AND text = ?", (rule.kind, rule.text)
                )
                if amount:
                    self.db.execute("INSERT INTO rules VALUES ('priority', ?, ?, ?)", (rule.kind, rule.text, amount))
            self._changed()
            rows = list(self.rows(rules))
            for row in rows:
                new = sum(value for rule, value in self._priorities if rule.matches(row["url"]))
                self._set(row["id"], priority=new, score=row["score"] - row["priority"] + new)
        return sum(row["state"] == "waiting" for row in rows)


def _statements(script: str) -> Iterator[str]:
    """The statements of a script, one by one: `executescript` would end the transaction."""
    statement = ""
    for line in script.splitlines():
        statement += line.split(" --")[0] + "\n"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
