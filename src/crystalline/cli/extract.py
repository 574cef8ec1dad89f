"""`cllm extract`: the text of files of any format, as a run would read it. Changes nothing but what --out names."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystalline.cli import common, output
from crystalline.errors import EXIT_FAILED, EXIT_OK, UserError

if TYPE_CHECKING:
    from crystalline.corpus.extract.extraction import Extracted
    from crystalline.corpus.files import Skipped
    from crystalline.settings import Settings

EXAMPLES = """example:
  cllm extract ~/Documents                    what would be read, and what not and why
  cllm extract paper.pdf --show               its text and what is known about it
  cllm extract scan.pdf --ocr always --languages eng+deu --pages 1-3 --show
  cllm extract ~/Documents --out texts        a text file for each"""
NAMES_SHOWN = 5  # of what is passed over for the same reason
SHORTENED = 80  # characters of a file's name


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", metavar="PATH", help="files and folders")
    parser.add_argument("--show", action="store_true", help="print the texts, and what is known about them")
    parser.add_argument("--out", metavar="FOLDER", help="write a text file for each, and index.jsonl")
    parser.add_argument("--everything", action="store_true", help="menus, page headers and the like too")
    parser.add_argument(
        "--ocr", choices=("auto", "never", "always"), help="recognise text in pictures: auto (default): in images, "
        "and on PDF pages without text; always: on all PDF pages"
    )  # fmt: skip
    parser.add_argument(
        "--languages", metavar="L+L", help="for recognition, such as eng+deu; default: those installed"
    )
    parser.add_argument("--dpi", type=common.whole(72), metavar="N", help="resolution for recognition (300)")
    parser.add_argument("--pages", metavar="P,P-P", help="pages of PDFs, such as 1-5,8,20-")
    parser.add_argument(
        "--set", action="append", default=[], metavar="extract.KEY=VALUE", help="any setting; may be repeated"
    )
    common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from crystalline.corpus.files import Skipped

    settings = _settings(args)
    _see_that_ocr_is_possible(args, settings)
    folder = _new_folder(args.out) if args.out else None
    entries, skipped = [], []
    try:
        for result in _results(settings):
            if isinstance(result, Skipped):
                skipped.append(result)
            else:
                entries.append(_entry(result, args, folder))
    finally:
        if folder is not None:
            _write_index(folder, entries, skipped)
    if args.json:
        output.print_json({"documents": entries, "skipped": [_skipped_entry(one) for one in skipped]})
    else:
        _print_summary(entries, skipped, args.quiet)
    return EXIT_OK if entries else EXIT_FAILED


def _settings(args: argparse.Namespace) -> Settings:
    from crystalline.settings import load, parse_assignment

    flags = {"ocr": args.ocr, "languages": args.languages, "dpi": args.dpi, "pages": args.pages}
    values = dict(parse_assignment(text) for text in args.set)
    values |= {f"extract.{name}": value for name, value in flags.items() if value is not None}
    if args.everything:
        values["extract.everything"] = True
    return load(overrides={**values, "corpus.source": args.paths})


def _results(settings: Settings) -> Iterator[Extracted | Skipped]:
    from crystalline.corpus.extract.extraction import Raw, extract
    from crystalline.corpus.files import Skipped, walk

    for found in walk(settings.corpus):
        if isinstance(found, Skipped):
            yield found
        else:
            yield from extract(Raw(found.source, found.path), settings.extract)


def _see_that_ocr_is_possible(args: argparse.Namespace, settings: Settings) -> None:
    """Who asks for recognition is told at once when it is not there; else files are named that would need it."""
    from crystalline.corpus.extract import ocr

    if args.ocr == "always" or (args.languages and args.ocr != "never"):
        try:
            ocr.languages(settings.extract.languages)
        except ocr.Missing as missing:
            raise UserError(
                "could not recognise text in pictures", "Tesseract lacks its languages", missing.fix
            ) from missing


def _entry(result: Extracted, args: argparse.Namespace, folder: Path | None) -> dict[str, Any]:
    """What is told about a document; its text goes to where the flags say."""
    entry: dict[str, Any] = {"source": result.source, "kind": result.kind, **result.metadata}
    text: Iterable[str] = result.text
    if args.json and args.show:
        text = [entry.setdefault("text", "".join(result.text))]
    elif args.show:
        print("\n".join(["=" * 78, *(f"{name:10} {value}" for name, value in entry.items()), "-" * 78]))
    if folder is not None:
        entry["file"] = _file_name(result.source)
    entry["bytes"] = _pour(text, folder / entry["file"] if folder else None, args.show and not args.json)
    return entry


def _pour(text: Iterable[str], path: Path | None, show: bool) -> int:
    """Print a text and write it to a file, each where wanted. Returns its bytes."""
    from crystalline.run_folder import reporting_os_errors

    size = 0
    with reporting_os_errors(f"write {path}"):
        file = open(path, "wb") if path else None
        try:
            for piece in text:
                data = piece.encode("utf-8")
                size += len(data)
                if file:
                    file.write(data)
                if show:
                    sys.stdout.write(piece)
        finally:
            if file:
                file.close()
    if show:
        print()
    return size


def _new_folder(name: str) -> Path:
    from crystalline.run_folder import reporting_os_errors

    folder = Path(name).expanduser()
    with reporting_os_errors(f"make the folder {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UserError(
                f"could not write to {folder}", "it is not empty", "name a folder that does not exist yet with --out"
            )
    return folder


def _file_name(source: str) -> str:
    """A name for a text: the end of its source's, and a few digits so that no two are the same."""
    digest = hashlib.sha256(source.encode()).hexdigest()[:12]
    base = re.sub(r"[^\w.-]+", "-", source).strip("-.")[-SHORTENED:].lstrip("-.")
    while len(base.encode()) > 200:
        base = base[1:]
    return f"{base}-{digest}.txt"


def _write_index(folder: Path, entries: list[dict[str, Any]], skipped: list[Skipped]) -> None:
    lines = [*entries, *(_skipped_entry(one) for one in skipped)]
    common.write_file(str(folder / "index.jsonl"), "".join(json.dumps(e, ensure_ascii=False) + "\n" for e in lines))


def _skipped_entry(skipped: Skipped) -> dict[str, Any]:
    return {"source": skipped.source, "skipped": skipped.reason, "detail": skipped.detail}


def _print_summary(entries: list[dict[str, Any]], skipped: list[Skipped], quiet: bool) -> None:
    if not quiet:
        total = sum(entry["bytes"] for entry in entries)
        print(f"{len(entries):,} document{'' if len(entries) == 1 else 's'}, {output.size(total)} of text")
    counts = Counter((entry["format"], entry["kind"]) for entry in entries)
    sizes = Counter[tuple[str, str]]()
    for entry in entries:
        sizes[entry["format"], entry["kind"]] += entry["bytes"]
    for (format, kind), count in counts.most_common():
        print(f"  {format:8} {kind:6} {count:8,}  {output.size(sizes[format, kind])}")
    reasons = Counter((one.reason, one.folder) for one in skipped)
    for (reason, folder), count in reasons.most_common():
        print(f"  skipped, {reason}: {count:,} {'folder' if folder else 'file'}{'' if count == 1 else 's'}")
        named = [one for one in skipped if (one.reason, one.folder) == (reason, folder)]
        for one in named[:NAMES_SHOWN]:
            print(f"    {one.source}{f': {one.detail}' if one.detail else ''}")
        if count > NAMES_SHOWN:
            print("    ...")
