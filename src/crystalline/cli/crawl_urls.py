"""`cllm crawl urls`: look at the URLs of a crawl and give orders about them, also while it runs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystalline.cli import common, output
from crystalline.errors import EXIT_OK, EXIT_USAGE, UserError

if TYPE_CHECKING:
    from crystalline.corpus.crawl.frontier import Frontier
    from crystalline.corpus.crawl.scope import Rule

EXAMPLES = """examples:
  cllm crawl urls list docs                               all URLs, with what became of them
  cllm crawl urls list docs '*/guide/*' --state failed    some of them
  cllm crawl urls add docs https://example.org/hidden     fetch these too
  cllm crawl urls remove docs https://example.org/old     forget these
  cllm crawl urls block docs ads.example.org '*/tag/*'    never fetch nor use what matches
  cllm crawl urls unblock docs '*/tag/*'
  cllm crawl urls priority docs '*/guide/*' --by 50       sooner than others; below 0: later
  cllm crawl urls domains docs                            pages, bytes and URLs of every host
  cllm crawl urls export docs urls.jsonl                  URLs and rules; - is standard output
  cllm crawl urls import other urls.jsonl                 or a text file with a URL in each line

A RULE is a URL, a domain (example.org), or a pattern with * or re: in front; --as says which."""
COLUMNS = ("url", "state", "reason", "status", "depth", "priority", "media_type", "size", "kind")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The actions, each with a parser of its own that names its function as `do`."""
    parser.set_defaults(print_help=parser.print_help, do=None)
    actions = parser.add_subparsers(dest="action", metavar="ACTION", parser_class=type(parser))

    def action(name: str, do: Callable[[Frontier, argparse.Namespace], None], about: str) -> Any:
        made = actions.add_parser(name, help=about, description=f"{about[0].upper()}{about[1:]}.", allow_abbrev=False)
        made.set_defaults(do=do)
        made.add_argument("folder", metavar="FOLDER|RUN", help="the crawl's folder, or a run")
        return made

    def rules(made: Any, nargs: str = "+") -> None:
        made.add_argument("rules", nargs=nargs, metavar="RULE", help="a URL, a domain or a pattern")
        made.add_argument(
            "--as",
            dest="kind",
            default="",
            metavar="KIND",
            help="what the rules are: exact, domain, prefix or pattern",
        )

    listed = action("list", _list, "the URLs, with their state")
    rules(listed, "*")
    listed.add_argument("--state", default="", metavar="S", help="waiting, done, redirect, skipped, failed or gone")
    listed.add_argument("--limit", type=common.whole(1), metavar="N", help="not more than N")
    common.add_json(listed)
    added = action("add", _add, "add URLs, as if they were start URLs")
    added.add_argument("urls", nargs="+", metavar="URL", help="to fetch")
    rules(action("remove", _remove, "forget URLs and what is stored of them; found again, they come back"))
    rules(action("block", _block, "never fetch nor use what matches, from now on"))
    rules(action("unblock", _unblock, "take such a rule back"))
    priority = action("priority", _priority, "fetch what matches sooner or later than the rest")
    rules(priority)
    priority.add_argument(
        "--by", type=int, required=True, metavar="N", help="a page deeper by a folder counts 5; 0: as usual"
    )
    common.add_json(action("rules", _rules, "the rules that were given"))
    common.add_json(action("domains", _domains, "statistics of every host"))
    action("export", _export, "write URLs and rules as JSON lines").add_argument("file", metavar="FILE", help="or -")
    action("import", _import, "add URLs and rules from such a file, or from lines of URLs").add_argument(
        "file", metavar="FILE", help="or -"
    )


def run(args: argparse.Namespace) -> int:
    from crystalline.cli.crawl import folder_of
    from crystalline.corpus.crawl.database import reporting
    from crystalline.corpus.crawl.frontier import Frontier

    if args.do is None:
        args.print_help()
        raise UserError(
            "cllm crawl urls needs to know what to do",
            "no action was given",
            "see cllm crawl urls --help",
            EXIT_USAGE,
        )
    folder = folder_of(args.folder)
    with closing(Frontier(folder)) as frontier, reporting(folder):
        args.do(frontier, args)
    return EXIT_OK


def _parsed(args: argparse.Namespace) -> list[Rule]:
    from crystalline.corpus.crawl.scope import Rule

    return [Rule.parse(text, args.kind) for text in args.rules]


def _list(frontier: Frontier, args: argparse.Namespace) -> None:
    from crystalline.corpus.crawl import orders
    from crystalline.corpus.crawl.frontier import STATES
    from crystalline.errors import suggest

    if args.state and args.state not in STATES:
        raise UserError(
            f"there is no state '{args.state}'", "it is not in the list", suggest(args.state, STATES), EXIT_USAGE
        )
    rows = islice(orders.rows(frontier, _parsed(args), args.state), args.limit)
    if args.json:
        output.print_json([_entry(row) for row in rows])
        return
    for row in rows:
        why = row["reason"] or (f"HTTP {row['status']}" if row["state"] == "gone" else "")
        print(f"{row['state']:9} {row['url']}{f'  ({why})' if why else ''}")


def _entry(row: Any) -> dict[str, Any]:
    return {name: row[name] for name in COLUMNS}


