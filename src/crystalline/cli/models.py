"""`cllm models`: the models below a folder."""

from __future__ import annotations

import argparse

from crystalline.cli import common, output
from crystalline.errors import EXIT_OK

EXAMPLES = """example:
  cllm models
  cllm models ~/models --json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", nargs="?", default=".", metavar="FOLDER", help="where to look; default: here")
    common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from crystalline.pipeline import catalogue

    found = catalogue.runs_below(args.folder)
    if args.json:
        output.print_json(found)
        return EXIT_OK
    if not found:
        print(f"no models below {args.folder} (make one: cllm new my-model --from FOLDER)")
    for entry in found:
        print(_line(entry))
    return EXIT_OK


def _line(entry: dict[str, object]) -> str:
    parts = [f"{entry['run']!s:24}"]
    if entry["problem"]:
        return f"{parts[0]} {entry['problem']}"
    if entry["parameters"]:
        parts.append(f"{output.count(float(str(entry['parameters'])))} parameters")
    parts.append(f"step {entry['step']:,} of {entry['steps']:,}" if entry["steps"] else "not trained yet")
    if entry["bits_per_byte"]:
        parts.append(f"{entry['bits_per_byte']:.3f} bits per byte")
    return "  ".join(parts)
