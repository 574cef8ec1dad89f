"""`cllm chat`: talk to a model in the terminal."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystalline.cli import common, output, terminal
from crystalline.errors import EXIT_OK, UserError, suggest

if TYPE_CHECKING:
    from crystalline.model.generation import LanguageModel
    from crystalline.model.sampling import Sampling
    from crystalline.run_folder import RunFolder

EXAMPLES = '''example:
  cllm chat my-model
  cllm chat my-model --name ideas --temperature 0.5
  cllm chat my-model --system "A letter to a friend, written at sea."

The model continues the conversation in the way of the text it was trained on. In the chat /help lists the
commands, and """ begins and ends a text of several lines. Ctrl-C stops an answer, which is kept; Ctrl-D ends the
chat. The conversation is kept in RUN/chats/NAME.jsonl.'''
QUOTES = '"""'
HISTORY = ".history"  # of the lines typed, beside the conversations
HISTORY_LINES = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_run(parser)
    parser.add_argument("--name", default="default", help="which conversation; default: 'default'")
    parser.add_argument("--system", metavar="TEXT", help="stands before all turns; kept with the conversation")
    common.add_tokens(parser)
    common.add_sampling(parser)


def run(args: argparse.Namespace) -> int:
    from crystalline.model.generation import load
    from crystalline.pipeline.conversation import Conversation
    from crystalline.run_folder import RunFolder

    folder = RunFolder.open(args.run)
    conversation = Conversation.open(folder, args.name)
    model = load(args.run, args.precision)
    model.neighbours(common.sampling(args, model))  # tells what cannot be used before anything else is said
    if args.system is not None:
        conversation.say_before(args.system)
    if not args.quiet:
        print(f"{args.run}: it continues what you write, in the way of its documents. /help for help.")
        if conversation.turns:
            print(f"going on with conversation '{args.name}' ({len(conversation.turns)} turns)")
    with _history(folder.chats / HISTORY):
        Chat(model, folder, conversation, args).run()
    return EXIT_OK


class Chat:
    """A person and a model, taking turns until one command or the end of the input."""

    def __init__(self, model: LanguageModel, folder: RunFolder, conversation: Any, args: argparse.Namespace) -> None:
        self.model, self.folder, self.conversation, self.quiet = model, folder, conversation, args.quiet
        given = {name: getattr(args, name) for name in (*SETTINGS, "tokens", "stop") if name != "temperature"}
        given["temperature"] = 0.0 if args.greedy else args.temperature
        self.settings: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        self.terminal = sys.stdin.isatty()

    def run(self) -> None:
        """Answer line after line."""
        while True:
            try:
                text, quoted = self._read()
            except EOFError:
                print()
                return
            except KeyboardInterrupt:
                print()
                if not self.terminal:
                    return
                print("(Ctrl-D or /quit ends the chat)")
                continue
            try:
                if text.startswith("/") and not quoted:
                    if not self._command(text):
                        return
                elif text.strip():
                    self._answer(text)
            except UserError as error:
                print(f"{error.what}: {error.why}. {error.fix}", file=sys.stderr)

    def _read(self) -> tuple[str, bool]:
        """What was typed, and whether it stood between quotation marks, where it may have several lines."""
        line = input("> " if self.terminal else "")
        if not line.startswith(QUOTES):
            return line, False
        lines = [line.removeprefix(QUOTES)]
        while not lines[-1].rstrip().endswith(QUOTES):
            try:
                lines.append(input("... " if self.terminal else ""))
            except EOFError:
                break  # what is there is said
        return "\n".join(lines).rstrip().removesuffix(QUOTES), True

    @property
    def how(self) -> Sampling:
        """The settings for drawing, checked."""
        return self.model.sampling(**{name: self.settings[name] for name in SETTINGS if name in self.settings})

    def _answer(self, line: str) -> bool:
        """Show the model's answer and keep it; False when there is none because it was stopped at once."""
        from crystalline.model.generation import Generated, visible

        shown = visible if sys.stdout.isatty() else str
        answer, stopped, result = "", False, Generated([], "length")
        began = time.perf_counter()
        try:
            pieces = self.conversation.answer(
                self.model, line, self.how, self.settings.get("tokens"), self.settings["stop"], result
            )
            for piece in pieces:
                answer += piece
                print(shown(piece), end="", flush=True)
        except KeyboardInterrupt:
            stopped = True  # the answer so far is kept
        seconds = time.perf_counter() - began
        print()
        if sys.stdout.isatty() and not self.quiet:
            count = len(result.tokens)
            print(terminal.styled(f"{count} tokens, {output.count(count / seconds)} tokens/s", "dim", sys.stdout))
        if answer or not stopped:
            self.conversation.add(line, answer)
        return bool(answer) or not stopped

    # --- commands -----------------------------------------------------------------------------------------

    def _command(self, line: str) -> bool:
        """Do what a slash command says; False to end the chat."""
        word, _, rest = line[1:].strip().partition(" ")
        name, rest = word.replace("-", "_"), rest.strip()
        if name in ("quit", "exit", "bye"):
            return False
        if name == "set":
            word, _, rest = rest.partition(" ")
            name, rest = word.replace("-", "_"), rest.strip()
            if name not in (*SETTINGS, *OTHERS):
                raise UserError(f"there is no setting '{word}'", "it is not in the list of /settings", _near(name))
        if name in SETTINGS or name in OTHERS:
            self._set(name, rest)
        elif name in COMMANDS:
            COMMANDS[name][0](self, rest)
        else:
            raise UserError(
                f"there is no command '/{word}'", "/help lists them", f"{_near(name)} {QUOTES} around a text says it"
            )
        return True

    def _set(self, name: str, text: str) -> None:
        """A setting to a value; without one it is shown."""
        if text and name == "system":
            self.conversation.say_before("" if text in ('""', "none") else _unquoted(text))
        elif text and name == "stop":
            stops = self.settings["stop"]
            self.settings["stop"] = [] if text in ('""', "none") else [*stops, common.stop_text(_unquoted(text))]
        elif text:
            before = dict(self.settings)
            try:
                self.settings[name] = {**SETTINGS, **OTHERS}[name](text)
                self.model.neighbours(self.how)
                if name == "precision":
                    self.model.compute_in(text)
            except (ValueError, argparse.ArgumentTypeError) as error:
                raise UserError(
                    f"could not set {name} to '{text}'", str(error), f"/{name} shows what it is"
                ) from error
            except UserError:
                self.settings = before
                raise
        print(f"{name}  {self._shown(name)}")

    def _shown(self, name: str) -> str:
        if name == "system":
            return self.conversation.system or "none"
        if name == "stop":
            return "  ".join(map(json.dumps, self.settings["stop"])) or "none"
        if name == "precision":
            return self.model.decoder.precision
        if name == "tokens":
            return str(self.settings.get("tokens", self.model.defaults.max_tokens))
        value = getattr(self.how, name)
        return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)

    def _show_settings(self, _: str) -> None:
        for name in (*SETTINGS, *OTHERS):
            print(f"{name:20}{self._shown(name)}")
        print(f"{'conversation':20}{self.conversation.name} ({len(self.conversation.turns)} turns)")

    def _new(self, _: str) -> None:
        self.conversation.clear()
        print("(a new conversation)")

    def _undo(self, _: str) -> None:
        print("(took the last turn back)" if self.conversation.undo() else "(nothing to take back)")

    def _retry(self, _: str) -> None:
        if not self.conversation.turns:
            print("(nothing to try again)")
            return
        if self.how.temperature == 0:
            print("(at temperature 0 every seed gives the same answer)")
        turns = list(self.conversation.turns)
        self.settings["seed"] = self.settings.get("seed", 0) + 1
        line, _ = self.conversation.turns.pop()
        try:
            answered = self._answer(line)
        except UserError:
            self.conversation.turns = turns
            raise
        if not answered:
            self.conversation.turns = turns

    def _save(self, name: str) -> None:
        self.conversation.copy_to(self.folder, name)
        print(f"(a copy is kept as '{name}')")

    def _load(self, name: str) -> None:
        from crystalline.pipeline.conversation import Conversation

        names = Conversation.names(self.folder)
        if name not in names:
            fix = suggest(name, names) if names else "say something first"
            raise UserError(f"there is no conversation '{name}'", "/list shows them", fix)
        self.conversation = Conversation.open(self.folder, name)
        print(f"(going on with conversation '{name}', {len(self.conversation.turns)} turns)")

    def _list(self, _: str) -> None:
        from crystalline.pipeline.conversation import Conversation

        for name in sorted({*Conversation.names(self.folder), self.conversation.name}):
            print(f"{name}{'  (this one)' if name == self.conversation.name else ''}")

    def _export(self, file: str) -> None:
        if not file:
            raise UserError("could not export the conversation", "no file was named", "/export notes.txt, or .json")
        facts = json.dumps(self.conversation.facts(), indent=1, ensure_ascii=False) + "\n"
        common.write_file(file, facts if file.endswith(".json") else self.conversation.text())
        print(f"(written to {file})")

    def _help(self, _: str) -> None:
        for name, (_do, about) in COMMANDS.items():
            print(f"/{name:9}{about}")
        print("/quit     end the chat, as Ctrl-D does\n")
        print("/NAME VALUE, or /set NAME VALUE, changes a setting; /NAME shows it:")
        print(f"  {' '.join((*SETTINGS, *OTHERS))}")
        print(f"{QUOTES} begins and ends a text of several lines. Ctrl-C stops an answer, which is kept.")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError("it is no number") from None


def _precision(text: str) -> str:
    if text not in common.PRECISIONS:
        raise ValueError(f"it is none of {', '.join(common.PRECISIONS)}")
    return text


def _three(text: str) -> tuple[float, ...]:
    values = tuple(map(_number, text.split()))
    if len(values) != 3:
        raise ValueError("these are three numbers: of closeness, shared primes, root and derived")
    return values


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text


def _near(name: str) -> str:
    return suggest(name, [*SETTINGS, *OTHERS, *COMMANDS, "quit"])


# What /NAME sets, and how it is read.
SETTINGS: dict[str, Callable[[str], Any]] = {
    "temperature": _number,
    "top_k": common.whole(0),
    "top_p": _number,
    "min_p": _number,
    "repetition_penalty": _number,
    "lattice": common.whole(0),
    "lattice_weights": _three,
    "seed": common.whole(0),
}
OTHERS: dict[str, Callable[[str], Any]] = {
    "tokens": common.whole(1),
    "stop": str,
    "system": str,
    "precision": _precision,
}
COMMANDS: dict[str, tuple[Callable[[Chat, str], None], str]] = {
    "new": (Chat._new, "forget the turns; the system text stays"),
    "undo": (Chat._undo, "take the last turn back"),
    "retry": (Chat._retry, "answer the last line again, with the next seed"),
    "settings": (Chat._show_settings, "show all settings"),
    "save": (Chat._save, "NAME: keep a copy of the conversation"),
    "load": (Chat._load, "NAME: go on with another one"),
    "list": (Chat._list, "the conversations"),
    "export": (Chat._export, "FILE: write the conversation, as text or .json"),
    "help": (Chat._help, "this"),
}


@contextlib.contextmanager
def _history(file: Path) -> Iterator[None]:
    """Lines typed in a terminal can be called back with the arrow keys, also those of earlier chats."""
    if not sys.stdin.isatty():
        yield
        return
    import readline

    with contextlib.suppress(OSError):
        readline.read_history_file(file)
    readline.set_history_length(HISTORY_LINES)
    names = [f"/{name}" for name in (*COMMANDS, "set", "quit", *SETTINGS, *OTHERS)]
    readline.set_completer(lambda start, k: [*(name for name in names if name.startswith(start)), None][k])
    readline.set_completer_delims(" ")
    readline.parse_and_bind("tab: complete")
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            file.parent.mkdir(exist_ok=True)
            readline.write_history_file(file)
            os.chmod(file, 0o600)
