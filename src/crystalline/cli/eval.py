"""`cllm eval`: measure a model on the held-out text of its run, or of another one."""

from __future__ import annotations

import argparse

from crystalline.cli import common, output
from crystalline.errors import EXIT_OK

EXAMPLES = """example:
  cllm eval my-model
  cllm eval my-model --json
  cllm eval friends-model.cllm --on my-model"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run", metavar="RUN", help="the run folder; with --on also a checkpoint folder or a .cllm file"
    )
    parser.add_argument("--on", metavar="RUN", help="the run whose held-out text to use")
    common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from crystalline.pipeline import runner

    result = runner.evaluate(args.run, args.on)
    if args.json:
        output.print_json(result)
        return EXIT_OK
    print(f"model          {result['checkpoint']}")
    print(f"held-out text  {output.count(result['tokens'])} tokens, {output.size(result['bytes'])}")
    print(f"cross-entropy  {result['cross_entropy']:.4f} nats per token")
    print(f"perplexity     {result['perplexity']:.2f}")
    print(f"bits per byte  {result['bits_per_byte']:.4f}")
    return EXIT_OK
