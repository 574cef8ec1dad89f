"""The recipe: what exactly is trained, with every "auto" settled. The same recipe gives the same weights.

It is settled once, when training starts, and kept in the run folder and in every checkpoint. Whoever goes on
with the run, with whatever settings file, follows the recipe; a setting that contradicts it is an error.
"""

from __future__ import annotations

import math
import platform
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from crystalline.errors import EXIT_USAGE, UserError
from crystalline.model import library
from crystalline.model.shape import SIZES, Shape, shape_of
from crystalline.run_folder import SEAL, RunFolder, sha256_file
from crystalline.settings import Settings, Training
from crystalline.training import device

# Sections and settings that a started run cannot change without becoming another run.
FIXED = {
    "tokenizer": None,
    "model": None,
    "optimizer": None,
    "objective": None,
    "scheduler": None,
    "training": {"discover_roots", "seed", "positions", "micro_batch", "accumulation", "device", "precision"},
    "checkpointing": {"rollback_every"},
}

EVALUATION_SHARE = 0.03  # of the time of a run, at most (but for the last evaluation)
TRAINING_COST = 3  # times what predicting a token costs: the backward pass is two more
LENGTH = {"steps", "tokens", "epochs", "minutes"}  # settled as steps; see pipeline/runner.py


@dataclass(frozen=True)
class Recipe:
    """settings: all settled. shape: of the network.

    text: what identifies the training text; and, as "start", the model that training starts from, if there is one.
    """

    settings: Settings
    shape: Shape
    text: dict[str, Any]

    @property
    def steps(self) -> int:
        assert self.settings.training.steps is not None
        return self.settings.training.steps

    @property
    def tokens_per_step(self) -> int:
        """Places in a step (the last window of an epoch may leave some unused)."""
        t = self.settings.training
        assert t.micro_batch is not None
        return t.positions * t.accumulation * t.micro_batch * self.shape.context

    @property
    def best_counts(self) -> bool:
        """Whether evaluations decide something: what is kept, or when training ends."""
        return self.settings.checkpointing.keep_best or self.settings.training.patience > 0

    @property
    def device(self) -> device.Kind:
        """Where positions are computed. Before there was a choice it was the processor."""
        return "cuda" if self.settings.training.device == "cuda" else "cpu"

    @property
    def dtype(self) -> torch.dtype:
        """Of the products."""
        return dtype_of(self.settings.training.precision)

    @property
    def update_dtype(self) -> torch.dtype:
        """Of products in the update. Gradients are too small for fp16."""
        return torch.float32 if self.dtype == torch.float16 else self.dtype

    def to_json(self) -> dict[str, Any]:
        return {
            "settings": self.settings.model_dump(exclude={"serving"}),  # no part of the model; may hold keys
            "shape": asdict(self.shape),
            "text": self.text,
            "machine": machine(self.device),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Recipe:
        return cls(Settings.model_validate(value["settings"]), Shape(**value["shape"]), value["text"])


def start_identity(run: RunFolder) -> str:
    """SHA-256 of the checksums of the model in RUN/start, and so of all that is in it."""
    return sha256_file(run.start / SEAL)


def steps_for(training: Training, tokens_per_step: int, text_tokens: int) -> int | None:
    """The length that was asked for in steps, tokens or epochs (what comes first here counts), in steps."""
    if training.steps is not None:
        return training.steps
    if training.tokens is not None:
        return max(1, round(training.tokens / tokens_per_step))
    if training.epochs is not None:
        return max(1, round(training.epochs * text_tokens / tokens_per_step))
    return None


def settle(
    wanted: Settings,
    size: str,
    vocabulary: int,
    factors: int,
    text: dict[str, Any],
    steps: int,
    step_seconds: float | None = None,
) -> Recipe:
    """Fill in everything that was left open. `steps` and `size` were chosen by the planner or the user.

    step_seconds: what a step takes, if that was measured.
    """
    shape = shape_of(wanted.model, size, vocabulary, factors)
    settled = wanted.model_copy(deep=True)
    settled.model.size = size
    for name in ("layers", "width", "heads", "kv_heads", "head_width", "hidden", "context"):
        setattr(settled.model, name, getattr(shape, name))
    t, o = settled.training, settled.optimizer
    t.steps, t.tokens, t.epochs, t.minutes = steps, None, None, None
    t.micro_batch = t.micro_batch or SIZES[size][4]
    t.device = device.choose(t.device)
    t.precision = precision(t.precision, t.device)
    # Evaluations take cores from training: ten of them, or as many as cost a small share of a short run.
    tokens = steps * t.positions * t.accumulation * t.micro_batch * shape.context
    affordable = max(1.0, EVALUATION_SHARE * TRAINING_COST * tokens / t.evaluate_tokens)
    t.evaluate_every = t.evaluate_every or max(1, steps // 10, math.ceil(steps / affordable))
    t.sample_every = t.sample_every or max(1, steps // 5, t.evaluate_every)
    c = settled.checkpointing
    # By the clock, a rollback would depend on how fast the machine was.
    planned = max(1, steps // 10 if step_seconds is None else round(60 * c.every_minutes / step_seconds))
    c.rollback_every = c.rollback_every or c.every_steps or planned
    default_rates = {"muon": (0.02, 0.008), "adamw": (0.004, 0.008), "sgd": (0.1, 0.1)}[o.name]
    # Wider networks want smaller AdamW rates, about as 1 / width (Yang et al. 2022, arXiv 2203.03466).
    narrow = min(1.0, 256 / shape.width)
    o.learning_rate = o.learning_rate or default_rates[0] * (1.0 if o.name == "muon" else narrow)
    o.embedding_learning_rate = o.embedding_learning_rate or default_rates[1] * narrow**0.5
    return Recipe(settled, shape, text)


def with_free_settings(recipe: Recipe, wanted: Settings) -> Recipe:
    """The recipe with what may change in a started run (when to save, look and speak) as it is wanted now."""
    free = wanted.training.model_dump(exclude_none=True, exclude=(FIXED["training"] or set()) | LENGTH)
    training = recipe.settings.training.model_copy(update=free)
    fixed = recipe.settings.checkpointing.model_dump(include=FIXED["checkpointing"])
    checkpointing = wanted.checkpointing.model_copy(update=fixed)
    update = {"training": training, "checkpointing": checkpointing, "generation": wanted.generation}
    return Recipe(recipe.settings.model_copy(update=update), recipe.shape, recipe.text)


def check_same(recipe: Recipe, wanted: Settings) -> None:
    """Raise a UserError (exit code 2) when `wanted` asks for something else than `recipe` was started with.

    Settings left at "auto" or at their default ask for nothing.
    """
    asked = wanted.model_dump(exclude_defaults=True)
    settled = recipe.settings.model_dump()
    differences = [
        f"{section}.{key} was {settled[section][key]}, now {value}"
        for section, names in FIXED.items()
        for key, value in asked.get(section, {}).items()
        if (names is None or key in names) and value != settled[section][key]
    ]
    if differences:
        raise UserError(
            "this run was started with other settings",
            "; ".join(differences),
            "leave these as they were, or make a new run folder for the new settings",
            EXIT_USAGE,
        )


Precision = Literal["bf16", "fp16", "fp32"]


def precision(wanted: Literal["auto", "bf16", "fp16", "fp32"], kind: device.Kind = "cpu") -> Precision:
    """What is asked for; "auto": "bf16" where it is multiplied natively, else "fp32", and on a GPU "fp16"."""
    if wanted != "auto":
        return wanted
    if kind == "cuda":
        return "bf16" if device.gpus()[0].has_bf16 else "fp16"
    return "bf16" if has_bf16() else "fp32"


def dtype_of(precision: str) -> torch.dtype:
    """torch's name of a settled precision."""
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)


def has_bf16() -> bool:
    """Whether this processor has bf16 products (AVX512-BF16 or AMX); elsewhere bf16 is emulated and slow."""
    cpu = torch.backends.cpu.get_cpu_capability()
    flags = _cpu_flags()
    return "avx512_bf16" in flags or "amx_bf16" in flags or (cpu.startswith("SVE") and "bf16" in flags)


def machine(kind: device.Kind = "cpu") -> dict[str, str]:
    """What the bits may depend on: processor, its vector unit as torch uses it, torch, Python; the kind of GPU."""
    return {
        **device.identity(kind),
        "processor": platform.processor() or platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "kernels": library.identity(),
        "python": platform.python_version(),
        "system": platform.system(),
    }


def _cpu_flags() -> set[str]:
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            for line in file:
                if line.startswith(("flags", "Features")):
                    return set(line.split(":", 1)[1].split())
    except OSError:
        pass  # not Linux: no bf16 is the safe answer
    return set()
