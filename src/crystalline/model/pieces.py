"""Tokens to text, in pieces that are certain: whole characters only, and stop strings held back."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from crystalline.tokens.tokenizer import Tokenizer


class Pieces:
    """The text of tokens that come one by one.

    A character whose bytes are not all there, and text that may be the start of a stop string, is held back.

    stop: strings before which the text ends; none of them empty.
    stopped: whether one of them has come. characters: of the text so far, those held back included.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        self.stopped, self.characters = False, 0
        self._tokenizer, self._stop = tokenizer, stop
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""

    def add(self, token: int) -> str:
        """What is certain now and was not before. After a stop string nothing more is to be added."""
        more = self._decoder.decode(self._tokenizer.token_bytes(token))
        self.characters += len(more)
        self._held += more
        found = [place for place in (self._held.find(string) for string in self._stop) if place >= 0]
        self.stopped = bool(found)
        sure = min(found) if found else len(self._held) - possible_start(self._held, self._stop)
        piece, self._held = self._held[:sure], "" if found else self._held[sure:]
        return piece

    def rest(self, ended: bool) -> str:
        """What was held back, when no more tokens come. ended: the text itself has; a broken character is shown."""
        rest = self._held + (self._decoder.decode(b"", final=True) if ended and not self.stopped else "")
        self._held = ""
        return rest


def possible_start(text: str, stop: Sequence[str]) -> int:
    """How many characters at the end of `text` could be the beginning of a stop string."""
    longest = 0
    for string in stop:
        for length in range(min(len(string) - 1, len(text)), longest, -1):
            if text.endswith(string[:length]):
                longest = length
                break
    return longest
