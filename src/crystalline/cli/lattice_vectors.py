"""`cllm lattice reduce, closest, shortest, spheres`: lattices in many dimensions, exactly."""

from __future__ import annotations

import argparse
import sys
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystalline.cli import common
from crystalline.cli.lattice_numbers import add_action, save_plot
from crystalline.errors import UserError

if TYPE_CHECKING:
    from crystalline.lattice.enumeration import Found
    from crystalline.lattice.reduction import Basis

EXAMPLES = """  cllm lattice reduce basis.txt               a shorter basis of the same lattice (LLL)
  cllm lattice closest basis.txt 5.5 -7       the lattice vector nearest to a point
  cllm lattice shortest basis.txt             the shortest vector
  cllm lattice spheres e8 --plot e8.svg       the 240 spheres that touch one in eight dimensions"""
MATRIX = """A matrix is a file with one vector a line, or in brackets as fplll writes it or as JSON: [[1, 2], [3, 4]].
Numbers are whole, decimal or fractions (22/7), and exact. FILE may be - for standard input."""
REDUCE = f"""examples:
  cllm lattice reduce basis.txt
  cllm lattice reduce basis.txt --delta 0.999 --json
  echo "[[1 0 331] [0 1 303] [0 0 500]]" | cllm lattice reduce -
  cllm lattice reduce plane.txt --plot plane.svg      of two vectors in the plane

{MATRIX}"""
CLOSEST = f"""examples:
  cllm lattice closest basis.txt 5.5 -7 1/3
  cllm lattice closest plane.txt 3 4 --plot closest.svg

{MATRIX}"""
SHORTEST = f"""example:
  cllm lattice shortest basis.txt

{MATRIX}"""
SPHERES = """examples:
  cllm lattice spheres 12                 around one in space, in two ways
  cllm lattice spheres e8 --plot e8.svg
  cllm lattice spheres leech --json

cllm spheres draws the tree of twelve in twelve by which training is divided."""
LONGEST_CELL = 24
ROWS_SHOWN, COLUMNS_SHOWN = 12, 12  # of a matrix on the screen; --json has all


def add_actions(actions: argparse._SubParsersAction[Any]) -> None:
    """The four actions, each with a parser of its own."""
    reduce = add_action(actions, "reduce", _reduce, "LLL reduction of a lattice basis", REDUCE)
    closest = add_action(actions, "closest", _closest, "the lattice vector nearest to a point", CLOSEST)
    shortest = add_action(actions, "shortest", _shortest, "the shortest vector of a lattice", SHORTEST)
    spheres = add_action(actions, "spheres", _spheres, "spheres that touch one: how many, how far apart", SPHERES)
    for parser in (reduce, closest, shortest):
        parser.add_argument("file", metavar="FILE", help="the matrix, or - for standard input")
    reduce.add_argument("--delta", default="0.99", metavar="D", help="Lovász's condition, above 0.25; default: 0.99")
    closest.add_argument("target", metavar="T", nargs="+", help="the point, one number for each dimension")
    for parser in (closest, shortest):
        parser.add_argument("--steps", type=common.whole(1), metavar="N", help="of the enumeration; default: 1000000")
    spheres.add_argument("packing", metavar="PACKING", choices=("12", "a2", "d4", "e8", "leech"),
                         help="12, a2, d4, e8 or leech")  # fmt: skip
    for parser in (reduce, closest, shortest, spheres):
        parser.add_argument("--plot", metavar="FILE.svg", help="also write a picture")
        common.add_json(parser)


def read_basis(file: str) -> Basis:
    """The basis in a file or, for "-", on standard input."""
    from crystalline.lattice.matrix_text import MOST_TEXT, parse_matrix
    from crystalline.lattice.reduction import Basis
    from crystalline.run_folder import reporting_os_errors

    name = "the matrix on standard input" if file == "-" else file
    with reporting_os_errors(f"read {name}"):
        if file == "-":
            text = sys.stdin.read(MOST_TEXT + 1)
        else:
            with Path(file).expanduser().open("rb") as stream:
                try:
                    text = stream.read(4 * MOST_TEXT + 1).decode("utf-8-sig")
                except UnicodeDecodeError as error:
                    raise UserError(
                        f"could not read {name}", "it is no text", "give a file with rows of numbers"
                    ) from error
    return Basis(parse_matrix(text, name))


