"""`cllm doctor`: check this machine and installation."""

from __future__ import annotations

import argparse

from crystalline.cli import common, output
from crystalline.errors import EXIT_FAILED, EXIT_OK

EXAMPLES = """example:
  cllm doctor
  cllm doctor --json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from crystalline.operation.doctor import examine

    findings = examine()
    if args.json:
        output.print_json([finding.__dict__ for finding in findings])
    else:
        for finding in findings:
            print(f"{'ok ' if finding.ok else 'BAD'}  {finding.subject:12} {finding.found}")
            if finding.advice:
                print(f"     {'':12} fix: {finding.advice}")
    return EXIT_OK if all(finding.ok for finding in findings) else EXIT_FAILED
