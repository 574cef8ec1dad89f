"""Crawler: what is asked for, and what can come of it. Nothing here does anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


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