# --- reduce, closest, shortest ----------------------------------------------------------------------------


def _reduce(args: argparse.Namespace) -> None:
    from crystalline.cli import output
    from crystalline.lattice.numbers import rational, text
    from crystalline.lattice.reduction import lll

    try:
        delta = rational(args.delta)
    except ValueError as error:
        raise UserError(f"could not reduce with delta {args.delta}", str(error), "use 0.99") from error
    basis = read_basis(args.file)
    reduced = lll(basis, delta)
    if args.json:
        output.print_json(
            {
                "rank": basis.rank,
                "dimension": basis.dimension,
                "delta": str(delta),
                "squared_determinant": text(basis.squared_determinant),
                "before": _measures(basis),
                "after": {**_measures(reduced.basis), "basis": _strings(reduced.basis.vectors)},
                "transform": _strings(reduced.transform),
                "inverse": _strings(reduced.inverse()),
            }
        )
    else:
        print(_table(reduced.basis.vectors))
        print(f"\n{basis.rank} vectors in {basis.dimension} dimensions, reduced exactly for delta {args.delta}")
        before, after = _measures(basis), _measures(reduced.basis)
        print(f"{'':22}{'before':>16}{'after':>16}")
        for name, words in MEASURES.items():
            print(f"{words:22}{_short(before[name]):>16}{_short(after[name]):>16}")
    if args.plot:
        from crystalline.pipeline import lattice_pictures

        save_plot(args, lattice_pictures.plane(basis, reduced.basis))


MEASURES = {
    "first_length": "first vector",
    "longest_length": "longest vector",
    "hermite_factor": "Hermite factor",
    "orthogonality_defect": "orthogonality defect",
}


def _measures(basis: Basis) -> dict[str, str]:
    """Correctly rounded decimals."""
    from crystalline.lattice.numbers import sqrt

    return {
        "first_length": _number(sqrt(basis.squared_lengths[0])),
        "longest_length": _number(sqrt(max(basis.squared_lengths))),
        "hermite_factor": _number(basis.hermite_factor()),
        "orthogonality_defect": _number(basis.orthogonality_defect()),
    }


def _number(x: Any) -> str:
    from crystalline.lattice.numbers import decimal

    return decimal(x, 12) if 10**-6 < abs(x) < 10**20 else str(x.str(12, radius=False))


def _short(number: str) -> str:
    return f"{float(number):.6g}" if "e" not in number else number if len(number) < 16 else f"{float(number):.6g}"


def _closest(args: argparse.Namespace) -> None:
    from crystalline.cli import output
    from crystalline.lattice.enumeration import MOST_STEPS, closest_vector, nearest_plane
    from crystalline.lattice.matrix_text import parse_vector
    from crystalline.lattice.reduction import lll

    target = parse_vector(" ".join(args.target), "the target")
    basis = read_basis(args.file)
    found = closest_vector(basis, target, args.steps or MOST_STEPS)
    plane = nearest_plane(lll(basis).basis, target)
    if args.json:
        told = {"target": _strings([target])[0], **_told(found)}
        output.print_json({**told, "nearest_plane": _told(plane, coefficients=False)})
    else:
        print(_row(found.vector))
        print(f"\ndistance       {_distance(found)}")
        print(f"coefficients   {_row(found.coefficients)}")
        print(f"nearest plane  {_distance(plane)} (Babai, on the reduced basis)")
        print(f"proved by an enumeration of {found.steps:,} steps")
    if args.plot:
        from crystalline.pipeline import lattice_pictures

        save_plot(args, lattice_pictures.plane(basis, lll(basis).basis, target, found.vector))


