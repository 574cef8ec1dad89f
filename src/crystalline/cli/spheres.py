"""`cllm spheres`: draw the sphere tree, of a run or by itself."""

from __future__ import annotations

import argparse

from crystalline.cli import common, output
from crystalline.errors import EXIT_OK, EXIT_USAGE, UserError

EXAMPLES = """example:
  cllm spheres my-model
  cllm spheres my-model --format svg --to spheres.svg
  cllm spheres --positions 144 --format dot"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", nargs="?", metavar="RUN", help="the run folder; default: the tree by itself")
    parser.add_argument("--positions", type=int, choices=(12, 144), help="of the tree by itself; default: 12")
    parser.add_argument(
        "--format",
        choices=("text", "dot", "svg"),
        default="text",
        help="text, Graphviz DOT, or a picture",
    )
    parser.add_argument("--to", metavar="FILE", help="write to this file; default: standard output")
    common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from crystalline.pipeline import spheres
    from crystalline.pipeline.status import Standing

    if args.run is not None and args.positions is not None:
        raise UserError(
            f"could not draw {args.run} with {args.positions} positions",
            "a run has the positions that it was started with",
            "leave out --positions, or RUN",
            EXIT_USAGE,
        )
    standing = None
    if args.run is not None:
        standing = Standing(args.run)
        standing.catch_up()
    found = spheres.describe(standing, args.positions)
    if args.json:
        output.print_json(found)
        return EXIT_OK
    drawn = {"text": spheres.text, "dot": spheres.dot, "svg": spheres.svg}[args.format](found)
    if args.to is None:
        print(drawn)
        return EXIT_OK
    common.write_file(args.to, drawn + "\n")
    if not args.quiet:
        print(f"wrote {args.to}")
    return EXIT_OK
