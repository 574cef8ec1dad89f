"""Arguments that several verbs share, and how progress of a run is shown."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from crystalline.cli.output import count, duration, size
from crystalline.errors import EXIT_OK, EXIT_USAGE, UserError

if TYPE_CHECKING:
    from crystalline.model.generation import LanguageModel
    from crystalline.model.sampling import Sampling
    from crystalline.tokens.tokenizer import Tokenizer
    from crystalline.training.loop import Trainer
    from crystalline.training.plan import Plan

PRECISIONS = ("fp32", "bf16", "int8")  # of model/decoder.py, which would import torch


def add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="the run folder")


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON, for scripts")


def add_training(parser: argparse.ArgumentParser) -> None:
    """Flags that change settings."""
    parser.add_argument("--minutes", type=float, metavar="M", help="time to train")
    parser.add_argument("--steps", type=int, metavar="N", help="optimizer steps to train, in all")
    parser.add_argument("--tokens", type=int, metavar="N", help="tokens to train on, in all")
    parser.add_argument("--epochs", type=float, metavar="E", help="passes over the training text")
    parser.add_argument("--seed", type=int, metavar="S", help="the same seed gives the same model")
    parser.add_argument("--size", metavar="SIZE", help="1M, 2M, 4M ... 1B parameters; default: from the time")
    parser.add_argument(
        "--workers", type=workers, metavar="N|auto|free", help="worker processes; auto (default): one a core, or one "
        "a GPU; free: as many as there are cores that nobody else uses"
    )  # fmt: skip
    parser.add_argument("--device", metavar="auto|cpu|cuda", help="train on the processor or, if any, on GPUs")
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="any setting; may be repeated"
    )


def add_tensorboard(parser: argparse.ArgumentParser) -> None:
    """--tensorboard, for the verbs that train."""
    parser.add_argument(
        "--tensorboard",
        action="store_const",
        const=True,
        help="also write RUN/tensorboard, for the tensorboard program",
    )


def assignments(args: argparse.Namespace) -> dict[str, Any]:
    """What --set says."""
    from crystalline.settings import parse_assignment

    return dict(parse_assignment(text) for text in args.set)


def overrides(args: argparse.Namespace) -> dict[str, Any]:
    """The settings that the flags of `add_training` change."""
    values = assignments(args)
    # A length from the settings file must not win over one that was just typed.
    if args.tokens is not None or args.epochs is not None:
        values.setdefault("training.steps", "auto")
    if args.epochs is not None:
        values.setdefault("training.tokens", "auto")
    flags = {
        "training.minutes": args.minutes,
        "training.steps": args.steps,
        "training.tokens": args.tokens,
        "training.epochs": args.epochs,
        "training.seed": args.seed,
        "model.size": args.size,
        "training.workers": args.workers,
        "training.device": args.device,
        "training.tensorboard": getattr(args, "tensorboard", None),  # `cllm plan` has no such flag
    }
    return {**values, **{name: value for name, value in flags.items() if value is not None}}


def whole(least: int) -> Callable[[str], int]:
    """The type of a flag that takes a whole number from `least` up."""

    def number(text: str) -> int:
        if not (text.isascii() and text.isdigit() and least <= int(text) < 2**63):
            raise argparse.ArgumentTypeError(f"'{text}' is no whole number from {least} up")
        return int(text)

    return number


def workers(text: str) -> int | str:
    """A number of workers, or a word for how to choose it."""
    return text if text in ("auto", "free") else int(text)


def add_tokens(parser: argparse.ArgumentParser) -> None:
    """-n, the length of an answer."""
    parser.add_argument("-n", "--tokens", type=whole(1), metavar="N", help="longest answer in tokens")


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """Flags for drawing text; each defaults to the run's [generation] settings."""
    parser.add_argument("--temperature", type=float, metavar="T", help="0: always the most likely token")
    parser.add_argument("--greedy", action="store_true", help="the same as --temperature 0")
    parser.add_argument("--top-k", type=whole(0), metavar="K", help="draw from the K most likely tokens")
    parser.add_argument("--top-p", type=float, metavar="P", help="draw from the likeliest share P")
    parser.add_argument("--min-p", type=float, metavar="P", help="leave out tokens under P of the best one's")
    parser.add_argument("--repetition-penalty", type=float, metavar="R", help="above 1: repeat less")
    parser.add_argument(
        "--lattice", type=whole(0), metavar="K", help="lattice sampling: draw from the most likely token and the K "
        "nearest to it in the lattice of prime codes; 0 (default): off"
    )  # fmt: skip
    parser.add_argument(
        "--lattice-weights", type=float, nargs=3, metavar=("C", "S", "R"),
        help="what is near: closeness, shared primes, root and derived; default: 0.5 0.3 0.2",
    )  # fmt: skip
    parser.add_argument("--seed", type=whole(0), metavar="S", help="the same seed gives the same text; default: 0")
    parser.add_argument(
        "--stop", action="append", type=stop_text, default=[], metavar="TEXT",
        help="end before this text; \\n is the end of a line; may be repeated",
    )  # fmt: skip
    add_precision(parser)


