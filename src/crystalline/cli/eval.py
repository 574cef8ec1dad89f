"""`cllm eval`: measure a model on the held-out text of its run."""

from __future__ import annotations

import argparse

from crystalline.cli import common, output
from crystalline.errors import EXIT_OK

EXAMPLES = """example:
  cllm eval my-model
  cllm eval my-model --json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_run(parser)
    common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from crystalline.pipeline import runner

    result = runner.evaluate(args.run)
    if args.json:
        output.print_json(result)
        return EXIT_OK
    print(f"model          {result['checkpoint']}")
    print(f"held-out text  {output.count(result['tokens'])} tokens, {output.size(result['bytes'])}")
    print(f"cross-entropy  {result['cross_entropy']:.4f} nats per token")
    print(f"perplexity     {result['perplexity']:.2f}")
    print(f"bits per byte  {result['bits_per_byte']:.4f}")
    return EXIT_OK
