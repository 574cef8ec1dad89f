"""Matrices as text: rows of numbers, the brackets of fplll, or JSON.

Numbers are whole numbers, decimals or fractions, and exact: 3, -0.25, 1e-3, 22/7. In plain text a row is a line, its
numbers are parted by blanks, commas or semicolons, and what follows # is a remark. fplll writes [[1 2] [3 4]], JSON
[[1, 2], [3, 4]], in which numbers may be strings ("1/3").
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction

from crystalline.errors import UserError
from crystalline.lattice.numbers import quote, rational
from crystalline.lattice.reduction import MOST_DIMENSIONS

MOST_TEXT = 4_000_000  # characters: room for a million digits, and for the blanks between
_WORD = re.compile(r"[\[\]]|[^\s,;\[\]]+")


def parse_matrix(text: str, name: str = "the matrix") -> list[list[Fraction]]:
    """The rows in `text`. name: of its source, for messages. Raises UserError, with the line, for anything else."""
    if len(text) > MOST_TEXT:
        raise UserError(f"could not read {name}", f"it is longer than {MOST_TEXT:,} signs", "give a smaller matrix")
    lines = [line.split("#", 1)[0] for line in text.splitlines()]
    rows: list[list[Fraction]] = []
    places: list[int] = []  # the line that each row begins in
    for place, words in _bracketed(lines, name) if "[" in text or "]" in text else _plain(lines):
        if len(rows) == MOST_DIMENSIONS or len(words) > MOST_DIMENSIONS:
            raise _refusal(
                name, place, f"there are more than {MOST_DIMENSIONS} rows or columns", "use fewer dimensions"
            )
        try:
            rows.append([rational(word) for word in words])
        except ValueError as error:
            raise _refusal(name, place, str(error), "use whole numbers, decimals or fractions like 22/7") from error
        places.append(place)
        if len(words) != len(rows[0]):
            raise _refusal(
                name,
                place,
                f"row {len(rows)} has length {len(words)}, the first row {len(rows[0])}",
                "give every row as many numbers",
            )
    if not rows or not rows[0]:
        raise UserError(
            f"could not read {name}", "there is no number in it", "give one row of numbers for each vector"
        )
    return rows


def parse_vector(text: str, name: str = "the vector") -> list[Fraction]:
    """The numbers of a single row, in any of the same forms."""
    rows = parse_matrix(f"[{text}]" if text.lstrip().startswith("[") else text, name)
    if len(rows) != 1:
        raise UserError(f"could not read {name}", f"it has {len(rows)} rows", "give one row of numbers")
    return rows[0]


def _plain(lines: list[str]) -> Iterator[tuple[int, list[str]]]:
    for place, line in enumerate(lines, start=1):
        words = _WORD.findall(line)
        if words:
            yield place, words


def _bracketed(lines: list[str], name: str) -> Iterator[tuple[int, list[str]]]:
    """The rows of [[...] [...]]: their lines and words."""
    row: list[str] = []
    depth, began, ended = 0, 1, False
    for place, line in enumerate(lines, start=1):
        for word in _WORD.findall(line):
            if ended or (depth == 0 and word != "[") or (depth == 2 and word == "["):
                raise _refusal(name, place, f"{quote(word)} does not belong here", "write it as [[1, 2], [3, 4]]")
            if word == "[":
                depth, row, began = depth + 1, [], place
            elif word == "]":
                depth -= 1
                ended = depth == 0
                if depth == 1:
                    yield began, row
            elif depth == 1:
                raise _refusal(name, place, f"{quote(word)} stands outside of a row", "write it as [[1, 2], [3, 4]]")
            else:
                row.append(word.strip('"'))
    if not ended:
        raise _refusal(name, len(lines), "a bracket is not closed", "write it as [[1, 2], [3, 4]]")


def _refusal(name: str, place: int, why: str, fix: str) -> UserError:
    return UserError(f"could not read {name}", f"line {place}: {why}", fix)
