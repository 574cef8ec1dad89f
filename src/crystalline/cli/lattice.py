"""`cllm lattice`: a run's tokens and their prime codes, and the mathematics behind them. Reads only."""

from __future__ import annotations

import argparse

from crystalline.cli import lattice_numbers, lattice_tokens, lattice_vectors
from crystalline.errors import EXIT_OK, EXIT_USAGE, UserError

EXAMPLES = f"""examples:
{lattice_tokens.EXAMPLES}
{lattice_numbers.EXAMPLES}
{lattice_vectors.EXAMPLES}

Without --run, the run named by CLLM_RUN is used, or the only run folder here.
cllm lattice ACTION --help explains an action."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The actions, each with a parser of its own that names its function as `do`."""
    parser.set_defaults(print_help=parser.print_help, do=None)
    actions = parser.add_subparsers(dest="action", metavar="ACTION", parser_class=type(parser))
    for group in (lattice_tokens, lattice_numbers, lattice_vectors):
        group.add_actions(actions)


def run(args: argparse.Namespace) -> int:
    """Do one of the actions; see the module's `EXAMPLES`."""
    if args.do is None:
        args.print_help()
        raise UserError(
            "cllm lattice needs to know what to show",
            "no action was given",
            "see cllm lattice --help for the actions (for example: cllm lattice factor 144001)",
            EXIT_USAGE,
        )
    args.do(args)
    return EXIT_OK
