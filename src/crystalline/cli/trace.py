"""`cllm trace`: the source of a passage that the text of a run holds."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from typing import TYPE_CHECKING

from crystalline.cli import common, output
from crystalline.errors import EXIT_FAILED, EXIT_OK

if TYPE_CHECKING:
    from crystalline.corpus.trace import Passage

EXAMPLES = """example:
  cllm trace my-model "some text that the model wrote"
  cllm trace my-model - < passage.txt
  cllm trace my-model "some text" -n 20 --json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_run(parser)
    parser.add_argument("text", metavar="TEXT", help="the passage; - : from standard input")
    parser.add_argument(
        "-n", "--most", type=common.whole(1), default=5, metavar="N", help="most places to name; default: 5"
    )
    common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from crystalline.corpus.trace import trace
    from crystalline.run_folder import RunFolder

    text = sys.stdin.read().strip("\n") if args.text == "-" else args.text
    found = trace(RunFolder.open(args.run).corpus, text, args.most)
    if args.json:
        output.print_json([dataclasses.asdict(passage) for passage in found])
    elif found:
        print("\n\n".join(map(_shown, found)))
    else:
        print("the text of this run has nothing like it")
    return EXIT_OK if found else EXIT_FAILED


def _shown(passage: Passage) -> str:
    how = passage.how if passage.how != "similar" else f"similar, {passage.likeness:.0%} of its runs of three words"
    side = "" if passage.side == "train" else ", held out: no model has learned it"
    lines = [f"{passage.source}, byte {passage.place:,} ({how}{side})"]
    text = f"{passage.before}[{passage.found}]{passage.after}"
    lines.append("  …" + " ".join(text.split()) + "…")
    if passage.also:
        lines.append("  also in " + ", ".join(passage.also[:5]) + (" …" if len(passage.also) > 5 else ""))
    return "\n".join(lines)
