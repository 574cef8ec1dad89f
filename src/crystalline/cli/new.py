"""`cllm new`: make a run folder."""

from __future__ import annotations

import argparse

from crystalline.cli import common
from crystalline.errors import EXIT_OK

EXAMPLES = """example:
  cllm new my-model --from ~/Documents --from notes.txt
  cllm new my-docs --from https://example.org --set crawl.max_pages=500
  cllm new my-code --from ~/src --exclude '*.min.js' --set model.size=4M"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="the folder to make")
    parser.add_argument(
        "--from", dest="sources", action="append", required=True, metavar="PATH|URL",
        help="a folder or file with text, a crawl, or a website; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--exclude",
        action="append",
        default=[],
        metavar="PATTERN",
        help="names to leave out, such as '*.log'",
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="any setting; may be repeated"
    )


def run(args: argparse.Namespace) -> int:
    from crystalline.pipeline import runner

    values = common.assignments(args)
    if args.exclude:
        values["corpus.exclude"] = args.exclude
    folder = runner.new(args.run, args.sources, **values)
    if not args.quiet:
        print(f"made {folder.root}; its settings are in {folder.settings}")
        print(f"next: cllm run {folder.root} --minutes 10")
    return EXIT_OK
