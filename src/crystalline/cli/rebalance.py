"""`cllm rebalance`: an order to a run that is training in another process."""

from __future__ import annotations

import argparse

from crystalline.cli import common

EXAMPLES = """example:
  cllm rebalance my-model      when another program has made a core slow, or cores were given or taken"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_run(parser)


def run(args: argparse.Namespace) -> int:
    return common.order(args, "rebalance")
