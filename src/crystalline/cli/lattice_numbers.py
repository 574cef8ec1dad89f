"""`cllm lattice factor, primes, spiral, clock`: whole numbers, exactly."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from crystalline.cli import common
from crystalline.errors import EXIT_USAGE, UserError

if TYPE_CHECKING:
    from flint import arb

EXAMPLES = """  cllm lattice factor 144001                  the prime factors of a number
  cllm lattice primes count 144000            how many primes there are up to a number
  cllm lattice primes twins 144000            the nearest twin primes
  cllm lattice spiral 144000 --plot ulam.svg  its place on the spirals, and a picture
  cllm lattice clock 144000                   its place on the clock rings"""
PRIMES = """examples:
  cllm lattice primes test 144001               whether a number is prime
  cllm lattice primes count 144000 --by-class   how many primes there are up to a number
  cllm lattice primes nth 13343                 the 13,343rd prime
  cllm lattice primes next 144000 --class 7     the next prime, here in class 7 of 12
  cllm lattice primes twins 144000              the nearest twin primes below and above
  cllm lattice primes list 144000 144100        the primes from one number up to, not including, another"""
SPIRAL = """examples:
  cllm lattice spiral 144000                             all places of a number; every digit shown is certain
  cllm lattice spiral 144000 --plot ulam.svg             the primes around it on Ulam's spiral
  cllm lattice spiral 100 --kind golden --plot sun.svg   the sunflower, with the primes in it
  cllm lattice spiral --at -180 190                      the number at a place of Ulam's spiral"""
CLOCK = """examples:
  cllm lattice clock 144                       ring, place, angle and hands of a number
  cllm lattice clock 144 --plot clock.svg      and a picture of the rings
  cllm lattice clock --at 3 12                 the number on place 12 of ring 3"""
LONGEST_NUMBER = 4000  # digits of a number that is typed
KINDS = ("ulam", "golden", "logarithmic", "archimedean", "hilbert")


def add_actions(actions: argparse._SubParsersAction[Any]) -> None:
    """The four actions, each with a parser of its own."""
    number = add_action(actions, "factor", _factor, "prime factors of a number", "example:\n" + _first(EXAMPLES))
    number.add_argument("number", metavar="N", type=whole, help="a whole number from 1 up")
    common.add_json(number)

    primes = add_action(actions, "primes", _primes, "test, count and find prime numbers", PRIMES)
    primes.set_defaults(question=None)
    questions = primes.add_subparsers(dest="question", metavar="QUESTION", parser_class=type(primes))
    for name, about, names in (
        ("test", "whether a number is prime", "N"),
        ("count", "how many primes p <= N there are, N up to 10^12", "N"),
        ("nth", "the N-th prime, counted from 1", "N"),
        ("next", "the smallest prime above N", "N"),
        ("twins", "the nearest twin primes below and above N", "N"),
        ("list", "the primes LOW <= p < HIGH, for at most 10^8 numbers below 10^14", "LOW HIGH"),
    ):
        question = questions.add_parser(name, help=about, allow_abbrev=False)
        for argument in names.split():
            question.add_argument(argument.lower(), metavar=argument, type=whole)
        if name in ("count", "list"):
            question.add_argument("--by-class", action="store_true", help="by class mod 12")
        if name == "next":
            question.add_argument("--class", dest="residue", type=common.whole(0), metavar="C", help="n mod 12")
        common.add_json(question)

    spiral = add_action(actions, "spiral", _spiral, "places of a number on spirals and curves", SPIRAL)
    spiral.add_argument("number", metavar="N", nargs="?", type=whole, help="a whole number from 1 up")
    spiral.add_argument("--at", nargs=2, type=whole, metavar=("X", "Y"), help="a place on Ulam's spiral instead")
    spiral.add_argument("--fold", type=common.whole(1), metavar="PERIOD", help="also Ulam's place on a torus")
    spiral.add_argument("--places", type=common.whole(0), default=15, metavar="P", help="decimals; default: 15")
    spiral.add_argument("--kind", choices=KINDS, default="ulam", help="what to draw; default: ulam")
    spiral.add_argument("--points", type=common.whole(1), metavar="M", help="how many numbers to draw")
    _add_plot(spiral)

    clock = add_action(actions, "clock", _clock, "place of a number on the clock rings 12, 60, 60, 100", CLOCK)
    clock.add_argument("number", metavar="N", nargs="?", type=whole, help="a whole number from 0 up")
    clock.add_argument("--at", nargs=2, type=whole, metavar=("RING", "PLACE"), help="a place instead")
    _add_plot(clock)


