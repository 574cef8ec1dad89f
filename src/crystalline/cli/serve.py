"""`cllm serve`: models as a server that speaks OpenAI's language."""

from __future__ import annotations

import argparse
import sys

from crystalline.cli import common
from crystalline.errors import EXIT_OK

EXAMPLES = """example:
  cllm serve my-model
  cllm serve my-model other-model --port 9000
  cllm serve my-model --host 0.0.0.0 --key-file keys.txt     for others in the network
  cllm serve my-model --set serving.slots=16 --set serving.timeout=60

Then, with any program for OpenAI's API, or:
  curl http://127.0.0.1:8080/v1/completions -H "Content-Type: application/json" \\
       -d '{"model": "my-model", "prompt": "The ", "max_tokens": 50}'
Ctrl-C lets texts that are being written come to their end; a second one ends at once."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("models", nargs="+", metavar="MODEL", help="a run folder, whose newest checkpoint is served "
                        "also while it is trained; or a checkpoint folder")  # fmt: skip
    parser.add_argument("--host", metavar="ADDRESS", help="where to listen; default: 127.0.0.1, this machine only")
    parser.add_argument("--port", type=common.whole(0), metavar="N", help="default: 8080; 0: any that is free")
    parser.add_argument(
        "--key", action="append", metavar="KEY",
        help="answer only who has this key; may be repeated. Others can see it in the list of "
        "processes: --key-file, or CLLM_SERVING_KEYS, is safer",
    )  # fmt: skip
    parser.add_argument("--key-file", metavar="FILE", help="keys in a file, one in a line")
    parser.add_argument(
        "--slots", type=common.whole(1), metavar="N", help="texts that are written at once; default: 8"
    )
    common.add_precision(parser)
    parser.add_argument("--cors", action="append", metavar="ORIGIN", help="a web page that may ask; *: all")
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="any setting; may be repeated"
    )


def run(args: argparse.Namespace) -> int:
    from pathlib import Path

    from crystalline import settings
    from crystalline.model import checkpoints
    from crystalline.run_folder import RunFolder
    from crystalline.serving import server

    paths = [Path(model).expanduser() for model in args.models]
    for path in paths:
        checkpoints.find(path)  # a model that is not there is told before anything starts
    flags = {f"serving.{name}": getattr(args, name) for name in ("host", "port", "key_file", "slots", "cors")}
    flags["serving.keys"] = args.key
    file = RunFolder(paths[0]).settings
    given = settings.load(file if file.exists() else None, overrides={**common.assignments(args), **flags})

    def on_ready(address: str, names: list[str]) -> None:
        if not args.quiet:
            print(f"serving {', '.join(names)} at {address}", flush=True)
            print("Ctrl-C ends it", file=sys.stderr)

    server.serve(paths, given.serving, on_ready, args.precision)
    return EXIT_OK
