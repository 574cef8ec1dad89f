"""Crawler, the file: everything a crawl knows is in one SQLite database, changed in whole transactions only."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from crystalline.corpus.crawl import urls
from crystalline.errors import EXIT_DAMAGED, EXIT_SYSTEM, UserError

FILE = "crawl.sqlite"
FORMAT = 1

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


class Database:
    """The tables of one crawl. Several processes may have them open.

    folder: made when missing, with `create`.
    """

    def __init__(self, folder: Path, create: bool = False) -> None:
        self.folder = folder
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
            found = self.get("format")
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

    def found(self) -> int:
        """How many URLs are known, without robots.txt."""
        return int(self.db.execute("SELECT coalesce(sum(n), 0) FROM counts WHERE kind <> 'robots'").fetchone()[0])

    def body(self, digest: str) -> bytes:
        """The stored bytes with this SHA-256."""
        row = self.db.execute("SELECT data FROM bodies WHERE hash = ?", (digest,)).fetchone()
        return zlib.decompress(row[0])

    def update(self, id_: int, **values: Any) -> None:
        """Change columns of a URL."""
        names = ", ".join(f"{name} = ?" for name in values)
        self.db.execute(f"UPDATE urls SET {names} WHERE id = ?", (*values.values(), id_))

    def host_id(self, name: str) -> int:
        """The number of a host, which is made when it is new."""
        self.db.execute("INSERT OR IGNORE INTO hosts (name) VALUES (?)", (name,))
        return int(self.db.execute("SELECT id FROM hosts WHERE name = ?", (name,)).fetchone()[0])

    def site_id(self, url: str) -> int:
        """The number of the site (scheme, host and port) that a URL belongs to, made when it is new."""
        origin = urls.origin(url)
        self.db.execute(
            "INSERT OR IGNORE INTO sites (origin, host) VALUES (?, ?)", (origin, self.host_id(urls.host(url)))
        )
        return int(self.db.execute("SELECT id FROM sites WHERE origin = ?", (origin,)).fetchone()[0])

    def drop(self, row: sqlite3.Row, status: int, now: float) -> None:
        """Forget what is stored of a URL; the history keeps that it was there."""
        if row["hash"]:
            self.update(row["id"], hash=None, size=0, etag="", modified="", changed=now)
            self.db.execute("INSERT INTO history VALUES (?, ?, ?, NULL)", (row["id"], now, status))
            self.forget_body(row["hash"])

    def forget_body(self, digest: str | None) -> None:
        """Drop stored bytes that no URL has any more."""
        self.db.execute(
            "DELETE FROM bodies WHERE hash = ? AND NOT EXISTS (SELECT 1 FROM urls WHERE hash = ?)", (digest, digest)
        )


def _statements(script: str) -> Iterator[str]:
    """The statements of a script, one by one: `executescript` would end the transaction."""
    statement = ""
    for line in script.splitlines():
        statement += line.split(" --")[0] + "\n"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
