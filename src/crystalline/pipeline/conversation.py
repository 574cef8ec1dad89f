"""A conversation with a model, kept on disk turn by turn.

The models made here are not taught to answer questions: they continue text. A conversation is therefore one text,
each turn a paragraph, and an answer is the model's next paragraph.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from crystalline.errors import EXIT_USAGE, UserError
from crystalline.model.generation import LanguageModel
from crystalline.model.sampling import Sampling
from crystalline.run_folder import RunFolder, reporting_os_errors, write_text

END_OF_TURN = "\n\n"


class Conversation:
    """Turns (what was said, what was answered), in RUN/chats/NAME.jsonl."""

    def __init__(self, path: Path, turns: list[tuple[str, str]]) -> None:
        self.path, self.turns = path, turns

    @classmethod
    def open(cls, run: RunFolder, name: str) -> Conversation:
        """The conversation called `name`, new or as it was left."""
        if not re.fullmatch(r"[\w.-]{1,100}", name) or name.startswith("."):
            raise UserError(
                f"'{name}' cannot name a conversation",
                "a name has letters, digits, '-', '_' and '.' only",
                "choose such a name",
                EXIT_USAGE,
            )
        path = run.chats / f"{name}.jsonl"
        turns = []
        if path.exists():
            # Not splitlines(): what people write may hold other line ends than the file's.
            for line in path.read_text("utf-8", errors="replace").split("\n"):
                try:
                    turn = json.loads(line)
                    turns.append((str(turn["user"]), str(turn["model"])))
                except (ValueError, KeyError, TypeError):
                    continue  # a line cut short by a kill loses that turn only
        return cls(path, turns)

    def prompt(self, line: str) -> str:
        """The text that the model continues."""
        turns = [part for turn in self.turns for part in turn] + [line]
        return END_OF_TURN.join(part.strip() for part in turns) + "\n"

    def answer(self, model: LanguageModel, line: str, how: Sampling, max_tokens: int | None = None) -> Iterator[str]:
        """Pieces of the model's answer to `line`: up to the end of a paragraph."""
        started = False
        # Another seed each turn, or the model would say the same again to the same words.
        how = Sampling(**{**how.__dict__, "seed": how.seed + len(self.turns)})
        for piece in model.stream(self.prompt(line), how, max_tokens, [END_OF_TURN]):
            text = piece if started else piece.lstrip("\n")
            started = started or bool(text)
            if text:
                yield text

    def add(self, line: str, answer: str) -> None:
        """Keep a turn."""
        self.turns.append((line, answer))
        self._save()

    def undo(self) -> bool:
        """Drop the last turn; False when there is none."""
        if not self.turns:
            return False
        self.turns.pop()
        self._save()
        return True

    def clear(self) -> None:
        """Forget all turns."""
        self.turns = []
        self._save()

    def _save(self) -> None:
        lines = [json.dumps({"user": u, "model": m}, ensure_ascii=False) for u, m in self.turns]
        with reporting_os_errors(f"keep the conversation in {self.path}"):
            self.path.parent.mkdir(exist_ok=True)
            write_text(self.path, "".join(line + "\n" for line in lines))
