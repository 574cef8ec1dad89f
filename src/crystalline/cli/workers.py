"""`cllm workers`: an order to a run that is training in another process."""

from __future__ import annotations

import argparse

from crystalline.cli import common
from crystalline.errors import EXIT_USAGE, UserError

EXAMPLES = """example:
  cllm workers my-model 1      leave a core free; the weights do not depend on it
  cllm workers my-model auto   one for each core
  cllm workers my-model free   as many as there are cores that other programs leave free, from now on"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_run(parser)
    parser.add_argument(
        "count", type=common.workers, metavar="N|auto|free", help="how many workers, from the next step on"
    )


def run(args: argparse.Namespace) -> int:
    if isinstance(args.count, int) and args.count < 1:
        raise UserError(f"{args.count} workers cannot train", "at least one is needed", "1 or more", EXIT_USAGE)
    return common.order(args, "workers", count=args.count)
