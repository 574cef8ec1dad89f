"""`cllm status`: how far a run is, from its events."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from crystalline.cli import common, output, terminal
from crystalline.errors import EXIT_OK, EXIT_USAGE, UserError

EXAMPLES = """example:
  cllm status my-model
  cllm status my-model --watch      the live view, until the run ends or Ctrl-C
  cllm status my-model --json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_run(parser)
    parser.add_argument("--watch", action="store_true", help="go on showing it until it ends; Ctrl-C only looks away")
    common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from crystalline.pipeline.status import status

    if args.watch:
        if args.json:
            raise UserError(
                "could not watch as JSON", "--watch and --json exclude each other", "leave one out", EXIT_USAGE
            )
        with suppress(KeyboardInterrupt):  # who looks away does not stop the run
            _watch(args.run)
        return EXIT_OK
    found = status(args.run)
    if args.json:
        output.print_json(found)
        return EXIT_OK
    print(f"{found['run']}: {found['state']}")
    for name, text in _measured(found):
        print(f"  {name:13} {text}")
    for sphere in found["spheres"]:
        print(f"  sphere {sphere['number']:<6} {_sphere(sphere)}")
    return EXIT_OK


def _measured(f: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(name, text) of everything that is known."""
    if f["steps"]:
        yield "step", f"{f['step']:,} of {f['steps']:,}"
    if f["tokens"]:
        yield "tokens", output.count(f["tokens"])
    if f["loss"] is not None:
        yield "loss", f"{f['loss']:.4f} nats per token, perplexity {f['perplexity']:.4g}"
    if f["bits_per_byte"] is not None:
        yield (
            "held out",
            f"{f['bits_per_byte']:.4f} bits per byte, perplexity {f['held_out_perplexity']:.4g}, "
            f"at step {f['evaluated_step']:,}",
        )
    if f["best"] is not None:
        yield "best", f"{f['best']['bits_per_byte']:.4f} bits per byte at step {f['best']['step']:,}"
    if f["ended_early"]:
        yield "ended early", "the evaluations got no better"
    if f["gradient_norm"] is not None:
        yield "gradient", f"norm {f['gradient_norm']:.4g}"
    if f["learning_rate"] is not None:
        yield "rate", f"{f['learning_rate']:.4g}, {f['rate']:.1%} of its peak"
    if f["tokens_per_second"] is not None:
        yield "speed", f"{output.count(f['tokens_per_second'])} tokens/s"
    if f["peak_share"] is not None:
        yield "share of peak", f"{f['peak_share']:.1%} of the matrix products that the workers could do"
    if f["memory"] is not None:
        yield "memory", output.size(f["memory"])
    if f["seconds_left"] is not None:
        yield "time left", output.duration(f["seconds_left"])
    if f["drops"]:
        yield "dropped", f"{f['drops']:,} of the steps, whose loss or gradient could not be used"
    if f["rollbacks"]:
        yield "rollbacks", f"{f['rollbacks']:,}"


def _sphere(sphere: dict[str, Any]) -> str:
    parts = [f"{sphere.get('positions', 0):,} positions ({sphere.get('steals', 0):,} taken over)"]
    if sphere["share"] is not None:
        parts.append(f"{sphere['share']:.0%} busy")
    if "busy" in sphere:
        parts.append(f"busy {output.duration(sphere['busy'] + sphere.get('update', 0.0))}")
    if "memory" in sphere:
        parts.append(f"memory {output.size(sphere['memory'])}")
    return ", ".join(parts)


def _watch(root: str) -> None:
    from crystalline.cli import panel
    from crystalline.pipeline.status import Standing

    if terminal.is_live(sys.stdout):
        panel.watch(root, sys.stdout)
        return
    standing = Standing(root)
    while True:
        standing.catch_up()
        facts = standing.facts()
        print("  ".join([facts["state"], *(f"{name} {text}" for name, text in _measured(facts))]), flush=True)
        if facts["state"] not in panel.WORKING:
            return
        time.sleep(common.Progress.SECONDS)
