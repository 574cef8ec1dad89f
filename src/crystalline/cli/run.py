"""`cllm run`: whatever is missing, from text to trained model. `cllm train` is the same with its own examples."""

from __future__ import annotations

import argparse
import sys
from contextlib import nullcontext

from crystalline.cli import common, terminal
from crystalline.errors import EXIT_OK

EXAMPLES = """example:
  cllm run my-model                  plan it, then train
  cllm run docs --from https://example.org --minutes 10     all in one: make the run, crawl, clean, train
  cllm run my-model --minutes 10     train for ten minutes
  cllm run my-model --tensorboard    also write my-model/tensorboard
  cllm run my-model                  again: continues, or says that it is done
  torchrun --nproc-per-node 2 --no-python cllm run my-model     on several processes or machines"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_run(parser)
    parser.add_argument(
        "--from", dest="sources", action="append", metavar="PATH|URL",
        help="make the run, if it is not there, for this folder, file or website; may be repeated",
    )  # fmt: skip
    common.add_training(parser)
    common.add_tensorboard(parser)


def run(args: argparse.Namespace) -> int:
    from crystalline.cli import panel
    from crystalline.pipeline import runner
    from crystalline.training.loop import Trainer
    from crystalline.training.plan import Plan

    if args.sources:
        runner.new_or_same(args.run, args.sources, **common.assignments(args))
    steps_done = 0
    live = terminal.is_live(sys.stderr) and not args.quiet
    progress = common.Progress(quiet=args.quiet or live)

    def on_step(trainer: Trainer, facts: dict[str, float]) -> None:
        nonlocal steps_done
        steps_done += 1
        progress(trainer, facts)

    def on_plan(plan: Plan) -> None:
        if not args.quiet:
            print(common.plan_text(plan), file=sys.stderr, flush=True)

    with panel.shown(args.run, sys.stderr) if live else nullcontext() as on_event:
        trainer = runner.run(args.run, common.overrides(args), on_plan, on_step, on_event or (lambda _: None))
    if trainer.leads and not args.quiet:
        state = "trained" if steps_done else "done already: trained"
        early = f" of {trainer.recipe.steps:,}, where it was ended early" if trainer.ended_early else ""
        print(f"{args.run} is {state} to step {trainer.step:,}{early}")
        if early and not steps_done:
            print(f"to go on all the same: cllm run {args.run} --set training.patience=0, or with more --steps")
        print(f"next: cllm chat {args.run}")
    return EXIT_OK
