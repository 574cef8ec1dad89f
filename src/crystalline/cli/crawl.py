"""`cllm crawl`: fetch the pages of websites into a folder; stop it whenever you like, the same command goes on."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from crystalline.cli import common, output
from crystalline.errors import EXIT_OK, EXIT_USAGE, Interrupted, UserError

EXAMPLES = """examples:
  cllm crawl https://example.org                               into the folder example.org
  cllm crawl https://example.org --into docs --max-pages 500 --depth 5
  cllm crawl https://example.org/docs/ --allow https://example.org/docs/ --into docs
  cllm crawl --into docs                                       go on, with the settings it has
  cllm crawl --into docs --again                               look at all pages anew; only what changed is fetched
  cllm crawl https://example.org --into my-model               for a run: its settings are those of the run, [crawl]
  cllm crawl status docs                                       how far it is
  cllm crawl urls list docs                                    its URLs; see cllm crawl urls --help"""
# Verbs of its own: word -> (module, one line of help).
ACTIONS = {
    "status": ("crawl_status", "how far a crawl is"),
    "urls": ("crawl_urls", "the URLs of a crawl: list, add, remove, block, priorities, domains, export, import"),
}
SETTINGS_FILE = "crystalline.toml"
LOG_SECONDS = 15.0  # between two lines, where there is no terminal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("urls", nargs="*", metavar="URL", help="where to start")
    parser.add_argument(
        "--into",
        metavar="FOLDER|RUN",
        help="folder of the crawl, or a run (RUN/crawl); default: the name of the host",
    )
    group = parser.add_argument_group("which pages")
    group.add_argument("--max-pages", type=common.whole(1), metavar="N", help="keep so many at most; default: 10,000")
    group.add_argument(
        "--depth", type=common.whole(0), metavar="N", help="follow so many links in a row; default: 20"
    )
    group.add_argument(
        "--domains", type=_names, action="extend", metavar="D,D", help="stay on these; default: the hosts of the URLs"
    )
    pattern = "a beginning, or a pattern: * is anything, re:... a regular expression; may be repeated"
    group.add_argument("--allow", action="append", metavar="P", help=f"only URLs that match: {pattern}")
    group.add_argument("--deny", action="append", metavar="P", help="no URLs that match")
    group.add_argument(
        "--types", type=_names, action="extend", metavar="T,T", help="default: html,text,pdf,office,epub; also code, "
        "csv, json, xml, mail, image, archive",
    )  # fmt: skip
    group.add_argument(
        "--sitemaps",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="also from sitemaps and feeds; default",
    )
    text = group.add_mutually_exclusive_group()
    text.add_argument(
        "--main-text", action="store_const", const=True, dest="main_text", help="of a page its main text; default"
    )
    text.add_argument(
        "--everything", action="store_const", const=False, dest="main_text", help="menus and margins too"
    )
    group = parser.add_argument_group("how politely (robots.txt is always obeyed)")
    pace = group.add_mutually_exclusive_group()
    pace.add_argument("--delay", type=float, metavar="S", help="seconds between two requests to a host; default: 1")
    pace.add_argument("--rate", type=float, metavar="R", help="the same as requests a second")
    group.add_argument(
        "--per-host", type=common.whole(1), metavar="N", help="requests to a host at a time; default: 1"
    )
    group.add_argument("--user-agent", metavar="TEXT", help="default: crystalline/VERSION (+contact)")
    group.add_argument("--contact", metavar="TEXT", help="URL or mail address for the user agent")
    group = parser.add_argument_group("again, and together")
    group.add_argument("--again", action="store_true", help="look at all pages anew; only what changed is fetched")
    group.add_argument("--retry", action="store_true", help="try again what failed")
    group.add_argument("--join", action="store_true", help="crawl along with a process that is at it already")
    parser.add_argument(
        "--set", action="append", default=[], metavar="CRAWL.KEY=VALUE", help="any setting; may be repeated"
    )
    common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from crystalline.corpus.crawl import engine
    from crystalline.training.interrupt import StopRequest

    starts = [engine.start_url(text) for text in args.urls]
    folder, settings = _prepare(args, starts)
    if not args.quiet:
        print(f"crawling into {folder}", file=sys.stderr, flush=True)
    with StopRequest() as stop, _watching(args) as watch:
        facts = engine.crawl(
            folder, starts, settings.crawl, again=args.again, retry=args.retry, join=args.join, verbose=args.verbose,
            watch=watch, stopped=lambda: stop.asked,
        )  # fmt: skip
    if args.json:
        output.print_json(facts)
    elif not args.quiet:
        from crystalline.cli.crawl_status import describe

        print(describe(facts))
    return _outcome(facts)


def folder_of(named: str) -> Path:
    """The crawl's folder of what a user named: a folder, or a run."""
    path = Path(named).expanduser()
    return path / "crawl" if (path / "manifest.json").exists() else path


