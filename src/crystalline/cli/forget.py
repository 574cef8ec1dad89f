"""`cllm forget`: leave a source out of the next corpus of a run."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from crystalline.cli import common, output
from crystalline.errors import EXIT_OK, EXIT_USAGE, UserError

if TYPE_CHECKING:
    from crystalline.run_folder import RunFolder

EXAMPLES = """example:
  cllm forget my-model /home/me/Documents/letters
  cllm forget my-model https://example.org/private/
  cllm forget my-model --list
  cllm forget my-model /home/me/Documents/letters --undo"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_run(parser)
    parser.add_argument(
        "source", nargs="?", metavar="SOURCE", help="a file, folder, page or site, as `cllm trace` names it"
    )
    parser.add_argument("--undo", action="store_true", help="do not leave it out any more")
    parser.add_argument("--list", action="store_true", help="show what is left out")
    common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from crystalline.corpus.forgotten import covers, forget, forgotten, take_back
    from crystalline.corpus.stage import records
    from crystalline.run_folder import RunFolder

    folder = RunFolder.open(args.run)
    if args.list == (args.source is not None) or (args.list and args.undo):
        raise UserError(
            "could not understand what to forget",
            "give either a SOURCE or --list",
            f"for example: cllm forget {args.run} SOURCE",
            EXIT_USAGE,
        )
    if args.source is not None:
        source = _named(args.source)
        with folder.lock():
            (take_back if args.undo else forget)(folder, source)
    entries = forgotten(folder)
    if args.json:
        output.print_json(entries)
        return EXIT_OK
    if args.list:
        for entry in entries:
            print(f"{entry['source']}   since {time.strftime('%Y-%m-%d %H:%M', time.localtime(entry['since']))}")
        if not entries and not args.quiet:
            print("nothing is forgotten")
        return EXIT_OK
    if args.quiet:
        return EXIT_OK
    if args.undo:
        print(f"{source} is used again the next time the text is read")
    else:
        print(f"{source} will be left out the next time the text is read")
        if (folder.corpus / "sources.jsonl").exists():
            here = [entry for entry in records(folder, "sources") if covers(source, entry["source"])]
            documents = sum(entry["documents"]["kept"] for entry in here)
            print(f"the text as it was read has {documents:,} documents of it, from {len(here):,} sources")
    _what_next(folder, source, args.undo)
    return EXIT_OK


def _named(source: str) -> str:
    """The source as the corpus names it: files by their absolute path."""
    from pathlib import Path

    from crystalline.corpus.clean.cleaner import is_web

    path = Path(source).expanduser()
    return source if is_web(source) or not path.exists() else str(path.resolve())


def _what_next(folder: RunFolder, source: str, undo: bool) -> None:
    if folder.checkpoints.exists() and any(folder.checkpoints.iterdir()):
        if not undo:
            print(f"the model in {folder.root} has been trained already and still knows what it has learned from it")
        print(
            "the text of a run stays as it is once training has begun; a model "
            + ("with it: cllm new ANOTHER" if undo else f"without it: cllm new ANOTHER, cllm forget ANOTHER {source}")
        )
    else:
        print(f"next: cllm clean {folder.root}, or cllm run {folder.root}")
