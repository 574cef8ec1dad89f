"""Tables in CSV or TSV: streaming."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from itertools import chain, islice

from crystalline.corpus.extract import plain
from crystalline.corpus.extract.item import Text
from crystalline.settings import Extract

SAMPLE_LINES = 20  # from which the delimiter is told


def stream(text: Iterator[str], head: bytes, source: str, settings: Extract) -> Text:
    """Rows of cells with a tab between them. Quotes are taken off; line ends inside of a cell become spaces."""
    following = plain.lines(text)
    start = list(islice(following, SAMPLE_LINES))
    return Text("table", _rows(chain(start, following), _delimiter(start)), {})


def _delimiter(sample: list[str]) -> str:
    """The one that divides most lines into the same number of cells, more than one; comma when none does."""
    best, most = ",", (0, 0)
    for delimiter in ",;\t|":
        try:
            widths = [len(row) for row in csv.reader(sample[:-1] or sample, delimiter=delimiter) if row]
        except csv.Error:
            continue
        usual = max(set(widths), key=lambda width: (widths.count(width), width), default=0)
        score = (widths.count(usual) if usual > 1 else 0, usual)
        if score > most:
            best, most = delimiter, score
    return best


def _rows(table: Iterable[str], delimiter: str) -> Iterator[str]:
    csv.field_size_limit(plain.MOST_LINE * 2)
    held = iter(table)
    try:
        for row in csv.reader(held, delimiter=delimiter):
            cells = (" ".join(cell.split()) for cell in row)
            if line := "\t".join(cells).rstrip():
                yield line + "\n"
    except csv.Error:  # an unclosed quote that swallowed the table: what is left comes as it is
        yield from held
