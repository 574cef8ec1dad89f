"""`cllm generate`: continue a text."""

from __future__ import annotations

import argparse
import os
import sys
import time

from crystalline.cli import common, output
from crystalline.errors import EXIT_OK

EXAMPLES = """example:
  cllm generate my-model -p "def main" -n 100
  cllm generate my-model -p "Once" --temperature 0 --stop "\\n"
  echo "The sea" | cllm generate my-model"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run folder or a checkpoint folder")
    parser.add_argument("-p", "--prompt", help="the beginning of the text; default: standard input")
    common.add_tokens(parser)
    parser.add_argument(
        "--stop",
        action="append",
        type=_stop_text,
        default=[],
        metavar="TEXT",
        help="end before this text; \\n is the end of a line; may be repeated",
    )
    common.add_sampling(parser)
    common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    # An argument may hold bytes that are no text: they are replaced, as in standard input.
    given = sys.stdin.read() if args.prompt is None else args.prompt
    prompt = os.fsencode(given).decode("utf-8", "replace")
    from crystalline.model.generation import Generated, load, visible

    model = load(args.run, args.precision)
    how = model.sampling(
        temperature=args.temperature, top_k=args.top_k, top_p=args.top_p, min_p=args.min_p,
        repetition_penalty=args.repetition_penalty, seed=args.seed,
    )  # fmt: skip
    result = Generated([], "length")
    began = time.perf_counter()
    pieces = []
    for piece in model.stream(prompt, how, args.tokens, args.stop, result):
        pieces.append(piece)
        if not args.json:
            print(visible(piece) if sys.stdout.isatty() else piece, end="", flush=True)
    seconds = time.perf_counter() - began
    if args.json:
        output.print_json(
            {
                "prompt": prompt,
                "text": "".join(pieces),
                "tokens": len(result.tokens),
                "reason": result.reason,
                "seconds": seconds,
            }
        )
    else:
        print()
    return EXIT_OK


def _stop_text(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("an empty text is everywhere")
    return text.replace("\\n", "\n").replace("\\t", "\t")
