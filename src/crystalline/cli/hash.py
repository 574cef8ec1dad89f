"""`cllm hash`: the SHA-256 of a model's weights, or of its loss log."""

from __future__ import annotations

import argparse

from crystalline.cli import common, output
from crystalline.errors import EXIT_OK

EXAMPLES = """example:
  cllm hash my-model
  cllm hash my-model --log
  test "$(cllm hash run-1)" = "$(cllm hash run-2)" && echo "the same model" """


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run folder or a checkpoint folder")
    parser.add_argument("--log", action="store_true", help="of the losses of all steps, instead of the weights")
    common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from pathlib import Path

    from crystalline.model import checkpoints, store

    folder = checkpoints.find(Path(args.run))
    if args.log:
        from crystalline.pipeline.status import log_hash

        digest = log_hash(args.run, checkpoints.step_of(folder))
    else:
        digest = store.weights_hash(store.read_weights(folder))
    if args.json:
        output.print_json({"sha256": digest, "checkpoint": folder.name})
    else:
        print(digest)
    return EXIT_OK
