"""`cllm plan`: what a run would take."""

from __future__ import annotations

import argparse

from crystalline.cli import common, output
from crystalline.errors import EXIT_OK

EXAMPLES = """example:
  cllm plan my-model --minutes 30
  cllm plan my-model --size 4M --steps 1000 --json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_run(parser)
    common.add_training(parser)
    common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from crystalline.pipeline import runner

    plan = runner.plan(args.run, common.overrides(args))
    if args.json:
        output.print_json(
            {
                "recipe": plan.recipe.to_json(),
                "parameters": plan.recipe.shape.parameters,
                "steps": plan.recipe.steps,
                "tokens": plan.tokens,
                "epochs": plan.epochs,
                "seconds": plan.seconds,
                "memory_bytes": plan.memory,
                "gpu_memory_bytes": plan.gpu_memory,
                "disk_bytes": plan.disk,
                "bits_per_byte": plan.bits_per_byte,
                "beyond_plain": plan.recipe.shape.beyond_plain,
            }
        )
    else:
        print(common.plan_text(plan))
    return EXIT_OK
