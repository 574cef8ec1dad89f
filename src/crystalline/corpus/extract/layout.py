"""From pieces of text with their places on pages to paragraphs in reading order.

For each page: what stands in columns is read column by column, a line that spans them dividing those above it from
those below. Then over all pages: lines that come again at the same place at the top or bottom are left out, lines are
joined to paragraphs, and words that were divided at the end of a line are made whole.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

EDGE_ROWS = 3  # at the top and at the bottom of a page that may be running titles and page numbers
REPEATED = 3  # pages on which the same text is a running title
SAME_PLACE = 0.02  # of the page's height
COLUMN_ROWS = 3  # least in a column
COLUMN_WIDTH = 8.0  # least, in font sizes
COLUMN_FULL, COLUMN_SHARE = 0.6, 0.6  # this share of a column's lines fill this share of its width; a table's do not
ALIGNED = 3.0  # points; cells of a table begin within so much of each other
HEADING = 1.15  # a change of font size by more than this begins a paragraph
LEADING = 1.35  # and so does a distance to the line above of more than this, by the usual one
INDENT = 0.8  # and a line that begins so many font sizes to the right

_WIDE = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef\u3000-\u303f"
_BOTH_WIDE = re.compile(f"[{_WIDE}]\\s*\n\\s*[{_WIDE}]")
_BULLET = re.compile(r"(?:[•‣◦▪●■–—*·]|-(?=\s)|\(?(?:\d{1,3}|[a-zA-Z])[.)](?=\s))")
_ENDED = re.compile(r"[.!?:;…。！？؟۔»”\"')\]]$")
HYPHENS = "-\u00ad\u2010"
_SOFT = "\u00ad"  # shown only where it divides a word
_NUMBER = re.compile(r"\W*(?:\d+|[ivxlc]+)\W*")
_WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")


@dataclass(slots=True)
class Segment:
    """Text without a wide gap in it. Places in points, y upwards; size: of its font, or the height of its line."""

    text: str
    left: float
    bottom: float
    right: float
    top: float
    size: float

    @property
    def middle(self) -> float:
        return (self.bottom + self.top) / 2


@dataclass(slots=True)
class Page:
    """The segments of a page, and its height."""

    segments: list[Segment]
    height: float


@dataclass(slots=True)
class _Line:
    """Segments beside each other that are read together. column: a number; left, right: of that column."""

    segments: list[Segment]
    column: int
    left: float = 0.0
    right: float = 0.0

    @property
    def first(self) -> Segment:
        return self.segments[0]

    @property
    def text(self) -> str:
        return "\t".join(segment.text for segment in self.segments)

    @property
    def size(self) -> float:
        return max(segment.size for segment in self.segments)


def paragraphs(pages: list[Page], everything: bool = False) -> Iterator[str]:
    """The text of all pages; with `everything` running titles and page numbers stay. Lines end with "\\n"."""
    if not everything:
        pages = _without_running_titles(pages)
    lines = [line for page in pages for line in _lines(page)]
    words = {word.lower() for line in lines for word in _WORD.findall(line.text)[1:-1]}
    leading = _leading(lines)
    text, previous = "", None
    for line in lines:
        if previous is None:
            text = line.text
        elif len(line.segments) > 1 or len(previous.segments) > 1:  # rows of a table
            apart = not (len(line.segments) > 1 and len(previous.segments) > 1)
            yield text.rstrip() + ("\n\n" if apart else "\n")
            text = line.text
        elif _begins(line, previous, leading):
            yield text.rstrip() + ("\n" if _BULLET.match(line.text) and _BULLET.match(text) else "\n\n")
            text = line.text
        else:
            text = joined(text, line.text, words)
        previous = line
    if text.strip():
        yield text.rstrip() + "\n"


def joined(text: str, following: str, words: set[str]) -> str:
    """A text and the line that follows it. words: that the document has elsewhere, in lower case; they tell whether
    a hyphen at the end of a line divides a word or belongs to it.
    """
    text, following = text.rstrip(), following.lstrip()
    if not text or not following:
        return text + following
    if text[-1] not in HYPHENS or len(text) < 2 or not text[-2].isalnum():
        wide = _BOTH_WIDE.match(text[-1] + "\n" + following[0])
        return f"{text}{'' if wide else ' '}{following}"
    if not following[0].isalpha():
        return text[:-1] + "-" + following
    before, after = _WORD.findall(text[:-1])[-1:], _WORD.match(following)
    if before and after and text[-1] not in _SOFT:
        whole, compound = (before[0] + after.group()).lower(), f"{before[0]}-{after.group()}".lower()
        if following[0].isupper() or (compound in words and whole not in words):
            return text[:-1] + "-" + following
    return text[:-1] + following


# --- a page ----------------------------------------------------------------------------------------------------


def _lines(page: Page) -> Iterator[_Line]:
    for column, segments in enumerate(_columns(page.segments)):
        left = min(segment.left for segment in segments)
        right = max(segment.right for segment in segments)
        for row in _cells(_rows(segments)):
            yield _Line(row, column, left, right)


def _cells(rows: list[list[Segment]]) -> Iterator[list[Segment]]:
    """Rows with their segments put together, except where the row above or below has a cell that begins at the same
    place: that is a table.
    """
    for number, row in enumerate(rows):
        starts = [
            other.left for near in (number - 1, number + 1) if 0 <= near < len(rows) for other in rows[near][1:]
        ]
        cells = row[:1]
        for segment in row[1:]:
            if any(abs(segment.left - start) < ALIGNED / 2 for start in starts):
                cells.append(segment)
            else:  # a wide space, as in a line that was stretched to the width of its column
                last = cells[-1]
                box = (last.left, min(last.bottom, segment.bottom), segment.right, max(last.top, segment.top))
                cells[-1] = Segment(f"{last.text} {segment.text}", *box, max(last.size, segment.size))
        yield cells


def _columns(segments: list[Segment]) -> Iterator[list[Segment]]:
    """The segments in groups that are read one after the other, each from top to bottom."""
    gutter = _gutter(segments)
    if gutter is None:
        if segments:
            yield segments
        return
    band: list[Segment] = []
    for row in _rows(segments):
        if any(segment.left < gutter < segment.right for segment in row):
            yield from _beside(band, gutter)
            yield row
            band = []
        else:
            band += row
    yield from _beside(band, gutter)


def _beside(band: list[Segment], gutter: float) -> Iterator[list[Segment]]:
    for side in (
        [segment for segment in band if segment.right <= gutter],
        [segment for segment in band if segment.right > gutter],
    ):
        yield from _columns(side)


def _gutter(segments: list[Segment]) -> float | None:
    """Where the second of two or more columns of text begins, or None."""
    if len(segments) < 2 * COLUMN_ROWS:
        return None
    size = median(segment.size for segment in segments)
    starts = Counter(round(segment.left / ALIGNED) for segment in segments)
    best, most = None, 0
    for start, count in starts.items():
        if count < COLUMN_ROWS:
            continue
        x = start * ALIGNED - 2.0
        left = [segment for segment in segments if segment.right <= x]
        right = [segment for segment in segments if segment.left >= x]
        score = 2 * (len(left) + len(right)) - len(segments)  # those that span it count against it
        if score > most and _are_columns(left, right, size):
            best, most = x, score
    return best


def _are_columns(left: list[Segment], right: list[Segment], size: float) -> bool:
    """Whether two groups are text side by side, not the cells of a table."""
    left_end = max((segment.right for segment in left), default=0.0)
    for side in ([cell for row in _cells(_rows(segments)) for cell in row] for segments in (left, right)):
        if len(side) < COLUMN_ROWS:
            return False
        ends = sorted(segment.right for segment in side)
        width = ends[int(0.9 * (len(ends) - 1))] - min(segment.left for segment in side)
        full = sum(segment.right - segment.left >= COLUMN_FULL * width for segment in side)
        if side[0].left < left_end and full < COLUMN_SHARE * len(side):  # the right one may be several columns
            return False
        if median(segment.right - segment.left for segment in side) < COLUMN_WIDTH * size:
            return False
    top = min(max(segment.top for segment in side) for side in (left, right))
    bottom = max(min(segment.bottom for segment in side) for side in (left, right))
    lowest = min(max(s.top for s in side) - min(s.bottom for s in side) for side in (left, right))
    return top - bottom >= 0.5 * lowest


def _rows(segments: list[Segment]) -> list[list[Segment]]:
    """Segments at the same height together, from top to bottom, and in a row from left to right."""
    rows: list[list[Segment]] = []
    for segment in sorted(segments, key=lambda s: (-s.middle, s.left)):
        if rows and abs(rows[-1][0].middle - segment.middle) < 0.5 * min(rows[-1][0].size, segment.size):
            rows[-1].append(segment)
        else:
            rows.append([segment])
    return [sorted(row, key=lambda s: s.left) for row in rows]


# --- all pages -------------------------------------------------------------------------------------------------


def _without_running_titles(pages: list[Page]) -> list[Page]:
    """Without page numbers, and what stands with or without one at the same place at the top or bottom of pages."""
    edges = [[_edge(page, rows) for rows in _edges(page)] for page in pages]
    seen = Counter(  # on how many pages a text stands at about this height
        key
        for page in edges
        for key in {(text, height + shift) for edge in page for (text, height), _ in edge for shift in (-1, 0, 1)}
    )
    needed = max(2, min(REPEATED, len(pages)))
    shift = _page_numbering(edges)
    kept = []
    for index, (page, sides) in enumerate(zip(pages, edges, strict=True)):
        running: set[int] = set()
        for edge in sides:
            for place, (key, row) in enumerate(edge):  # from the outside in, up to the first that is the page's own
                numbered = place == 0 and shift is not None and index + shift in _end_numbers(row)
                if seen[key] < needed and not numbered:
                    break
                running |= {id(segment) for segment in row}
        kept.append(Page([segment for segment in page.segments if id(segment) not in running], page.height))
    return kept


def _edges(page: Page) -> list[list[list[Segment]]]:
    rows = _rows(page.segments)
    return [rows[:EDGE_ROWS], rows[::-1][:EDGE_ROWS]]


def _edge(page: Page, rows: list[list[Segment]]) -> list[tuple[tuple[str, int], list[Segment]]]:
    """((text with # for page numbers, height on the page in steps), row) of each row."""
    return [((_title(row), round(row[0].middle / (SAME_PLACE * page.height or 1))), row) for row in rows]


def _title(row: list[Segment]) -> str:
    """The text of a row, with # for what may be a page number: at its ends, and all numbers of "page 3 of 10"."""
    words = " ".join(segment.text for segment in row).lower().split()
    if len(words) == 1 or any(letter.isalpha() for word in words for letter in word):  # else numbers of a table
        for place in range(len(words)) if len(words) <= 4 else (0, -1):
            if _NUMBER.fullmatch(words[place]):
                words[place] = "#"
    return " ".join(words)


def _end_numbers(row: list[Segment]) -> set[int]:
    words = " ".join(segment.text for segment in row).split()
    return {int(word) for word in (*words[:1], *words[-1:]) if word.isascii() and word.isdigit() and len(word) < 6}


def _page_numbering(edges: list[list[list[tuple[tuple[str, int], list[Segment]]]]]) -> int | None:
    """What to add to a page's place to get the number that is printed on it; None when they have none."""
    shifts = Counter(
        number - index
        for index, page in enumerate(edges)
        for number in {number for edge in page for _, row in edge[:1] for number in _end_numbers(row)}
    )
    shift, count = max(shifts.items(), key=lambda item: item[1], default=(0, 0))
    return shift if count >= max(REPEATED, 0.5 * len(edges)) else None


def _leading(lines: list[_Line]) -> float:
    """The usual distance of two lines, in font sizes."""
    found = []
    for previous, line in pairwise(lines):
        distance = previous.first.bottom - line.first.bottom
        if previous.column == line.column and 0 < distance < 3 * line.size:
            found.append(round(distance / line.size, 2))
    if not found:
        return 1.2
    # The smallest that is common: where every paragraph has one line, the median is that between paragraphs.
    counts = Counter(round(distance, 1) for distance in found)
    return min(distance for distance, count in counts.items() if count >= 0.15 * len(found)) + 0.05


def _begins(line: _Line, previous: _Line, leading: float) -> bool:
    """Whether a line begins a paragraph."""
    if not 1 / HEADING < line.size / previous.size < HEADING or _BULLET.match(line.text):
        return True
    short = previous.first.right < previous.right - 4 * previous.size
    distance = previous.first.bottom - line.first.bottom
    if distance <= 0 or previous.column != line.column:  # another column or page
        return bool(_ENDED.search(previous.text.rstrip())) and (short or not _starts_small(line.text))
    if distance > LEADING * leading * line.size:
        return True
    own, before = line.first.left - line.left, previous.first.left - previous.left
    if own - before > INDENT * line.size and before < INDENT * line.size:
        return not _BULLET.match(previous.text)
    return short and bool(_ENDED.search(previous.text.rstrip())) and not _starts_small(line.text)


def _starts_small(text: str) -> bool:
    return text.lstrip()[:1].islower()
