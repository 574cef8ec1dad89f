"""Where a passage of the text comes from: exactly, without regard to case and spaces, or the most similar one.

The corpus is read from the disk, some hundreds of megabytes a second; there is no index that would have to be made,
kept and trusted. What is sought in the raw bytes is a word or two; what they lead to is then compared in full.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from crystalline.corpus.documents import Document, from_line
from crystalline.corpus.stage import records
from crystalline.errors import EXIT_USAGE, UserError
from crystalline.run_folder import reporting_os_errors
from crystalline.tokens.stream import SplitName

BLOCK = 8 << 20  # bytes read at once
NEAREST_WORDS = 6  # of the text, the longest, by which similar documents are sought
NEAREST_DOCUMENTS = 40  # that are compared in full
NEAREST_RUN = 3  # words: likeness is the share of the text's runs of three words that a document has
LEAST_LIKENESS = 0.2
EXCERPT = 80  # characters to each side

How = Literal["exact", "but for case and spaces", "similar"]


@dataclass(frozen=True)
class Passage:
    """A place in the corpus.

    source, offset, length: its document, as in train.jsonl. side: "train" or "held_out".
    place: about which byte of the source's text it begins at (exact where cleaning took nothing out before it).
    how, likeness: 1.0, or the share of the runs of three words that it shares.
    before, found, after: the passage in its surroundings. also: sources that had the same document, or nearly.
    """

    source: str
    offset: int
    length: int
    side: SplitName
    place: int
    how: How
    likeness: float
    before: str
    found: str
    after: str
    hash: str
    also: list[str] = field(default_factory=list)


def trace(corpus: Path, text: str, most: int = 5) -> list[Passage]:
    """Up to `most` passages of the corpus folder that are `text`; the most similar ones when none is.

    Raises UserError when the text is empty, or a file is missing or damaged.
    """
    if not text.strip():
        raise UserError("could not trace this text", "it is empty", "give some words of it", EXIT_USAGE)
    found = _exact(corpus, text, most) or _tolerant(corpus, text, most) or _similar(corpus, text, most)
    if found:
        _add_copies(corpus, found)
    return found


def _exact(corpus: Path, text: str, most: int) -> list[Passage]:
    needle = _escaped(text)
    found: list[Passage] = []
    for side, block in _blocks(corpus):
        for document in _documents_with(block, [needle], len(needle), lowered=False):
            start = document.text.find(text)
            if start >= 0:
                found.append(_passage(document, side, start, start + len(text), "exact", 1.0))
                if len(found) == most:
                    return found
    return found


def _tolerant(corpus: Path, text: str, most: int) -> list[Passage]:
    pattern = re.compile(r"\s+".join(map(re.escape, text.split())), re.IGNORECASE)
    # Bytes in lower case are so for ASCII only: sought are the longest pieces of the text that have nothing else.
    pieces = sorted(set(re.findall("[a-z0-9]{3,}", text.lower())), key=lambda piece: (-len(piece), piece))
    forms = [[_escaped(piece) for piece in pieces[:2]]]
    if not pieces:  # other scripts: the longest word, in the forms in which it may stand there
        word = max(text.split(), key=len)
        forms = [[_escaped(form)] for form in dict.fromkeys((word, word.lower(), word.upper(), word.title()))]
    found: list[Passage] = []
    for needles in forms:
        for side, block in _blocks(corpus):
            for document in _documents_with(block, needles, 2 * len(text.encode()) + 200, lowered=bool(pieces)):
                match = pattern.search(document.text)
                if match:
                    found.append(_passage(document, side, *match.span(), "but for case and spaces", 1.0))
                    if len(found) == most:
                        return found
    return found


def _similar(corpus: Path, text: str, most: int) -> list[Passage]:
    wanted = _runs(text)
    words = sorted(set(re.findall(r"\w{4,}", text.casefold())), key=lambda w: (w.isascii(), len(w), w))
    needles = [_escaped(word) for word in words[-NEAREST_WORDS:]]
    candidates: list[tuple[int, int, SplitName, bytes]] = []
    number = 0
    for side, block in _blocks(corpus):
        low = block.lower()
        seen: Counter[int] = Counter()  # beginning of a line -> how many of the words it has
        for needle in needles:
            place = low.find(needle)
            while place >= 0:
                end = low.find(b"\n", place)
                seen[low.rfind(b"\n", 0, place) + 1] += 1
                place = low.find(needle, end if end >= 0 else len(low))
        for start, count in seen.items():
            number += 1
            candidates.append((-count, number, side, block[start : block.find(b"\n", start) + 1]))
        candidates = sorted(candidates)[:NEAREST_DOCUMENTS]
    ranked = []
    for _, number, side, line in candidates:
        document = from_line(line)
        likeness = len(wanted & _runs(document.text)) / len(wanted) if wanted else 0.0
        if likeness >= LEAST_LIKENESS:
            ranked.append((-likeness, number, side, document))
    return [
        _passage(document, side, *_span(document.text, text), "similar", -likeness)
        for likeness, _, side, document in sorted(ranked, key=lambda item: item[:2])[:most]
    ]


def _blocks(corpus: Path) -> Iterator[tuple[SplitName, bytes]]:
    """(side, some whole lines) of the corpus."""
    sides: tuple[SplitName, SplitName] = ("train", "held_out")
    for side in sides:
        path = corpus / f"{side}.jsonl"
        with reporting_os_errors(f"read the corpus {path}"), open(path, "rb") as file:
            rest = b""
            while data := file.read(BLOCK):
                end = data.rfind(b"\n") + 1
                if end:
                    yield side, rest + data[:end]
                    rest = data[end:]
                else:
                    rest += data


def _documents_with(block: bytes, needles: list[bytes], reach: int, lowered: bool) -> Iterator[Document]:
    """The documents whose line has the first needle, and the others within `reach` bytes of it."""
    low = block.lower() if lowered else block
    place = low.find(needles[0])
    while place >= 0:
        around = low[max(0, place - reach) : place + reach]
        after = place + len(needles[0])
        if all(needle in around for needle in needles[1:]):
            start, end = block.rfind(b"\n", 0, place) + 1, block.find(b"\n", place) + 1
            yield from_line(block[start:end])
            after = end
        place = low.find(needles[0], after)


def _passage(document: Document, side: SplitName, start: int, end: int, how: How, likeness: float) -> Passage:
    text = document.text
    return Passage(
        document.source,
        document.offset,
        document.length,
        side,
        document.offset + len(text[:start].encode()),
        how,
        likeness,
        text[max(0, start - EXCERPT) : start],
        text[start:end],
        text[end : end + EXCERPT],
        document.hash,
    )


def _add_copies(corpus: Path, found: list[Passage]) -> None:
    """Note which removed duplicates had the documents of these passages."""
    by_hash = {passage.hash: passage for passage in found}
    for entry in records(corpus, "removed"):
        passage = by_hash.get(entry.get("of", {}).get("hash"))
        if passage is not None and entry["source"] not in passage.also:
            passage.also.append(entry["source"])


def _runs(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.casefold())
    size = min(NEAREST_RUN, len(words))
    return set(zip(*(words[i:] for i in range(size)), strict=False)) if size else set()


def _span(text: str, sought: str) -> tuple[int, int]:
    """From the first to the last of the largest group of sought words near each other: where to look."""
    wanted = set(re.findall(r"\w{4,}", sought.casefold()))
    places = [match.span() for match in re.finditer(r"\w+", text) if match[0].casefold() in wanted]
    if not places:
        return 0, 0
    size, best = len(sought), (0, places[0], places[0])
    first = 0
    for last, place in enumerate(places):
        while place[1] - places[first][0] > 1.5 * size:
            first += 1
        best = max(best, (last - first, places[first], place), key=lambda item: item[0])
    return best[1][0], best[2][1]


def _escaped(text: str) -> bytes:
    """As it stands in a line of JSON."""
    return json.dumps(text, ensure_ascii=False)[1:-1].encode("utf-8", "surrogatepass")
