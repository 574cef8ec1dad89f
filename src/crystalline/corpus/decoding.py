"""Corpus, step 2: from a file's bytes to its text, in pieces, or the reason why it has none.

A file is judged as a whole before any of its text is used: it is read twice, a piece at a time, so that one
of any size takes a few megabytes of memory, and a bad byte at its very end does not leave half a file in the
corpus.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

PIECE = 1 << 20  # bytes
SAMPLE = 16_384  # bytes around the first one that is not UTF-8, from which an older encoding is guessed

# A file by its path, bytes in memory, or an open file that can be searched.
Content = Path | bytes | BinaryIO

# Longest first: UTF-32's mark begins with UTF-16's. These codecs take the mark off.
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
UTF8 = "utf-8-sig"  # takes the mark off when there is one

# Control characters other than those that text has: tab, line ends, form feed, backspace, escape (in terminal
# logs) and the end of a DOS file.
_CONTROL = bytes(set(range(32)) - set(b"\t\n\r\v\f\b\x1b\x1a")) + b"\x7f"
_MOST_CONTROL = 0.02  # share of control characters above which a piece is no text


class NotText(Exception):
    """A file has no text that can be read. reason: "binary" or "undecodable"."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail


def encoding_of(content: Content, declared: str = "") -> str:
    """The encoding in which all of a file can be decoded: UTF-8, UTF-16 or UTF-32 with a mark, the one that was
    `declared` (by a server or a page), or a guess.

    Raises NotText, or OSError when the file cannot be read.
    """
    with opened(content) as file:
        head = file.read(4)
    encoding = next((name for mark, name in MARKS if head.startswith(mark)), UTF8)
    bad = _first_bad_byte(content, encoding)
    if bad is None:
        return encoding
    if encoding != UTF8:
        raise NotText("undecodable", f"not {encoding} at byte {bad}, though it says so")
    if declared and is_text_encoding(declared) and _first_bad_byte(content, declared) is None:
        return declared
    guess = _guess(content, bad)
    if guess is None or _first_bad_byte(content, guess) is not None:
        raise NotText("undecodable", f"not UTF-8 at byte {bad}, and no other encoding fits")
    return guess


def pieces(content: Content, encoding: str) -> Iterator[str]:
    """The text of a file in pieces of about a megabyte, without a byte order mark.

    Raises UnicodeError when the text is not in `encoding`, or OSError.
    """
    decoder = codecs.getincrementaldecoder(encoding)("strict")
    with opened(content) as file:
        while data := file.read(PIECE):
            yield decoder.decode(data)
        yield decoder.decode(b"", final=True)


def is_text_encoding(name: str) -> bool:
    """Whether Python can decode text by this name (not so "base64", nor a name that a server made up)."""
    try:
        return bool(codecs.lookup(name)._is_text_encoding)  # what bytes.decode looks at
    except (LookupError, ValueError):  # ValueError: a NUL in the name
        return False


@contextmanager
def opened(content: Content) -> Iterator[BinaryIO]:
    """A content from its beginning; an open file is not closed."""
    if isinstance(content, bytes):
        yield BytesIO(content)
    elif isinstance(content, Path):
        with open(content, "rb") as file:
            yield file
    else:
        content.seek(0)
        yield content


def _first_bad_byte(content: Content, encoding: str) -> int | None:
    """About where a file stops being text in `encoding`, or None. Raises NotText when it is binary."""
    wide = encoding in ("utf-16", "utf-32")  # has zero bytes by nature, so it is judged by its text
    position = 0
    try:
        decoder = codecs.getincrementaldecoder(encoding)("strict")
        with opened(content) as file:
            while data := file.read(PIECE):
                if not wide:
                    _refuse_binary(data)
                text = decoder.decode(data)
                as_utf8 = text.encode("utf-8")  # some codecs let half characters (surrogates) through; this does not
                if wide:
                    _refuse_binary(as_utf8)
                position += len(data)
            decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        return position + error.start
    except (UnicodeError, LookupError):
        return position
    return None


def _refuse_binary(data: bytes) -> None:
    control = len(data) - len(data.translate(None, _CONTROL))
    if b"\0" in data or control > _MOST_CONTROL * len(data):
        raise NotText("binary")


def _guess(content: Content, bad: int) -> str | None:
    """The most likely encoding of text that is not UTF-8 at byte `bad`, from a sample around it."""
    from charset_normalizer import from_bytes

    with opened(content) as file:
        file.seek(max(0, bad - SAMPLE // 2))
        best = from_bytes(file.read(SAMPLE)).best()
    return best.encoding if best else None
