"""A few lines at the bottom of a terminal that are drawn again in place, with plain control sequences.

The cursor stays visible and always stands on the line below them, nothing is switched on that would have to be
switched off again: a process that is killed leaves its terminal as it should be.
"""

from __future__ import annotations

import logging
import os
import sys
import unicodedata
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, TextIO

Part = tuple[str, str]  # a text and its style: a word of STYLES, or "" for none
Line = Sequence[Part]

STYLES = {"bold": "1", "dim": "2", "good": "32", "warn": "33", "bad": "31", "bar": "36"}
SPARKS = " ▁▂▃▄▅▆▇█"
PLAIN_SPARKS = " ._-=+*#@"  # for a terminal that has ASCII only


def is_live(stream: TextIO) -> bool:
    """Whether lines can be drawn again in place on `stream`."""
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def styled(text: str, style: str, stream: TextIO) -> str:
    """`text` in one of STYLES, if `stream` shows styles and nobody asked for none (NO_COLOR)."""
    return f"\x1b[{STYLES[style]}m{text}\x1b[0m" if is_live(stream) and not os.environ.get("NO_COLOR") else text


class Live:
    """Lines that stay at the end of `stream`, below everything that is written meanwhile.

    Use it as a context. Inside, Python's messages (standard error and logging, when they go to this stream) appear
    above the lines; afterwards the lines stay where they are.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.colour = not os.environ.get("NO_COLOR")
        self.unicode = _can_write(stream, SPARKS + "━")
        self._lines: list[Line] = []
        self._drawn: list[int] = []  # columns of each line that is on the screen
        self._pending = ""  # the beginning of a message whose end has not come
        self._pid = os.getpid()
        self._undo: list[Callable[[], Any]] = []

    def size(self) -> tuple[int, int]:
        """Columns and rows of the terminal now."""
        try:
            columns, rows = os.get_terminal_size(self.stream.fileno())
        except (OSError, ValueError):
            columns, rows = 0, 0
        return columns or 80, rows or 24

    def draw(self, lines: Sequence[Line]) -> None:
        """Replace the lines by these. What does not fit the terminal is left out."""
        self._lines = list(lines)
        self._put("")

    def write(self, text: str) -> int:
        """Print a message above the lines, whole lines at a time."""
        if os.getpid() != self._pid:  # a forked worker knows nothing of what is on the screen now
            return self.stream.write(text)
        whole, newline, self._pending = (self._pending + text).rpartition("\n")
        if newline:
            self._put(whole + newline)
        return len(text)

    def flush(self) -> None:
        self.stream.flush()

    def __getattr__(self, name: str) -> Any:  # everything else that one may ask a text stream
        return getattr(self.stream, name)

    def __enter__(self) -> Live:
        for handler in logging.getLogger("crystalline").handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream is self.stream:
                handler.setStream(self)
                self._undo.append(partial(handler.setStream, self.stream))
        if sys.stderr is self.stream:
            sys.stderr = self
            self._undo.append(partial(setattr, sys, "stderr", self.stream))
        return self

    def __exit__(self, *_: object) -> None:
        for undo in self._undo:
            undo()
        if self._pending:
            self.write("\n")

    def _put(self, message: str) -> None:
        """In one piece: go up to where the lines begin, write the message over them, then the lines again."""
        columns, rows = self.size()
        lines = [clip(line, columns - 1) for line in self._lines[: max(0, rows - 1)]]
        # A terminal that has become narrower has broken the lines, so they stand in more rows than before.
        up = sum(max(1, -(-width // columns)) for width in self._drawn)
        text = f"\x1b[{up}A" if up else ""
        text += "\r" + message.replace("\n", "\x1b[K\n")
        text += "".join(f"{self._styled(line)}\x1b[K\n" for line in lines) + "\x1b[J"
        self._drawn = [sum(map(columns_of, (part for part, _ in line))) for line in lines]
        self.stream.write(text)
        self.stream.flush()

    def _styled(self, line: Line) -> str:
        if not self.colour:
            return "".join(text for text, _ in line)
        return "".join(f"\x1b[{STYLES[style]}m{text}\x1b[0m" if style else text for text, style in line)


def columns_of(text: str) -> int:
    """How many columns of a terminal `text` takes."""
    return sum(_columns(character) for character in text)


def _columns(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def clip(line: Line, columns: int) -> list[Part]:
    """The line cut off after so many columns, without characters that would move the cursor."""
    parts: list[Part] = []
    for text, style in line:
        kept = ""
        for character in text:
            character = character if character.isprintable() else "�"
            columns -= _columns(character)
            if columns < 0:
                return [*parts, (kept, style)]
            kept += character
        parts.append((kept, style))
    return parts


def bar(share: float, columns: int, fine: bool = True) -> tuple[str, str]:
    """A bar that is `share` full (0 to 1), `columns` wide: its full part and its empty part."""
    full = round(min(1.0, max(0.0, share)) * columns)
    return ("━" if fine else "#") * full, ("─" if fine else "-") * (columns - full)


def sparkline(values: Sequence[float], columns: int, fine: bool = True) -> str:
    """The course of `values` in so many characters or fewer, each the mean of an equal part; lowest to highest."""
    signs = SPARKS[1:] if fine else PLAIN_SPARKS[1:]
    count = min(columns, len(values))
    edges = [len(values) * k // count for k in range(count + 1)] if count > 0 else [0]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    if not means:
        return ""
    low, high = min(means), max(means)
    scale = (len(signs) - 1) / (high - low) if high > low else 0.0
    return "".join(signs[round((value - low) * scale)] for value in means)


def _can_write(stream: TextIO, text: str) -> bool:
    try:
        text.encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
