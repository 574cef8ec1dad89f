"""`cllm import`: make a run that starts from a model, to train it on with one's own documents."""

from __future__ import annotations

import argparse

from crystalline.cli import common, output
from crystalline.errors import EXIT_OK

EXAMPLES = """example:
  cllm import ~/models/Qwen3-0.6B my-model --from ~/Documents
  cllm import friends-model.cllm my-model --from ~/Documents
  cllm import ~/models/SmolLM2-135M my-model --context 512 --set optimizer.name=adamw"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", metavar="SOURCE", help="a Hugging Face folder (Qwen3, Llama), a .cllm file, or another run"
    )
    parser.add_argument("run", metavar="RUN", help="the run folder to make")
    parser.add_argument(
        "--from", dest="sources", action="append", default=[], metavar="PATH|URL",
        help="text to train on, as for cllm new; may be repeated, or given later to cllm run",
    )  # fmt: skip
    parser.add_argument(
        "--context", type=common.whole(8), metavar="N", help="tokens seen at once; default: the model's, up to 2048"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="any setting; may be repeated"
    )
    common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from crystalline.pipeline import runner

    folder, made = runner.import_model(args.source, args.run, args.sources, args.context, **common.assignments(args))
    if args.json:
        output.print_json(
            {
                "run": str(folder.root),
                "parameters": made.parameters,
                "checks": [one.to_json() for one in made.checks],
                "remarks": made.remarks,
            }
        )
        return EXIT_OK
    if not args.quiet:
        print(f"made {folder.root}; it starts from {args.source}: {output.count(made.parameters)} parameters")
        for one in made.checks:
            print(f"  beside the source, read by {one.reader}: {one}")
        for remark in made.remarks:
            print(f"  note: {remark}")
        added = "" if args.sources else " --from DOCUMENTS"
        print(f"next: cllm run {folder.root}{added} --minutes 10")
    return EXIT_OK
