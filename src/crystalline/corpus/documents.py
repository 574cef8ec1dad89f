"""Corpus, step 3: a file's text is cut into sections, each of which, cleaned, becomes a document with its place.

The *original text* of a file is its decoded content without a byte order mark, as UTF-8. All offsets and
lengths are bytes of it, so in a UTF-8 file without a mark they are bytes of the file itself.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from crystalline.corpus.decoding import encoding_of, pieces

# Where to cut, best first: after a blank line, after a line, after a word.
_BOUNDARIES = ((b"\n\n", b"\n\r\n", b"\r\r"), (b"\n", b"\r"), (b" ", b"\t"))


@dataclass(frozen=True, slots=True)
class Document:
    """A piece of clean text and where it came from.

    hash: SHA-256 of `text` as UTF-8, in hexadecimal.
    source: its file, as the user would name it.
    offset, length: the section of the file's original text, in bytes; cleaned, it is `text`.
    """

    hash: str
    source: str
    offset: int
    length: int
    text: str


def to_line(document: Document) -> bytes:
    """A document as a line of JSON."""
    entry = {name: getattr(document, name) for name in Document.__slots__}  # asdict would copy each value
    return json.dumps(entry, ensure_ascii=False).encode("utf-8") + b"\n"


def from_line(line: bytes) -> Document:
    """The document in a line of JSON. Raises ValueError or TypeError when it is damaged."""
    return Document(**json.loads(line))


def sections(text: Iterable[str], limit: int) -> Iterator[bytes]:
    """Cut text into UTF-8 sections of at most `limit` bytes (at least 8), which joined are the text again.

    Sections end at the best boundary in their second half; the last two are of similar size, so that no crumb
    is left. Empty text is one empty section. Memory: two sections and a piece.
    """
    buffer, start = b"", 0
    for piece in text:
        buffer, start = buffer[start:] + piece.encode("utf-8"), 0
        while len(buffer) - start >= 2 * limit:
            cut = _cut(buffer, start, start + limit)
            yield buffer[start:cut]
            start = cut
    while len(buffer) - start > limit:
        cut = _cut(buffer, start, start + min(limit, (len(buffer) - start + 1) // 2))
        yield buffer[start:cut]
        start = cut
    yield buffer[start:]


def original(path: Path, offset: int, length: int) -> str:
    """What a document was before cleaning: `length` bytes at `offset` of the original text of `path`.

    Raises NotText, OSError, or UnicodeDecodeError when the section does not lie on characters.
    """
    found, position = b"", 0
    for piece in pieces(path, encoding_of(path)):
        data = piece.encode("utf-8")
        found += data[max(0, offset - position) : max(0, offset + length - position)]
        position += len(data)
        if position >= offset + length:
            break
    return found.decode("utf-8")


def _cut(buffer: bytes, start: int, end: int) -> int:
    """The best end of a section from `start` that may not pass `end`, which lies inside `buffer`."""
    middle = start + (end - start) // 2
    for separators in _BOUNDARIES:
        ends = (buffer.rfind(mark, middle, end) + len(mark) for mark in separators)
        cut = max((cut for cut in ends if cut > middle and not _splits(buffer, cut)), default=0)
        if cut:
            return cut
    # No boundary at all: not before an accent either, if one of the last few characters allows it.
    places = [cut for cut in range(end, max(start, end - 32), -1) if not _splits(buffer, cut)]
    return next((cut for cut in places if not _before_accent(buffer, cut)), places[0] if places else end)


def _splits(buffer: bytes, cut: int) -> bool:
    """Whether a cut here goes through a character or through the line end \\r\\n."""
    return buffer[cut] & 0xC0 == 0x80 or buffer[cut - 1 : cut + 1] == b"\r\n"


def _before_accent(buffer: bytes, cut: int) -> bool:
    following = buffer[cut : cut + 4].decode("utf-8", "ignore")
    return unicodedata.combining(following[0]) != 0
