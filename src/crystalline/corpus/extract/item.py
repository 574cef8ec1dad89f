"""What goes into extraction, what comes out of it, and the one exception that readers raise."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Literal

from crystalline.corpus.decoding import NotText, opened

HEAD = 16_384  # bytes of a file from which its format is told

# prose: sentences for people. code: source code, also notebooks. table: rows with a tab between cells.
# data: JSON, XML, settings and the like, as they are.
Kind = Literal["prose", "code", "table", "data"]


@dataclass(frozen=True, slots=True)
class Raw:
    """Something that may hold text: a file, or bytes in memory (a page).

    source: how the user names it, a path or URL; it comes back in every result.
    path, data: one of the two.
    media_type, encoding: what came with it, such as "text/html" and "utf-8", or "". Only hints: content wins.
    """

    source: str
    path: Path | None = None
    data: bytes | None = None
    media_type: str = ""
    encoding: str = ""

    @property
    def content(self) -> Path | bytes:
        return self.path if self.path is not None else self.data or b""

    def head(self) -> bytes:
        """The first 16 kB. Raises OSError."""
        with opened(self.content) as file:
            return file.read(HEAD)


@dataclass(frozen=True, slots=True)
class Extracted:
    """The text of a file, page, or member of an archive or mail.

    source: that of the Raw, with "!member" after it for what lies inside: "mail.zip!inner/a.pdf".
    text: in pieces; not yet cleaned.
    metadata: format always; title, author, date, language, url, pages, ... where known. Texts and numbers only.
    """

    source: str
    text: Iterable[str]
    kind: Kind
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Item:
    """What a reader reads: an open file that can be searched, on disk or in memory."""

    source: str
    file: BinaryIO
    media_type: str = ""
    encoding: str = ""
    format: str = ""  # "": to be told from the content

    def within(self, megabytes: int) -> None:
        """Raises Unreadable when it is larger."""
        if self.file.seek(0, 2) > megabytes * 1_000_000:
            raise Unreadable("too large", f"more than {megabytes:,} MB (extract.max_file_mb)")

    def whole(self, megabytes: int) -> bytes:
        """All of it. Raises Unreadable when it has more than so many megabytes."""
        self.within(megabytes)
        self.file.seek(0)
        return self.file.read()

    def head(self) -> bytes:
        """The first 16 kB."""
        self.file.seek(0)
        return self.file.read(HEAD)


@dataclass(frozen=True, slots=True)
class Text:
    """What a reader returns; the fields are as in Extracted."""

    kind: Kind
    pieces: Iterable[str]
    metadata: dict[str, Any] = field(default_factory=dict)


class Unreadable(Exception):
    """A file whose text cannot be had. reason: a short phrase, for counting; detail: more about this one."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


def in_memory(source: str, data: bytes, media_type: str = "", encoding: str = "") -> Item:
    """An item that is not on disk."""
    return Item(source, BytesIO(data), media_type, encoding)


def why(error: Exception) -> tuple[str, str]:
    """(reason, detail) of a failure to read a file. Broken ones make parsers raise anything."""
    if isinstance(error, (Unreadable, NotText)):
        return error.reason, error.detail
    if isinstance(error, MemoryError):
        return "too much memory", "needs more than extract.memory_mb"
    if isinstance(error, RecursionError):
        return "broken", "nested too deeply"
    said = re.sub(r" object at 0x[0-9a-f]+", "", " ".join(str(error).split()))[
        :200
    ]  # an address: never twice the same
    return "broken", f"{type(error).__name__}: {said}" if said else type(error).__name__