def add_precision(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--precision", choices=PRECISIONS, help="of the weights; default: the one of the training")


def stop_text(text: str) -> str:
    """A text to stop at, as typed."""
    if not text:
        raise argparse.ArgumentTypeError("an empty text is everywhere")
    return text.replace("\\n", "\n").replace("\\t", "\t")


def sampling(args: argparse.Namespace, model: LanguageModel) -> Sampling:
    """The model's default sampling with what the flags of `add_sampling` change."""
    if args.greedy and args.temperature:
        raise UserError(
            "could not choose tokens in two ways",
            f"--greedy is temperature 0, and --temperature {args.temperature:g} was given too",
            "leave one of them out",
            EXIT_USAGE,
        )
    return model.sampling(
        temperature=0.0 if args.greedy else args.temperature,
        top_k=args.top_k,
        top_p=args.top_p,
        min_p=args.min_p,
        repetition_penalty=args.repetition_penalty,
        lattice=args.lattice,
        lattice_weights=None if args.lattice_weights is None else tuple(args.lattice_weights),
        seed=args.seed,
    )


def order(args: argparse.Namespace, name: str, **arguments: Any) -> int:
    """Send an order to the process that trains args.run."""
    from crystalline.run_folder import RunFolder
    from crystalline.training import commands

    commands.send(RunFolder.open(args.run), name, **arguments)
    if not args.quiet:
        print(f"sent '{name}' to {args.run}: it is done before the next step")
    return EXIT_OK


def write_file(path: str, text: str) -> None:
    """Write what a verb has made to the file that the user named; whole, or not at all."""
    from pathlib import Path

    from crystalline.run_folder import reporting_os_errors, write_text

    with reporting_os_errors(f"write {path}"):
        write_text(Path(path).expanduser(), text)


def plan_text(plan: Plan) -> str:
    """The plan as a person reads it."""
    recipe, shape, text = plan.recipe, plan.recipe.shape, plan.text
    settings = recipe.settings
    low_high = plan.bits_per_byte
    expected = (
        f"{low_high[0]:.2f} to {low_high[1]:.2f} bits per byte on held-out text"
        if low_high
        else "too short a run to say"
    )
    lines = [
        "plan",
        f"  text        {size(text.bytes)}, {count(text.tokens)} tokens for training, vocabulary {text.vocabulary:,}",
        f"  model       {settings.model.size}: {count(shape.parameters)} parameters, {shape.layers} layers, "
        f"width {shape.width}, context {shape.context}",
        f"  training    {recipe.steps:,} steps of {count(recipe.tokens_per_step)} tokens = "
        f"{count(plan.tokens)} tokens, {plan.epochs:.2g} times the text, {settings.optimizer.name}, "
        f"{settings.training.precision}, seed {settings.training.seed}",
        f"  time        {duration(plan.seconds)} on this machine",
        f"  memory      {size(plan.memory)}, {size(plan.disk)} on disk",
        f"  expected    {expected}",
    ]
    if plan.gpu_memory is not None:
        from crystalline.training import device

        used = f"{size(plan.gpu_memory)} of it used (counted, not yet measured)"
        lines.insert(5, f"  gpu         {device.describe()}, {used}")
    if plan.epochs > 20:
        lines.append("  note        the text is short for this much training: it will be learned by heart")
    if shape.beyond_plain:
        lines.append(
            f"  note        other programs cannot read this model, because of {', '.join(shape.beyond_plain)}"
        )
    return "\n".join(lines)


class Progress:
    """One line about the latest step, now and then: for logs. (A terminal gets the live view of cli/panel.py.)

    Called after each step with the trainer and the step's facts.
    """

    SECONDS = 15.0  # between two lines

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self._spoken = 0.0
        self._pace: float | None = None  # seconds a step takes, smoothed

    def __call__(self, trainer: Trainer, facts: dict[str, float]) -> None:
        pace = facts["seconds"]
        self._pace = pace if self._pace is None else 0.9 * self._pace + 0.1 * pace
        steps, step = trainer.recipe.steps, int(facts["step"])
        now = time.monotonic()
        if self.quiet or not (now - self._spoken >= self.SECONDS or step in (1, steps)):
            return
        self._spoken = now
        line = (
            f"step {step:,}/{steps:,}  loss {facts['loss']:.3f}  "
            f"{count(trainer.recipe.tokens_per_step / self._pace)} tokens/s  "
            f"{duration((steps - step) * self._pace)} left"
        )
        print(line, file=sys.stderr, flush=True)


def tokenizer(name: str) -> Tokenizer:
    """The tokenizer of a run or checkpoint folder, or in a file."""
    from pathlib import Path

    from crystalline.tokens.tokenizer import FILE
    from crystalline.tokens.tokenizer import Tokenizer as Kind

    path = Path(name).expanduser()
    inside = path / "tokenizer"
    return Kind.load(inside if (inside / FILE).exists() or (path / "manifest.json").exists() else path)


def piece(tokenizer: Tokenizer, id_: int) -> str:
    """A token as a person reads it: in quotation marks, bytes that are no UTF-8 as \\xNN; special ones by their
    names."""
    from crystalline.tokens.tokenizer import SPECIAL_TOKENS

    if tokenizer.is_special(id_):
        return SPECIAL_TOKENS[id_]
    text = tokenizer.token_bytes(id_).decode("utf-8", "backslashreplace")
    quoted = json.dumps(text, ensure_ascii=False).replace("\\\\x", "\\x")
    return quoted
