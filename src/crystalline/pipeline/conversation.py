"""Conversations with a model, kept on disk turn by turn. How one becomes a text: model/chat_text.py."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from crystalline.errors import EXIT_USAGE, UserError
from crystalline.model.chat_text import END_OF_TURN, Answer, render
from crystalline.model.generation import Generated, LanguageModel
from crystalline.model.sampling import Sampling
from crystalline.run_folder import RunFolder, reporting_os_errors, write_text

Turn = tuple[str, str]  # what was said, what was answered


class Conversation:
    """Turns, in RUN/chats/NAME.jsonl, and the system text: what stands before all of them."""

    def __init__(self, path: Path, turns: list[Turn], system: str = "") -> None:
        self.path, self.turns, self.system = path, turns, system

    @classmethod
    def open(cls, run: RunFolder, name: str) -> Conversation:
        """The conversation called `name`, new or as it was left."""
        path = _path(run, name)
        turns, system = [], ""
        if path.exists():
            with reporting_os_errors(f"read the conversation in {path}"):
                text = path.read_text("utf-8", errors="replace")
            # Not splitlines(): what people write may hold other line ends than the file's.
            for line in text.split("\n"):
                try:
                    kept = json.loads(line)
                    if "system" in kept:
                        system = str(kept["system"])
                    else:
                        turns.append((str(kept["user"]), str(kept["model"])))
                except (ValueError, KeyError, TypeError):
                    continue  # a line cut short by a kill loses that turn only
        return cls(path, turns, system)

    @staticmethod
    def names(run: RunFolder) -> list[str]:
        """The conversations of a run, by name."""
        return sorted(path.stem for path in run.chats.glob("[!.]*.jsonl"))

    @property
    def name(self) -> str:
        """What it is called."""
        return self.path.stem

    def prompt(self, line: str) -> str:
        """The text that the model continues."""
        return self._prompt(line, self.turns)

    def _prompt(self, line: str, turns: list[Turn]) -> str:
        return render([*([self.system] if self.system else []), *(part for turn in turns for part in turn), line])

    def answer(
        self,
        model: LanguageModel,
        line: str,
        how: Sampling,
        max_tokens: int | None = None,
        stop: list[str] | None = None,
        result: Generated | None = None,
    ) -> Iterator[str]:
        """Pieces of the model's answer to `line`: up to the end of a paragraph, or a stop string.

        Where a system text, the turns and the answer do not fit the model's context, the oldest turns are left out.
        """
        answer = Answer()
        # Another seed each turn, or the model would say the same again to the same words.
        how = replace(how, seed=how.seed + len(self.turns))
        turns = self._fitting(model, line, max_tokens) if self.system else self.turns
        for piece in model.stream(self._prompt(line, turns), how, max_tokens, [END_OF_TURN, *(stop or [])], result):
            if text := answer.add(piece):
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
        """Forget all turns. The system text stays."""
        self.turns = []
        self._save()

    def say_before(self, system: str) -> None:
        """Keep another system text; "": none."""
        self.system = system.strip()
        self._save()

    def copy_to(self, run: RunFolder, name: str) -> None:
        """Keep a copy as conversation `name`. UserError when there is one of that name."""
        path = _path(run, name)
        if path.exists():
            raise UserError(
                f"could not keep a copy called '{name}'",
                "there is a conversation of that name",
                "choose another name",
                EXIT_USAGE,
            )
        Conversation(path, self.turns, self.system)._save()

    def text(self) -> str:
        """All of it as it is seen in a terminal."""
        turns = [f"> {line}\n{answer}\n" for line, answer in self.turns]
        return "\n".join([*([f"{self.system}\n"] if self.system else []), *turns])

    def facts(self) -> dict[str, Any]:
        """All of it for a script."""
        turns = [{"user": line, "model": answer} for line, answer in self.turns]
        return {"name": self.name, "system": self.system, "turns": turns}

    def _fitting(self, model: LanguageModel, line: str, max_tokens: int | None) -> list[Turn]:
        """The last turns that leave room for the system text and the answer."""

        def tokens(*texts: str) -> int:
            return sum(1 + len(model.tokenizer.encode(text.strip())) for text in texts)  # 1: the end of a turn

        room = model.model.shape.context - 1 - (max_tokens or model.defaults.max_tokens) - tokens(self.system, line)
        first = len(self.turns)
        while first and (room := room - tokens(*self.turns[first - 1])) >= 0:
            first -= 1
        return self.turns[first:]

    def _save(self) -> None:
        kept: list[dict[str, str]] = [{"system": self.system}] if self.system else []
        kept += [{"user": line, "model": answer} for line, answer in self.turns]
        with reporting_os_errors(f"keep the conversation in {self.path}"):
            self.path.parent.mkdir(exist_ok=True)
            write_text(self.path, "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in kept))


def _path(run: RunFolder, name: str) -> Path:
    if not re.fullmatch(r"[\w.-]{1,100}", name) or name.startswith("."):
        raise UserError(
            f"'{name}' cannot name a conversation",
            "a name has letters, digits, '-', '_' and '.' only",
            "choose such a name",
            EXIT_USAGE,
        )
    return run.chats / f"{name}.jsonl"
