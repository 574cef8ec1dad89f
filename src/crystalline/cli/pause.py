"""`cllm pause`: an order to a run that is training in another process."""

from __future__ import annotations

import argparse

from crystalline.cli import common

EXAMPLES = """example:
  cllm pause my-model"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_run(parser)


def run(args: argparse.Namespace) -> int:
    return common.order(args, "pause")
