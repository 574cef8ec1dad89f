"""`cllm chat`: talk to a model in the terminal."""

from __future__ import annotations

import argparse
import sys

from crystalline.cli import common
from crystalline.errors import EXIT_OK

EXAMPLES = """example:
  cllm chat my-model
  cllm chat my-model --name ideas --temperature 0.5

The model continues the conversation in the way of the text it was trained on. In the chat:
  /help  /new (forget the conversation)  /undo (take the last turn back)  /quit
Ctrl-C stops an answer; at the prompt it ends the chat. The conversation is kept in RUN/chats/NAME.jsonl."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_run(parser)
    parser.add_argument("--name", default="default", help="which conversation; default: 'default'")
    common.add_tokens(parser)
    common.add_sampling(parser)


def run(args: argparse.Namespace) -> int:
    from crystalline.model.generation import load, visible
    from crystalline.pipeline.conversation import Conversation
    from crystalline.run_folder import RunFolder

    folder = RunFolder.open(args.run)
    conversation = Conversation.open(folder, args.name)
    model = load(args.run, args.precision)
    how = model.sampling(
        temperature=args.temperature, top_k=args.top_k, top_p=args.top_p, min_p=args.min_p,
        repetition_penalty=args.repetition_penalty, seed=args.seed,
    )  # fmt: skip
    if not args.quiet:
        print(f"{args.run}: it continues what you write, in the way of its documents. /help for help.")
        if conversation.turns:
            print(f"going on with conversation '{args.name}' ({len(conversation.turns)} turns)")
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "")
        except (EOFError, KeyboardInterrupt):
            print()
            return EXIT_OK
        if line.startswith("/"):
            if not _command(line.strip(), conversation):
                return EXIT_OK
            continue
        if line.strip():
            answer = ""
            try:
                for piece in conversation.answer(model, line, how, args.tokens):
                    answer += piece
                    print(visible(piece) if sys.stdout.isatty() else piece, end="", flush=True)
            except KeyboardInterrupt:
                pass  # the answer so far is kept
            print()
            conversation.add(line, answer)


def _command(line: str, conversation: object) -> bool:
    """Do what a slash command says; False to end the chat."""
    if line in ("/quit", "/exit", "/bye"):
        return False
    if line == "/new":
        conversation.clear()  # type: ignore[attr-defined]
        print("(a new conversation)")
    elif line == "/undo":
        print("(took the last turn back)" if conversation.undo() else "(nothing to take back)")  # type: ignore[attr-defined]
    else:
        print("/new  forget the conversation\n/undo  take the last turn back\n/quit  end\nCtrl-C stops an answer")
    return True
