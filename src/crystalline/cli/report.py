"""`cllm report`: a page that tells everything about a run, to keep or to attach."""

from __future__ import annotations

import argparse

from crystalline.cli import common
from crystalline.errors import EXIT_OK

EXAMPLES = """example:
  cllm report my-model                     writes my-model/report.html
  cllm report my-model --to results.html

One file that needs nothing else: settings, curves, evaluations, samples, workers, and the commands that repeat it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_run(parser)
    parser.add_argument("--to", metavar="FILE", help="where to write it; default: RUN/report.html")


def run(args: argparse.Namespace) -> int:
    from crystalline.pipeline.report import report
    from crystalline.run_folder import RunFolder

    to = args.to or str(RunFolder.open(args.run).report)
    common.write_file(to, report(args.run))
    if not args.quiet:
        print(f"wrote {to}")
    return EXIT_OK