def add_action(
    actions: argparse._SubParsersAction[Any],
    name: str,
    do: Callable[[argparse.Namespace], None],
    about: str,
    examples: str,
) -> argparse.ArgumentParser:
    """The parser of an action, in which a number may be negative."""
    parser: argparse.ArgumentParser = actions.add_parser(
        name,
        help=about,
        description=f"{about[0].upper()}{about[1:]}.",
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    # argparse takes -1 for a number, but -1/3 and -1e3 for flags.
    parser._negative_number_matcher = re.compile(r"^-\.?\d")
    parser.set_defaults(do=do)
    return parser


def _add_plot(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--plot", metavar="FILE.svg", help="also write a picture")
    common.add_json(parser)


def _first(examples: str) -> str:
    return examples.split("\n", 1)[0]


def whole(text: str) -> int:
    """The type of an argument that is a whole number; thousands may be parted: 144,000."""
    from crystalline.lattice.numbers import integer

    try:
        if len(text) > LONGEST_NUMBER:
            raise ValueError(f"a number of {len(text):,} signs is too long: at most {LONGEST_NUMBER:,}")
        return integer(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def save_plot(args: argparse.Namespace, picture: str) -> None:
    """Write what was drawn where --plot says."""
    common.write_file(args.plot, picture + "\n")
    if not (args.json or args.quiet):
        print(f"wrote {args.plot}")


# --- factor and primes ------------------------------------------------------------------------------------


def _factor(args: argparse.Namespace) -> None:
    from crystalline.cli import output
    from crystalline.lattice.primes import factor, prime_class

    number = args.number
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


def _primes(args: argparse.Namespace) -> None:
    from crystalline.cli import output

    answers = {"test": _test, "count": _count, "nth": _nth, "next": _next, "twins": _twins, "list": _list}
    if args.question is None:
        raise UserError(
            "cllm lattice primes needs a question",
            "none was given",
            f"use one of: {', '.join(answers)} (for example: cllm lattice primes count 144000)",
            EXIT_USAGE,
        )
    told, text = answers[args.question](args)
    if args.json:
        output.print_json(told)
    elif text:
        print(text)


Answer = tuple[dict[str, Any], str]  # for a script, and for a person


def _test(args: argparse.Namespace) -> Answer:
    from crystalline.lattice.primes import PROOF_DIGITS, primality, prime_class

    n, verdict = args.n, primality(args.n)
    words = {
        True: f"{n} is prime, in class {prime_class(n)} of 12",
        False: f"{n} is not prime",
        None: f"{n} is probably prime: it passes the Baillie-PSW test, which no composite is known to pass. "
        f"Undecided, as a proof takes too long above {PROOF_DIGITS} digits",
    }
    return {"number": n, "prime": verdict, "class_mod_12": prime_class(n)}, words[verdict]


def _count(args: argparse.Namespace) -> Answer:
    from crystalline.lattice.prime_counts import counts_by_class, prime_count

    n = args.n
    if not args.by_class:
        count = prime_count(n)
        return {"up_to": n, "count": count}, f"{count:,} primes up to {n:,}"
    classes = counts_by_class(0, n + 1)
    lines = [f"{sum(classes):,} primes up to {n:,}, by class mod 12"]
    lines += [f"  class {k:2}  {count:,}" for k, count in enumerate(classes) if count]
    return {"up_to": n, "count": sum(classes), "by_class_mod_12": classes}, "\n".join(lines)


def _nth(args: argparse.Namespace) -> Answer:
    from crystalline.lattice.prime_counts import nth_prime

    prime = nth_prime(args.n)
    return {"n": args.n, "prime": prime}, f"prime number {args.n:,} is {prime}"


def _next(args: argparse.Namespace) -> Answer:
    from crystalline.lattice.primes import next_prime, prime_class

    prime = next_prime(args.n, args.residue)
    return {"after": args.n, "prime": prime, "class_mod_12": prime_class(prime)}, str(prime)


def _twins(args: argparse.Namespace) -> Answer:
    from crystalline.lattice.primes import twins_near

    below, above = twins_near(args.n)
    lines = [f"below  {below[0]} and {below[1]}" if below else "below  none", f"above  {above[0]} and {above[1]}"]
    return {"near": args.n, "below": below, "above": above}, "\n".join(lines)


def _list(args: argparse.Namespace) -> Answer:
    from crystalline.lattice.primes import primes_between

    found = primes_between(args.low, args.high)
    if not args.by_class:
        listed = found.tolist()
        return {"low": args.low, "high": args.high, "primes": listed}, "\n".join(map(str, listed))
    classes = [found[found % 12 == k].tolist() for k in range(12)]
    lines = [f"class {k:2}  {' '.join(map(str, listed))}" for k, listed in enumerate(classes) if listed]
    return {"low": args.low, "high": args.high, "by_class_mod_12": classes}, "\n".join(lines)


# --- spirals and clock ------------------------------------------------------------------------------------


def _one_of(args: argparse.Namespace) -> None:
    if (args.number is None) == (args.at is None):
        raise UserError(
            f"cllm lattice {args.action} needs a number or a place",
            "both were given" if args.at else "neither was given",
            f"give N or --at (see cllm lattice {args.action} --help)",
            EXIT_USAGE,
        )


def _spiral(args: argparse.Namespace) -> None:
    from crystalline.cli import output
    from crystalline.lattice import spirals

    _one_of(args)
    n = args.number if args.at is None else spirals.ulam_number(*args.at)
    x, y = spirals.ulam_point(n)
    order = max(1, -(-n.bit_length() // 2))
    balls = {
        "golden": spirals.golden_point(n),
        "logarithmic": spirals.logarithmic_point(n) if n < 10**9 else None,  # whose radius grows beyond writing
        "archimedean": spirals.archimedean_point(n),
    }
    real = {name: [_decimal(part, args.places) for part in point] if point else None for name, point in balls.items()}
    hilbert = spirals.hilbert_point(n, order)
    torus = [x % args.fold, y % args.fold] if args.fold else None
    if args.json:
        output.print_json(
            {"number": n, "ulam": [x, y], "torus": torus, **real, "hilbert": {"order": order, "point": hilbert}}
        )  # fmt: skip
    else:
        rows = {"Ulam": f"({x}, {y}), layer {max(abs(x), abs(y))}"}
        if torus:
            rows["Torus"] = f"({torus[0]}, {torus[1]}) modulo {args.fold}"
        for name, point in real.items():
            rows[name.capitalize()] = f"({', '.join(point)})" if point else "too far out"
        rows["Hilbert"] = f"({hilbert[0]}, {hilbert[1]}) on the curve of order {order}"
        print("\n".join([str(n), *(f"  {name:12} {place}" for name, place in rows.items())]))
    if args.plot:
        from crystalline.pipeline import lattice_pictures

        save_plot(args, lattice_pictures.spiral(args.kind, n, args.points))


def _decimal(x: arb, places: int) -> str:
    """Correctly rounded; of a number with a long whole part as many digits as are asked for, with their bound."""
    from crystalline.lattice.numbers import decimal

    return decimal(x, places) if abs(x) < 10**20 else str(x.str(max(1, places)))


def _clock(args: argparse.Namespace) -> None:
    from crystalline.cli import output
    from crystalline.lattice import clock
    from crystalline.lattice.primes import RESIDUE_PRIMES, residue_code

    _one_of(args)
    n = args.number if args.at is None else clock.number(clock.Place(*args.at))
    at = clock.place(n)
    degrees = f"{float(360 * at.turn):g}"  # of 12, 60, 100 or 1,000 places: at most two decimals
    angle, quadrant = clock.group_angle(n % 12)
    if args.json:
        output.print_json(
            {
                "number": n,
                "ring": at.ring,
                "place": at.place,
                "places_of_ring": at.size,
                "radius": str(at.radius),
                "degrees": degrees,
                "point": [_decimal(part, 15) for part in at.point()],
                "hands": dict(zip(("12", "60", "100"), clock.hands(n), strict=True)),
                "group": {"number": n % 12, "degrees": angle, "quadrant": quadrant},
                "residues": dict(zip(map(str, RESIDUE_PRIMES), residue_code(n), strict=True)),
            }
        )
    else:
        shown = [
            f"{n} is on place {at.place} of {at.size} in ring {at.ring}",
            f"  radius    {at.radius}",
            f"  angle     {degrees}°",
            "  hands     "
            + ", ".join(f"{hand} of {size}" for hand, size in zip(clock.hands(n), (12, 60, 100), strict=True)),
            f"  group     {n % 12} of 12, at {angle}°, quadrant {quadrant}",
            "  residues  " + " ".join(map(str, residue_code(n))) + "  (modulo 2, 3, 5, ... 47)",
        ]
        print("\n".join(shown))
    if args.plot:
        from crystalline.pipeline import lattice_pictures

        save_plot(args, lattice_pictures.clock_face(n))