def _prepare(args: argparse.Namespace, starts: list[str]) -> tuple[Path, Any]:
    """The folder, made when it is new, and the settings: file < environment < flags. Flags are kept in the file."""
    from crystalline import settings
    from crystalline.corpus.crawl.database import FILE
    from crystalline.run_folder import reporting_os_errors, write_text

    if not args.into and not starts:
        raise UserError(
            "could not tell what to crawl", "no URL is given", "cllm crawl URL, or cllm crawl --into FOLDER to go on",
            EXIT_USAGE,
        )  # fmt: skip
    folder = folder_of(args.into or _folder_name(starts[0]))
    new = not (folder / FILE).exists()
    if new and not starts:
        raise UserError(
            f"there is no crawl in {folder}", "it was never started, and no URL is given",
            f"cllm crawl URL --into {args.into}",
        )  # fmt: skip
    in_run = args.into is not None and folder != Path(args.into).expanduser()
    file = (folder.parent if in_run else folder) / SETTINGS_FILE
    if new and not in_run and folder.exists() and not _ours(folder):
        raise UserError(
            f"could not start a crawl in {folder}",
            "it exists and is not an empty folder",
            "name another: --into",
        )
    values = {name: value for name, value in _flags(args).items() if value is not None}
    here = file if file.exists() else None
    found = settings.load(here, None, values)
    with reporting_os_errors(f"make the folder {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        if not in_run and (values or here is None):
            write_text(file, settings.to_toml(settings.load(here, {}, values)))
    return folder, found


def _flags(args: argparse.Namespace) -> dict[str, Any]:
    from crystalline.settings import parse_assignment

    if args.rate is not None and not args.rate > 0:
        raise UserError(
            f"could not use --rate {args.rate}", "it is not above 0", "for example: --rate 0.5", EXIT_USAGE
        )
    given = dict(parse_assignment(text) for text in args.set)
    return given | {
        "crawl.max_pages": args.max_pages, "crawl.depth": args.depth, "crawl.domains": args.domains,
        "crawl.allow": args.allow, "crawl.deny": args.deny, "crawl.types": args.types,
        "crawl.sitemaps": args.sitemaps, "crawl.main_text": args.main_text, "crawl.per_host": args.per_host,
        "crawl.user_agent": args.user_agent, "crawl.contact": args.contact,
        "crawl.delay": args.delay if args.rate is None else 1 / args.rate,
    }  # fmt: skip


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _folder_name(url: str) -> str:
    """Of the host and port: letters, digits, dots, - and _ only, so that it is a name and no path."""
    name = "".join(c if c.isalnum() or c in ".-" else "_" for c in urlsplit(url).netloc).strip("._")
    return name or "crawl"


def _ours(folder: Path) -> bool:
    return folder.is_dir() and all(
        path.name == SETTINGS_FILE or path.name.startswith(("crawl.sqlite", "lock-", "."))
        for path in folder.iterdir()
    )


def _outcome(facts: dict[str, Any]) -> int:
    if facts["ended"] == "stopped":
        raise Interrupted("all is saved, the same command goes on")
    if facts["ended"] == "put off":
        raise UserError(
            "could not finish the crawl now",
            f"what is left must wait for {output.duration(facts['wait'])}: hosts asked for it, or do not answer",
            "give the same command again then: it goes on (or set crawl.patience)",
        )
    if not facts["pages"]:
        why = ", ".join(f"{n:,} {reason}" for reason, n in {**facts["failed"], **facts["skipped"]}.items())
        raise UserError("no page could be fetched", why or "there was none", "check the URL and the filters")
    return EXIT_OK


class _watching:
    """Inside, what is called with the facts shows them: drawn in place in a terminal, else a line now and then."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._quiet = args.quiet
        self._live: Any = None
        self._spoken = time.monotonic()

    def __enter__(self) -> _watching:
        if not self._quiet and sys.stderr.isatty():
            from crystalline.cli.terminal import Live

            self._live = Live(sys.stderr)
            self._live.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.draw([])
            self._live.__exit__(*error)

    def __call__(self, facts: dict[str, Any]) -> None:
        from crystalline.cli import crawl_status

        if self._live is not None:
            self._live.draw(crawl_status.lines(facts, self._live.size()[0], self._live.unicode))
        elif not self._quiet and time.monotonic() - self._spoken >= LOG_SECONDS:
            self._spoken = time.monotonic()
            print(crawl_status.one_line(facts), file=sys.stderr, flush=True)
