"""`cllm hash`: the SHA-256 of a model's weights."""

from __future__ import annotations

import argparse

from crystalline.cli import common, output
from crystalline.errors import EXIT_OK

EXAMPLES = """example:
  cllm hash my-model
  test "$(cllm hash run-1)" = "$(cllm hash run-2)" && echo "the same model" """


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run folder or a checkpoint folder")
    common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from pathlib import Path

    from crystalline.model import store

    folder = store.find(Path(args.run))
    digest = store.weights_hash(store.read_weights(folder))
    if args.json:
        output.print_json({"sha256": digest, "checkpoint": folder.name})
    else:
        print(digest)
    return EXIT_OK