def _shortest(args: argparse.Namespace) -> None:
    from crystalline.cli import output
    from crystalline.lattice.enumeration import MOST_STEPS, shortest_vector
    from crystalline.lattice.reduction import lll

    basis = read_basis(args.file)
    found = shortest_vector(basis, args.steps or MOST_STEPS)
    if args.json:
        output.print_json(_told(found))
    else:
        print(_row(found.vector))
        print(f"\nlength         {_distance(found)}")
        print(f"coefficients   {_row(found.coefficients)}")
        print(f"proved by an enumeration of {found.steps:,} steps")
    if args.plot:
        from crystalline.pipeline import lattice_pictures

        save_plot(args, lattice_pictures.plane(basis, lll(basis).basis, None, found.vector))


def _told(found: Found, coefficients: bool = True) -> dict[str, Any]:
    from crystalline.lattice.numbers import text

    told: dict[str, Any] = {
        "vector": _strings([found.vector])[0],
        "squared_distance": text(found.squared_distance),
        "distance": _distance(found),
    }
    if coefficients:
        told |= {"coefficients": _strings([found.coefficients])[0], "steps": found.steps}
    return told


def _distance(found: Found) -> str:
    from crystalline.lattice.numbers import sqrt

    return _number(sqrt(found.squared_distance)) if found.squared_distance else "0"


def _strings(rows: list[list[Any]]) -> list[list[str]]:
    """Exact numbers as text: JSON readers round long ones."""
    from crystalline.lattice.numbers import text

    return [[text(value) for value in row] for row in rows]


def _row(values: list[Any]) -> str:
    shown = [_cell(value) for value in values[:COLUMNS_SHOWN]]
    return " ".join(shown) + (f" ... ({len(values)} numbers)" if len(values) > COLUMNS_SHOWN else "")


def _cell(value: int | Fraction) -> str:
    """A number of a matrix on the screen: what is too long with its middle left out."""
    from crystalline.lattice.numbers import text

    shown = text(value)
    return shown if len(shown) <= LONGEST_CELL else f"{shown[:8]}...{shown[-8:]}"


def _table(rows: list[list[Fraction]]) -> str:
    """A matrix in columns; a large one's beginning."""
    shown = [[_cell(value) for value in row[:COLUMNS_SHOWN]] for row in rows[:ROWS_SHOWN]]
    widths = [max(len(row[k]) for row in shown) for k in range(len(shown[0]))]
    more = "  ..." if len(rows[0]) > COLUMNS_SHOWN else ""
    lines = ["  ".join(value.rjust(width) for value, width in zip(row, widths, strict=True)) + more for row in shown]
    if len(rows) > ROWS_SHOWN:
        lines.append(f"... ({len(rows)} rows of {len(rows[0])}; --json shows all)")
    return "\n".join(lines)


# --- spheres ----------------------------------------------------------------------------------------------


def _spheres(args: argparse.Namespace) -> None:
    from crystalline.cli import output
    from crystalline.lattice import packings
    from crystalline.lattice.numbers import decimal

    packing = packings.packing("d3" if args.packing == "12" else args.packing)
    angles = [
        {"degrees": decimal(packings.angle(cosine), 12), "cosine": str(cosine), "count": count}
        for cosine, count in packing.products().items()
        if cosine != 1
    ]
    told: dict[str, Any] = {
        "packing": packing.name,
        "dimension": packing.dimension,
        "touching": packing.kissing_number,
        "squared_distance": packing.squared_length,
        "angles": angles,
    }
    if packing.dimension == 3:
        told["icosahedron"] = {"touching": 12, "least_angle": decimal(packings.icosahedron_angle(), 12)}
    if args.json:
        output.print_json(told)
    else:
        print(f"{packing.name}: {packing.kissing_number:,} spheres touch one in {packing.dimension} dimensions")
        print(f"their centres are √{packing.squared_length} from its centre, and seen from it")
        for line in angles:
            degrees = str(line["degrees"]).rstrip("0").rstrip(".")
            print(f"  {line['count']:>7,} at {degrees:>16}° from any one of them")
        if packing.dimension == 3:
            least = told["icosahedron"]["least_angle"]
            print(f"twelve can also stand {least}° apart, as the corners of an icosahedron, and touch the one only")
    if args.plot:
        from crystalline.pipeline import lattice_pictures

        save_plot(args, lattice_pictures.twelve() if packing.dimension == 3 else lattice_pictures.projection(packing))
