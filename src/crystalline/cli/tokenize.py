"""`cllm tokenize`: text to tokens and back, piece by piece."""

from __future__ import annotations

import argparse
import os
import sys

from crystalline.cli import common, output
from crystalline.errors import EXIT_OK, EXIT_USAGE, UserError

EXAMPLES = """example:
  cllm tokenize my-model "Once upon a time"
  cllm tokenize my-model --decode 41 502 17
  cllm tokenize tokenizer.json - < text.txt"""
LINE = 100  # characters


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN|FILE", help="a run or checkpoint folder, or a tokenizer.json")
    parser.add_argument(
        "text", nargs="+", metavar="TEXT", help="what to cut; - : from standard input; or token numbers"
    )
    parser.add_argument("--decode", action="store_true", help="TEXT is token numbers: put them together")
    common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    tokenizer = common.tokenizer(args.run)
    if args.decode:
        ids = [_number(word) for text in args.text for word in text.replace(",", " ").split()]
        data = tokenizer.decode_bytes(ids)
    else:
        data = sys.stdin.buffer.read() if args.text == ["-"] else os.fsencode(" ".join(args.text))
        ids = tokenizer.encode_bytes(data)
    pieces = [common.piece(tokenizer, id_) for id_ in ids]
    if args.json:
        output.print_json({"ids": ids, "pieces": pieces, "bytes": len(data), "text": data.decode("utf-8", "replace")})
        return EXIT_OK
    if args.decode:
        print(data.decode("utf-8", "replace"))
    else:
        print(" ".join(map(str, ids)))
    line = ""
    for piece in pieces:
        if line and len(line) + len(piece) + 1 > LINE:
            print(line)
            line = ""
        line += ("·" if line else "") + piece
    print(line)
    if not args.quiet and ids:
        print(f"{len(ids):,} tokens, {len(data):,} bytes: {len(data) / len(ids):.2f} bytes per token")
    return EXIT_OK


def _number(word: str) -> int:
    if not (word.isascii() and word.isdigit()):
        raise UserError(
            "could not read the tokens", f"'{word}' is no token number", "give numbers, such as 41 502", EXIT_USAGE
        )
    return int(word)
