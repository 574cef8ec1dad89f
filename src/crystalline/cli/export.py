"""`cllm export`: write a model for other programs, and check it by reading it back."""

from __future__ import annotations

import argparse

from crystalline.cli import common, output
from crystalline.errors import EXIT_OK

EXAMPLES = """example:
  cllm export my-model --to hf --out my-model-hf       a folder for transformers: AutoModelForCausalLM
  cllm export my-model --to gguf --precision q8_0      a file for llama.cpp, ollama, LM Studio
  cllm export my-model --to cllm --license apache-2.0  one file with everything, to give away or keep"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a run folder, a checkpoint folder or a .cllm file")
    parser.add_argument(
        "--to", required=True, choices=("hf", "gguf", "cllm"), help="a Hugging Face folder, a file for llama.cpp, or "
        "one file for crystalline"
    )  # fmt: skip
    parser.add_argument("--out", metavar="PATH", help="what to write; default: the model's name, in this folder")
    parser.add_argument(
        "--precision", default="fp32", choices=("fp32", "bf16", "f16", "q8_0"), help="of the weights (fp32: exact); "
        "q8_0 for gguf only: 8 bits"
    )  # fmt: skip
    parser.add_argument("--license", metavar="NAME", help="the licence you give it, such as apache-2.0")
    parser.add_argument("--force", action="store_true", help="replace an earlier export")
    parser.add_argument(
        "--verify", action="store_true", help="let transformers or llama.cpp read it as well (they must be installed)"
    )
    common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from crystalline.export.exporting import export

    made = export(args.model, args.to, args.out, args.precision, args.license, args.force, args.verify)
    if args.json:
        output.print_json(
            {
                "path": str(made.path),
                "target": made.target,
                "precision": made.precision,
                "bytes": made.bytes,
                "checks": [one.to_json() for one in made.checks],
                "remarks": made.remarks,
            }
        )
        return EXIT_OK
    print(f"wrote {made.path}: {output.size(made.bytes)}, {made.precision}")
    for one in made.checks:
        print(f"  read back by {one.reader}: {one}")
    for remark in made.remarks:
        print(f"  note: {remark}")
    return EXIT_OK
