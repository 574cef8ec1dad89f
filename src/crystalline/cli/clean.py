"""`cllm clean`: what cleaning does to the text of a run, or to any files and folders."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from crystalline.cli import common, output
from crystalline.errors import EXIT_OK, EXIT_USAGE, UserError, suggest

EXAMPLES = """example:
  cllm clean ~/Documents                      what would be removed, and why; makes no run
  cllm clean ~/Documents --report             with examples, languages, masked data and sources
  cllm clean my-model                         the same for a run; reads its text if that was not done
  cllm clean my-model --show-removed "near duplicate"
  cllm clean ~/web-pages --set clean.quality=web"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", metavar="RUN|PATH", help="a run folder, or files and folders with text")
    parser.add_argument(
        "--report", action="store_true", help="show examples of each reason, languages and sources too"
    )
    parser.add_argument(
        "--show-removed", metavar="REASON", help="list every document that was removed for this reason"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="any setting; may be repeated"
    )
    common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from crystalline.corpus.stage import records
    from crystalline.pipeline import preparation
    from crystalline.settings import parse_assignment

    overrides = dict(parse_assignment(text) for text in args.set)
    first = Path(args.paths[0]).expanduser()
    with ExitStack() as held:
        if (first / "manifest.json").exists() and (first / "crystalline.toml").exists():
            if len(args.paths) > 1:
                raise UserError(
                    "could not clean several runs at once", f"{first} is a run folder", "name one run", EXIT_USAGE
                )
            report = preparation.clean(first, overrides)
            corpus = first / "corpus"
        else:
            folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="cllm-clean-")))
            report = preparation.preview(
                [str(Path(path).expanduser().resolve()) for path in args.paths], folder, overrides
            )
            corpus = folder / "corpus"
        if args.show_removed is not None:
            _check_reason(args.show_removed, report)
            found = [entry for entry in records(corpus, "removed") if entry["reason"] == args.show_removed]
            if args.json:
                output.print_json(found)
            else:
                print("\n".join(map(_removed, found)))
        elif args.json:
            output.print_json(report | ({"sources": list(records(corpus, "sources"))} if args.report else {}))
        else:
            print("\n".join(_summary(report)))
            if args.report:
                print("\n".join(_details(report, list(records(corpus, "sources")))))
    return EXIT_OK


def _check_reason(reason: str, report: dict[str, Any]) -> None:
    reasons = report["documents"]["removed"]
    if reason not in reasons:
        raise UserError(
            f"no document was removed because of '{reason}'",
            "the reasons here are: " + (", ".join(reasons) or "none"),
            suggest(reason, reasons) if reasons else "leave --show-removed out",
        )


def _summary(report: dict[str, Any]) -> Iterator[str]:
    documents, size, files = report["documents"], report["bytes"], report["files"]
    yield f"{'':26}{'documents':>12}  {'text':>10}"
    yield f"in, from {files['read']:,} files".ljust(26) + f"{documents['in']:12,}  {output.size(size['in']):>10}"
    reasons = sorted(
        documents["removed"].keys() | size["removed"].keys(), key=lambda r: (-size["removed"].get(r, 0), r)
    )
    for reason in reasons:
        taken = size["removed"].get(reason, 0)
        amount = ("-" if taken < 0 else "") + output.size(abs(taken))
        yield f"  - {reason:22}{documents['removed'].get(reason, 0):12,}  {amount:>10}"
    yield f"kept{'':22}{documents['kept']:12,}  {output.size(size['kept']):>10}"
    for reason, found in files["skipped"].items():
        yield f"skipped {found['count']:,} files ({reason}), such as {found['names'][0]}"
    if report["masked"]:
        yield "masked " + ", ".join(f"{count:,} {kind}" for kind, count in report["masked"].items())


def _details(report: dict[str, Any], sources: list[dict[str, Any]]) -> Iterator[str]:
    if report["languages"]:
        total = sum(report["languages"].values())
        shares = [f"{name} {amount / total:.1%}" for name, amount in report["languages"].items()]
        yield "languages of the prose: " + ", ".join(shares[:12])
    for reason, examples in report["examples"].items():
        yield f"\n{reason}, such as"
        yield from (f"  {' '.join(example.split())[:110]}" for example in examples)
    touched = [source for source in sources if set(source["bytes"]["removed"]) - {"cleaning"}]
    touched.sort(key=lambda source: source["bytes"]["kept"] - source["bytes"]["in"])
    if touched:
        yield "\nsources that lost most"
    for source in touched[:20]:
        lost = ", ".join(f"{reason} {output.size(n)}" for reason, n in source["bytes"]["removed"].items() if n > 0)
        yield f"  {source['source']}: {output.size(source['bytes']['in'])} in, {lost}"


def _removed(entry: dict[str, Any]) -> str:
    text = f"{entry['source']}, bytes {entry['offset']:,} to {entry['offset'] + entry['length']:,}"
    if "of" in entry:
        text += f": as in {entry['of']['source']}, byte {entry['of']['offset']:,} (likeness {entry['likeness']:.2f})"
    return f"{text}\n  {' '.join(entry['excerpt'].split())}"