def _add(frontier: Frontier, args: argparse.Namespace) -> None:
    from crystalline.corpus.crawl import orders
    from crystalline.corpus.crawl.engine import start_url

    wanted = [start_url(text) for text in args.urls]
    new = orders.add(frontier, wanted)
    _say(args, f"{new:,} URLs are new, {len(wanted) - new:,} were known")
    for row in (row for row in orders.rows(frontier) if row["url"] in wanted and row["state"] == "skipped"):
        _say(args, f"{row['url']} is skipped: {row['reason']}")


def _remove(frontier: Frontier, args: argparse.Namespace) -> None:
    from crystalline.corpus.crawl import orders

    _say(args, f"{orders.remove(frontier, _parsed(args)):,} URLs are forgotten")


def _block(frontier: Frontier, args: argparse.Namespace) -> None:
    from crystalline.corpus.crawl import orders

    _say(args, f"{orders.block(frontier, _parsed(args)):,} known URLs are blocked, and all that will match")


def _unblock(frontier: Frontier, args: argparse.Namespace) -> None:
    from crystalline.corpus.crawl import orders

    _say(args, f"{orders.unblock(frontier, _parsed(args)):,} URLs are not blocked any more")


def _priority(frontier: Frontier, args: argparse.Namespace) -> None:
    from crystalline.corpus.crawl import orders

    moved = orders.prioritise(frontier, _parsed(args), args.by)
    _say(args, f"{moved:,} waiting URLs have a new place, and all that will match")


def _rules(frontier: Frontier, args: argparse.Namespace) -> None:
    rows = list(_rule_entries(frontier))
    if args.json:
        output.print_json(rows)
        return
    for row in rows:
        amount = f"  {row['amount']:+}" if row["amount"] else ""
        print(f"{row['rule']:9} {row['kind']:8} {row['text']}{amount}")


def _rule_entries(frontier: Frontier) -> Iterator[dict[str, Any]]:
    for row in frontier.db.execute("SELECT * FROM rules"):
        yield {"rule": row["action"], "kind": row["kind"], "text": row["text"], "amount": row["amount"]}


def _domains(frontier: Frontier, args: argparse.Namespace) -> None:
    from crystalline.corpus.crawl.standing import domains

    rows = domains(frontier)
    if args.json:
        output.print_json(rows)
        return
    width = max([4, *(len(row["host"]) for row in rows)])
    names = ("pages", "size", "found", "waiting", "skipped", "failed", "gone")
    print(f"{'host':{width}} {' '.join(f'{name:>8}' for name in names)}")
    for row in rows:
        values = [output.size(row["bytes"]) if name == "size" else f"{row[name]:,}" for name in names]
        print(f"{row['host']:{width}} {' '.join(f'{value:>8}' for value in values)}")


def _export(frontier: Frontier, args: argparse.Namespace) -> None:
    from crystalline.corpus.crawl import orders

    entries = [*_rule_entries(frontier), *(_entry(row) for row in orders.rows(frontier))]
    text = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)
    if args.file == "-":
        print(text, end="")
    else:
        common.write_file(args.file, text)
        _say(args, f"{len(entries):,} URLs and rules are in {args.file}")


def _import(frontier: Frontier, args: argparse.Namespace) -> None:
    from crystalline.corpus.crawl import orders
    from crystalline.corpus.crawl.engine import start_url
    from crystalline.corpus.crawl.scope import Rule
    from crystalline.run_folder import reporting_os_errors

    with reporting_os_errors(f"read {args.file}"):
        text = sys.stdin.read() if args.file == "-" else Path(args.file).expanduser().read_text("utf-8", "replace")
    entries = list(_entries(text.splitlines(), args.file))
    for entry in entries:
        if "rule" in entry:
            rule = Rule.parse(entry["text"], entry["kind"])
            if entry["rule"] == "block":
                orders.block(frontier, [rule])
            else:
                orders.prioritise(frontier, [rule], entry["amount"])
    pages = [entry for entry in entries if "url" in entry and entry.get("kind", "page") == "page"]
    depths = {start_url(entry["url"]): int(entry.get("depth", 0)) for entry in pages}
    new = sum(
        orders.add(frontier, [url for url in depths if depths[url] == depth], depth) for depth in {*depths.values()}
    )
    _say(args, f"{new:,} of {len(pages):,} URLs are new, and {sum('rule' in e for e in entries):,} rules were read")


def _entries(text: Iterable[str], file: str) -> Iterator[dict[str, Any]]:
    """URLs and rules in the lines of a file."""
    for number, line in enumerate(text, 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if not line.startswith("{"):
            yield {"url": line}
            continue
        try:
            entry = json.loads(line)
            if "rule" in entry:
                entry = {"rule": str(entry["rule"]), "kind": str(entry["kind"]), "text": str(entry["text"]),
                         "amount": int(entry.get("amount", 0))}  # fmt: skip
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"could not read {file}", f"line {number} is no URL and no entry of an export: {error}",
                "correct the line; nothing was imported",
            ) from error  # fmt: skip
        yield entry


def _say(args: argparse.Namespace, text: str) -> None:
    if not args.quiet:
        print(text)
