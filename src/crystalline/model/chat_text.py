"""A conversation as the text that a model continues.

The models made here are not taught to answer questions: they continue text. A conversation is therefore one text,
each turn a paragraph, and an answer is the model's next paragraph.
"""

from __future__ import annotations

from collections.abc import Sequence

END_OF_TURN = "\n\n"


def render(turns: Sequence[str]) -> str:
    """The text up to where the answer begins; `turns` in order, whoever said them."""
    return END_OF_TURN.join(turn.strip() for turn in turns) + "\n"


class Answer:
    """The answer's pieces without the empty lines before it."""

    def __init__(self) -> None:
        self._started = False

    def add(self, piece: str) -> str:
        """What is to be shown of the next piece."""
        text = piece if self._started else piece.lstrip("\n")
        self._started = self._started or bool(text)
        return text
