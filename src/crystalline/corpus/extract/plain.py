"""Plain text and source code: streaming."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from crystalline.corpus.extract import sniff
from crystalline.corpus.extract.item import Text
from crystalline.settings import Extract

MOST_LINE = 16 << 20  # characters; a longer line comes in parts


def stream(text: Iterator[str], head: bytes, source: str, settings: Extract) -> Text:
    """The text as it is."""
    return Text(sniff.kind_of(head, source), text)


def lines(text: Iterable[str]) -> Iterator[str]:
    """Lines with their ends, of text in pieces."""
    rest = ""
    for piece in text:
        rest += piece
        if "\n" in piece:
            *whole, rest = rest.split("\n")
            for line in whole:
                yield line + "\n"
        if len(rest) > MOST_LINE:
            yield rest
            rest = ""
    if rest:
        yield rest
