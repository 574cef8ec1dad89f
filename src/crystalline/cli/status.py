"""`cllm status`: how far a run is, from its events."""

from __future__ import annotations

import argparse
from typing import Any

from crystalline.cli import common, output
from crystalline.errors import EXIT_OK

EXAMPLES = """example:
  cllm status my-model
  cllm status my-model --json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_run(parser)
    common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from crystalline.pipeline.status import status

    found = status(args.run)
    if args.json:
        output.print_json(found)
        return EXIT_OK
    print(f"{found['run']}: {found['state']}")
    if found["steps"]:
        print(f"  step          {found['step']:,} of {found['steps']:,}")
    for name, text in _measured(found):
        print(f"  {name:13} {text}")
    for sphere in found["spheres"]:
        busy = sphere["busy"] + sphere["update"]
        print(
            f"  sphere {sphere['number']:<6} {sphere['positions']:,} positions ({sphere['steals']:,} taken over), "
            f"busy {output.duration(busy)}, memory {output.size(sphere['memory'])}"
        )
    return EXIT_OK


def _measured(found: dict[str, Any]) -> list[tuple[str, str]]:
    lines = []
    if found["loss"] is not None:
        lines.append(("loss", f"{found['loss']:.4f} nats per token"))
    if found["bits_per_byte"] is not None:
        lines.append(("held out", f"{found['bits_per_byte']:.4f} bits per byte"))
    if found["tokens_per_second"] is not None:
        lines.append(("speed", f"{output.count(found['tokens_per_second'])} tokens/s"))
    if found["seconds_left"] is not None:
        lines.append(("time left", output.duration(found["seconds_left"])))
    if found["best"] is not None:
        lines.append(
            ("best", f"{found['best']['bits_per_byte']:.4f} bits per byte at step {found['best']['step']:,}")
        )
    if found["ended_early"]:
        lines.append(("ended early", "the evaluations got no better"))
    if found["drops"]:
        lines.append(("dropped", f"{found['drops']:,} steps, {found['rollbacks']:,} times back to a checkpoint"))
    return lines
