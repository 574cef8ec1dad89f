"""Which prose is no text worth learning from, by published rules.

The figures are those of Gopher (Rae et al. 2021, arXiv 2112.11446, table A1), C4 (Raffel et al. 2020, arXiv
1910.10683) and FineWeb (Penedo et al. 2024, arXiv 2406.17557), which found them on web pages. They are applied to
web pages only: a file in a user's folder was put there by somebody, and goes only when it repeats itself all over,
or is placeholder text. Source code, tables and the like are never judged by them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise, repeat
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from crystalline.corpus.clean.words import Counts, Hashes, Words, runs


@dataclass(frozen=True)
class Rules:
    """Limits beyond which a text is removed; shares are of 1.

    least_words: fewer are too short (Gopher: 50).
    word_length: shortest and longest mean length of a word, in characters (Gopher: 3 and 10).
    symbols: most "#" and "…" for each word (Gopher: 0.1).
    letters: least share of the words that have a letter (Gopher: 0.8).
    stop_words: least number of eight English words in English text (Gopher: 2).
    bullets, ellipses: most lines that begin with a bullet, end in an ellipsis (Gopher: 0.9 and 0.3).
    sentences: least share of lines that end as a sentence does (FineWeb: 0.12).
    short_lines: most lines of under 30 characters (FineWeb: 0.67).
    same_lines, same_line_characters: most lines, and characters in them, that were there before (Gopher: 0.3 and
    0.2). frequent: (n, most characters that one run of n words may take) (Gopher: 0.20, 0.18 and 0.16 for 2, 3 and
    4). repeated: (n, most characters in runs of n words that were there before) (Gopher: 0.15 for 5 to 0.10 for 10).
    notices: whether pages that say "not found" or "sign in" and little else are removed.
    """

    least_words: int = 0
    word_length: tuple[float, float] = (0.0, float("inf"))
    symbols: float = float("inf")
    letters: float = 0.0
    stop_words: int = 0
    bullets: float = 1.0
    ellipses: float = 1.0
    sentences: float = 0.0
    short_lines: float = 1.0
    same_lines: float = 1.0
    same_line_characters: float = 1.0
    frequent: tuple[tuple[int, float], ...] = ()
    repeated: tuple[tuple[int, float], ...] = ()
    notices: bool = False


# Gopher's nine lengths of runs are represented by five: the limits between them lie on a line.
WEB = Rules(
    least_words=50,
    word_length=(3, 10),
    symbols=0.1,
    letters=0.8,
    stop_words=2,
    bullets=0.9,
    ellipses=0.3,
    sentences=0.12,
    short_lines=0.67,
    same_lines=0.3,
    same_line_characters=0.2,
    frequent=((2, 0.20), (3, 0.18), (4, 0.16)),
    repeated=((5, 0.15), (10, 0.10)),
    notices=True,
)
FILES = Rules(repeated=((10, 0.9),))  # nine tenths of it were said before

_SALT = np.uint64(0xD6E8FEB86659FD93)
_STOP_WORDS = ("the", "of", "and", "to", "that", "with", "be", "have")
_NO_LETTERS = bytes(byte for byte in range(33, 128) if not chr(byte).isalpha())
_FEW_LINES = 5  # below so many a share of lines says nothing
_SHORT_LINE = 30  # characters
_LONG_ARTICLE = 20_000  # characters
_LONG_NOTICE = 150  # words; a page with more of them has something else to say
_BULLETS = ("•", "‣", "▪", "●", "○", "■", "- ", "* ", "– ", "·")
_BULLET_SIGNS = frozenset(bullet[0] for bullet in _BULLETS)
_SENTENCE_ENDS = frozenset(".!?\"'”’»)…:。！？」』।؟۔")
_LAST = itemgetter(-1)


def _any_of(*patterns: str) -> re.Pattern[str]:
    return re.compile(r"\b(?:" + "|".join(patterns) + ")")


_NOT_FOUND = _any_of(
    r"(?:page|file|site|url|article) (?:you (?:requested|are looking for) )?(?:was |could |can)?"
    r"(?:not|n't)(?: be)? found",
    r"(?:error|http|status) ?(?:4\d\d|50\d)\b",
    r"(?:404|403|500|502|503)\b.{0,20}\b(?:error|not found|forbidden|unavailable)",
    r"access denied|service (?:temporarily )?unavailable|bad gateway|internal server error",
    r"verify (?:that )?you are (?:a )?human|checking your browser|are you a robot|unusual traffic from",
    r"seite (?:wurde )?nicht gefunden|zugriff verweigert",
    r"page (?:introuvable|non trouvée)|accès refusé",
    r"página no encontrada|acceso denegado|pagina non trovata|pagina niet gevonden|sivua ei löyty",
)
_LOGIN = _any_of(
    r"(?:please|you (?:must|need to)) (?:be )?(?:sign(?:ed)?|log(?:ged)?) ?in\b",
    r"(?:sign|log) ?in to (?:continue|your account)|create an account to (?:continue|read)",
    r"forgot(?:ten)? (?:your )?password|remember me\b|subscribers only",
    r"bitte (?:melden sie sich|loggen sie sich)|passwort vergessen|mot de passe oublié",
    r"olvidó su contraseña|olvidaste tu contraseña|password dimenticata|wachtwoord vergeten|unohditko salasanasi",
)


def faults(
    texts: Sequence[str], data: Sequence[bytes], rules: Sequence[Rules], languages: Sequence[str]
) -> list[str]:
    """The reason to remove each of these documents of prose, or "".

    data: the texts in UTF-8. languages: their ISO 639 codes. What is counted word by word is counted for all at once,
    and generously: only documents that may be at fault are looked at one by one.
    """
    found = Words.of(data)
    counts = np.diff(found.first).tolist()
    sizes = found.sums(found.lengths).tolist()
    pieces, lettered = (
        (_pieces(data), _pieces([document.translate(None, _NO_LETTERS) for document in data]))
        if any(rule.letters for rule in rules)
        else (counts, counts)
    )
    frequent, repeated = _suspicion(found)
    reasons = []
    for i, (text, rule) in enumerate(zip(texts, rules, strict=True)):
        reason = _notice(text, data[i], counts[i], rule)
        if not reason and counts[i]:
            if lettered[i] < rule.letters * pieces[i]:
                reason = "symbols"
            reason = reason or _wrong_words(text, data[i], pieces[i], counts[i], sizes[i], rule, languages[i])
            reason = reason or _wrong_lines(text, rule)
            if not reason and (
                (_beyond(frequent[i], sizes[i], rule.frequent) and _says_often(*found.one(i), rule))
                or (_beyond(repeated[i], sizes[i], rule.repeated) and _says_again(*found.one(i), rule))
            ):
                reason = "repetition"
        reasons.append(reason)
    return reasons


def _notice(text: str, data: bytes, count: int, rules: Rules) -> str:
    """What can be said of a text by its length and a look for certain words."""
    # C4 removes pages with these words. Who writes about them has written more.
    if len(text) < _LONG_ARTICLE and (b"orem ipsum" in data or b"OREM IPSUM" in data):
        return "placeholder text"
    if rules.notices and count <= _LONG_NOTICE:
        lowered = text.lower()
        if _NOT_FOUND.search(lowered):
            return "error page"
        if _LOGIN.search(lowered):
            return "login page"
    return "too short" if count < rules.least_words else ""


def _wrong_words(text: str, data: bytes, pieces: int, count: int, size: int, rules: Rules, language: str) -> str:
    if rules.symbols < float("inf"):
        symbols = data.count(b"#") + data.count(b"...") + (0 if text.isascii() else text.count("…"))
        if symbols > rules.symbols * count:
            return "symbols"
    # Scripts without spaces have no words whose length could be wrong; bytes count as their share of characters.
    if rules.word_length[0] > 0 and pieces > 0.08 * len(text):
        low, high = rules.word_length
        if not low <= size * len(text) / len(data) / count <= high:
            return "strange words"
    if rules.stop_words and language == "en":
        seen = 0
        for word in _STOP_WORDS:
            seen += f" {word} " in text
            if seen >= rules.stop_words:
                return ""
        return "strange words"
    return ""


def _wrong_lines(text: str, rules: Rules) -> str:
    if rules.short_lines >= 1:
        return ""
    lines = [line for line in map(str.strip, text.split("\n")) if line]
    count = len(lines)
    if count < _FEW_LINES:
        return ""
    sizes = list(map(len, lines))
    different = set(lines)
    if len(different) < count:
        twice = sum(sizes) - sum(map(len, different))
        if count - len(different) > rules.same_lines * count or twice > rules.same_line_characters * len(text):
            return "repeated lines"
    items = [line for line in lines if line[0] in _BULLET_SIGNS]
    if sum(map(str.startswith, items, repeat(_BULLETS))) > rules.bullets * count:
        return "only a list"
    if sum(map(str.endswith, lines, repeat(("…", "...")))) > rules.ellipses * count:
        return "cut-off lines"
    if sum(map(_SENTENCE_ENDS.__contains__, map(_LAST, lines))) < rules.sentences * count:
        return "no sentences"
    if sum(map(_SHORT_LINE.__gt__, sizes)) > rules.short_lines * count:
        return "short lines"
    return ""


def _pieces(data: Sequence[bytes]) -> list[int]:
    """How many pieces white space cuts each document into."""
    ink = np.frombuffer(b" " + b" ".join([*data, b""]), np.uint8) > 32
    starts = ink[1:] & ~ink[:-1]
    borders = [0, *accumulate(len(document) + 1 for document in data)]
    return [int(np.count_nonzero(starts[start:end])) for start, end in pairwise(borders)]


def _suspicion(found: Words) -> tuple[list[int], list[int]]:
    """For each document (no less than the bytes that its most frequent run of up to four words takes, the bytes in
    runs of five words that were there before)."""
    documents = len(found.first) - 1
    if len(found.hashes) < 5:
        everything = found.sums(found.lengths).tolist()
        return everything, everything
    # Each document's words get numbers of their own: a run in two documents is not repeated in either.
    own = found.hashes ^ np.repeat(np.arange(documents, dtype=np.uint64) * _SALT, np.diff(found.first))
    ends = np.zeros(len(own) + 1, np.int64)
    np.cumsum(found.lengths, out=ends[1:])
    pairs = _boxes(runs(own, 2), 4)
    counts = np.bincount(pairs)[pairs]
    # No run is more frequent than its first two words, nor longer than four.
    sizes = np.zeros(len(own) + 1, np.int64)
    sizes[:-5] = ends[4:-1]
    sizes[-5:-2] = ends[-1]
    sizes[:-2] = (counts * (counts > 1)) * (sizes[:-2] - ends[:-2])
    frequent = np.maximum.reduceat(sizes, np.minimum(found.first[:-1], len(own)))
    frequent[np.diff(found.first) == 0] = 0
    # A run of five words was only there before if its four pairs were.
    both = counts[:-1] > 1
    both &= counts[1:] > 1
    places = np.flatnonzero(both[:-2] & both[2:])
    repeated = places[_again(runs(own, 5)[places])]
    return frequent.tolist(), found.sums(_bytes_in(repeated, found.lengths, 5)).tolist()


def _beyond(part: int, whole: int, limits: tuple[tuple[int, float], ...]) -> bool:
    return any(part > limit * whole for _, limit in limits)


def _says_often(hashes: Hashes, lengths: Counts, rules: Rules) -> bool:
    """Whether one run of words takes too much of the text."""
    total = int(lengths.sum())
    ends = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=ends[1:])
    for n, limit in rules.frequent:
        _, place, count = np.unique(runs(hashes, n), return_index=True, return_counts=True)
        size = ends[place + n] - ends[place]
        if int((count * size)[count > 1].max(initial=0)) > limit * total:
            return True
    return False


def _says_again(hashes: Hashes, lengths: Counts, rules: Rules) -> bool:
    """Whether too much of the text was said before."""
    total = covered = int(lengths.sum())
    for n, limit in sorted(rules.repeated):  # longer runs that were there before lie in shorter ones that were
        if covered > min(limit for m, limit in rules.repeated if m >= n) * total:
            covered = int(_bytes_in(np.flatnonzero(_again(runs(hashes, n))), lengths, n).sum())
            if covered > limit * total:
                return True
    return False


def _bytes_in(places: Counts, lengths: Counts, n: int) -> Counts:
    """The bytes of each word that lies in one of the runs of n words which begin at `places`; 0 for the others."""
    change = np.zeros(len(lengths) + 1, np.int32)
    change[places] += 1
    change[places + n] -= 1
    return np.where(np.cumsum(change[:-1]) > 0, lengths, 0)


def _again(found: Hashes) -> NDArray[np.bool_]:
    """Which of these were there before, each seen from its place."""
    if not len(found):
        return np.zeros(0, bool)
    places, boxes = np.arange(len(found), dtype=np.int32), _boxes(found, 16)
    first = np.empty(int(boxes.max()) + 1, np.int32)  # small, for the processor's cache
    first[boxes[::-1]] = places[::-1]  # of several in one box the last that is written stays: the first in the text
    first = first[boxes]
    same = found[first] == found
    again: NDArray[np.bool_] = same & (first != places)
    others = np.flatnonzero(~same)  # a few share a box with another run
    if len(others):
        again[np.delete(others, np.unique(found[others], return_index=True)[1])] = True
    return again


def _boxes(found: Hashes, times: int) -> Counts:
    """A number below about `times` their count for each of these: equal ones have equal numbers, few others do."""
    return (found >> np.uint64(64 - (times * len(found)).bit_length())).astype(np.int64)
