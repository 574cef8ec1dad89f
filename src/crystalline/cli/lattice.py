"""`cllm lattice`: shows the prime codes of a run's tokens, and factors numbers. Reads only."""

from __future__ import annotations

import argparse

from crystalline.cli import lattice_tokens
from crystalline.errors import EXIT_OK, EXIT_USAGE, UserError

EXAMPLES = f"""examples:
{lattice_tokens.EXAMPLES}
  cllm lattice factor 144001                  the prime factors of a number

Without --run, the run named by CLLM_RUN is used, or the only run folder here.
cllm lattice ACTION --help explains an action."""
# Factoring takes time that doubles every few digits: about a second at this length, when it is hard.
LONGEST_NUMBER = 50


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The actions, each with a parser of its own that names its function as `do`."""
    parser.set_defaults(print_help=parser.print_help, do=None)
    actions = parser.add_subparsers(dest="action", metavar="ACTION", parser_class=type(parser))
    lattice_tokens.add_actions(actions)
    number = actions.add_parser("factor", help="prime factors of a number", allow_abbrev=False)
    number.add_argument("number", metavar="N", type=int, help="a whole number from 1 up")
    number.add_argument("--json", action="store_true", help="print JSON, for scripts")
    number.set_defaults(do=_factor)


def run(args: argparse.Namespace) -> int:
    """Do one of the actions; see the module's `EXAMPLES`."""
    if args.do is None:
        args.print_help()
        raise UserError(
            "cllm lattice needs to know what to show",
            "no action was given",
            "use one of: token, family, nearest, similar, map, factor (for example: cllm lattice factor 144001)",
            EXIT_USAGE,
        )
    args.do(args)
    return EXIT_OK


def _factor(args: argparse.Namespace) -> None:
    from crystalline.cli import output
    from crystalline.lattice.primes import factor, prime_class

    number = args.number
    if number >= 10**LONGEST_NUMBER:
        raise UserError(
            "could not factor this number",
            f"it has more than {LONGEST_NUMBER} digits, which can take hours",
            "give a smaller number",
        )
    powers = factor(number)
    if args.json:
        shown = [{"prime": prime, "exponent": exponent} for prime, exponent in powers]
        output.print_json({"number": number, "factors": shown, "class_mod_12": prime_class(number)})
    elif powers == [(number, 1)]:
        print(f"{number} is prime, in class {prime_class(number)} of 12")
    elif not powers:
        print("1 is the empty product: it has no prime factors")
    else:
        print(f"{number} = {' × '.join(str(p) if e == 1 else f'{p}^{e}' for p, e in powers)}")
