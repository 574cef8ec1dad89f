"""`cllm crawl status`: how far a crawl is, once or live."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from crystalline.cli import common, output
from crystalline.cli.output import count, duration, size
from crystalline.cli.terminal import Line, Live, bar
from crystalline.errors import EXIT_OK, EXIT_USAGE, UserError

EXAMPLES = """example:
  cllm crawl status docs
  cllm crawl status docs --watch      until it ends or Ctrl-C
  cllm crawl status docs --json"""
LABEL = 10  # columns of the names at the left
DRAW_SECONDS = 0.2
STATES = {
    "crawling": "crawling",
    "finished": "finished",
    "full": "as many pages as crawl.max_pages allows are stored",
    "interrupted": "not finished: cllm crawl --into {folder} goes on",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER|RUN", help="the crawl's folder, or a run")
    parser.add_argument("--watch", action="store_true", help="go on showing it until it ends; Ctrl-C only looks away")
    common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from crystalline.cli.crawl import folder_of
    from crystalline.corpus.crawl import standing

    folder = folder_of(args.folder)
    if args.watch and args.json:
        raise UserError(
            "could not watch as JSON", "--watch and --json exclude each other", "leave one out", EXIT_USAGE
        )
    if args.watch:
        with suppress(KeyboardInterrupt), Live(sys.stdout) as live:
            while True:
                facts = standing.facts_of(folder)
                live.draw(lines(facts, live.size()[0], live.unicode))
                if facts["state"] != "crawling":
                    break
                time.sleep(DRAW_SECONDS)
        return EXIT_OK
    facts = standing.facts_of(folder)
    if args.json:
        output.print_json(facts)
    else:
        print(describe(facts))
    return EXIT_OK


def describe(facts: dict[str, Any]) -> str:
    """The facts as a person reads them."""
    head = f"{facts['folder']}: {STATES[facts['state']].format(**facts)}"
    return "\n".join([head, *(f"  {name:{LABEL}} {text}" for name, text in _rows(facts))])


def one_line(facts: dict[str, Any]) -> str:
    """The facts in a line, for logs."""
    left = f"  {duration(facts['seconds_left'])} left" if facts["seconds_left"] is not None else ""
    return (
        f"{facts['pages']:,} pages ({size(facts['bytes'])})  {facts['waiting']:,} waiting  "
        f"{sum(facts['skipped'].values()):,} skipped  {sum(facts['failed'].values()):,} failed  "
        f"{facts['per_second']:.2g} a second{left}"
    )


def lines(facts: dict[str, Any], columns: int, fine: bool = True) -> list[Line]:
    """The live view, for a terminal of so many columns. fine: it has more than ASCII."""
    left = f"{duration(facts['seconds_left'])} left" if facts["seconds_left"] is not None else ""
    gap = " " * max(2, columns - 1 - len(facts["folder"]) - 2 - len(facts["state"]) - len(left))
    head: Line = [(facts["folder"], "bold"), ("  ", ""), (facts["state"], "good"), (gap, ""), (left, "bold")]
    known = facts["pages"] + facts["waiting"] + facts["fetching"]
    of = min(facts["max_pages"], known)
    text = f"  page {facts['pages']:,} of {of:,} known"
    full, empty = bar(facts["pages"] / of if of else 0.0, max(0, columns - 1 - len(text)), fine)
    return [
        head,
        [(full, "bar"), (empty, "dim"), (text, "")],
        *([(f"{name:{LABEL}} ", "dim"), (value, "")] for name, value in _rows(facts)),
    ]


def _rows(f: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "found", f"{f['found']:,} URLs on {f['hosts']:,} host{'s' if f['hosts'] != 1 else ''}"
    yield "fetched", f"{f['pages']:,} pages, {size(f['bytes'])}"
    if f["waiting"] or f["fetching"]:
        yield "waiting", f"{f['waiting']:,}, {f['fetching']:,} being fetched"
    if f["skipped"]:
        yield "skipped", _reasons(f["skipped"])
    if f["failed"]:
        yield "failed", f"{_reasons(f['failed'])} (--retry tries again)"
    others = [
        (f["redirects"], "redirects"),
        (f["sitemaps"], "sitemaps and feeds"),
        (f["gone"], "not there (any more)"),
    ]
    if any(n for n, _ in others):
        yield "also", ", ".join(f"{n:,} {name}" for n, name in others if n)
    if f["per_second"]:
        yield "speed", f"{count(f['per_second'])} answers a second"
    if f["seconds_left"] is not None:
        yield "time left", f"{duration(f['seconds_left'])} for what is known now"


def _reasons(reasons: dict[str, int]) -> str:
    return ", ".join(f"{n:,} {reason}" for reason, n in reasons.items())
