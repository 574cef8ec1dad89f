"""What a run will take, before it starts: parameters, memory, time, expected loss.

Time comes from a probe: the real position computation and the real optimizer, run for a moment on this machine.
Memory is counted. The expected loss comes from a curve fitted to finished runs (docs/lab-notes.md has the table).
"""

from __future__ import annotations

import time
from ctypes import CDLL
from dataclasses import dataclass

import numpy as np
import torch

from crystalline.model.library import has_attention, library
from crystalline.model.operations import LOGITS_AT_ONCE, QUERY_BLOCK
from crystalline.model.shape import SIZES, Shape, shape_of
from crystalline.model.transformer import Transformer
from crystalline.settings import Settings
from crystalline.training import device, link, optimizers, process
from crystalline.training.exact_sum import ExactSum, combine
from crystalline.training.parameters import FlatParameters, WorkingCopy
from crystalline.training.recipe import Recipe, dtype_of, precision, settle, steps_for

DEFAULT_MINUTES = 5.0
DEFAULT_EPOCHS = 10.0  # most passes over a small text when the user set no length
WANTED_STEPS = 400  # fewer, larger steps waste a short run: the micro-batch is made smaller instead
# Evaluation, samples and checkpoints: 294.6 s for 283.5 s of steps in a quickstart, when they still held training up.
# Beside training they take as much of the processor, but never more.
OVERHEAD = 1.04
SHARED_MACHINE = 1.08  # a position is slower while other cores compute too; steps then met the plan within 1 %
WORKER_MEMORY = 15e6  # bytes of a worker process beyond what it shares with Node Zero
BASE_MEMORY = 310e6  # bytes of a Python process with torch loaded and used once


@dataclass(frozen=True)
class TextFacts:
    """What the prepared text says: tokens and bytes to train on, sizes of the tables, what identifies it."""

    tokens: int
    bytes: int
    vocabulary: int
    factors: int
    identity: dict[str, object]


@dataclass(frozen=True)
class Plan:
    """A settled recipe and what it takes. Times in seconds, memory and disk in bytes."""

    recipe: Recipe
    text: TextFacts
    step_seconds: float
    memory: float
    gpu_memory: float | None  # on each GPU; None: training is on the processor
    disk: float
    bits_per_byte: tuple[float, float] | None  # expected range, None where the curve does not reach

    @property
    def tokens(self) -> int:
        return self.recipe.steps * self.recipe.tokens_per_step

    @property
    def epochs(self) -> float:
        return self.tokens / max(1, self.text.tokens)

    @property
    def seconds(self) -> float:
        return self.recipe.steps * self.step_seconds * OVERHEAD


def make_plan(settings: Settings, text: TextFacts) -> Plan:
    """Choose what was left open, by measuring this machine for a few seconds."""
    settings = settings.model_copy(deep=True)
    settings.training.device = device.choose(settings.training.device)
    if settings.training.device == "cuda":
        return process.in_child(_make_plan, settings, text)  # which starts CUDA
    return _make_plan(settings, text)


def _make_plan(settings: Settings, text: TextFacts) -> Plan:
    t = settings.training
    if settings.model.size != "auto":
        size, timing = settings.model.size, None
    elif t.steps is not None and t.minutes is None:
        size, timing = "2M", None
    else:
        size, timing = _size_for((t.minutes or DEFAULT_MINUTES) * 60, settings, text)
    shape = shape_of(settings.model, size, text.vocabulary, text.factors)
    micro_batch = t.micro_batch or SIZES[size][4]
    timing = timing or probe(settings, shape, micro_batch)
    steps, micro_batch = _length(settings, shape, text, micro_batch, timing)
    wanted = settings.model_copy(deep=True)
    wanted.training.micro_batch = micro_batch
    step_seconds = _step_seconds(settings, micro_batch, timing)
    recipe = settle(wanted, size, text.vocabulary, text.factors, dict(text.identity), steps, step_seconds)
    return Plan(
        recipe,
        text,
        step_seconds,
        memory(recipe, 0 if t.workers == 0 else _busy_workers(settings)),
        gpu_memory=gpu_memory(recipe) * _workers_of_a_gpu(settings) if recipe.device == "cuda" else None,
        disk=_most_checkpoints(recipe) * _checkpoint_bytes(recipe),
        # The curve is of weights that were drawn, and knows nothing of what a model has learned before.
        bits_per_byte=None
        if "start" in text.identity
        else expected_bits_per_byte(shape, steps * recipe.tokens_per_step, text),
    )


def _most_checkpoints(recipe: Recipe) -> int:
    """Checkpoints on disk at most, the one that is being written included."""
    c = recipe.settings.checkpointing
    best = 2 if recipe.best_counts else 0  # and the best before the last rollback point
    return c.keep + 1 + best + (recipe.steps // c.keep_every if c.keep_every else 0)


def _checkpoint_bytes(recipe: Recipe) -> int:
    return recipe.shape.parameters * (4 + 4 * _states(recipe.settings))


def _busy_workers(settings: Settings) -> int:
    """Workers that really compute at the same time."""
    t = settings.training
    places = device.workers(_kind(settings))
    wanted = max(1, t.workers) if isinstance(t.workers, int) else places
    return min(wanted, places, t.positions)


def _workers_of_a_gpu(settings: Settings) -> int:
    t = settings.training
    workers = min(t.workers, t.positions) if isinstance(t.workers, int) else 1
    return max(1, -(-workers // len(device.gpus())))


def _kind(settings: Settings) -> device.Kind:
    return "cuda" if settings.training.device == "cuda" else "cpu"


def _step_seconds(settings: Settings, micro_batch: int, timing: Timing) -> float:
    """One step with all workers: positions in rounds, then the update, which those of one machine share too."""
    t, workers = settings.training, _busy_workers(settings)
    ranks = link.ranks()
    everywhere = min(workers * (ranks.size if ranks else 1), t.positions)
    rounds = -(-t.positions // everywhere)
    slower = 1.0 if workers == 1 else SHARED_MACHINE
    return slower * rounds * t.accumulation * micro_batch * timing.sequence_seconds + timing.step_seconds / workers


@dataclass(frozen=True)
class Timing:
    """Measured on this machine: one sequence through a position, and what a step costs besides, in seconds."""

    sequence_seconds: float
    step_seconds: float


def probe(settings: Settings, shape: Shape, micro_batch: int, seconds: float = 2.0) -> Timing:
    """Run the real computation on random tokens for about `seconds`; medians. On a GPU only in a child process."""
    process.prepare()
    on = next(iter(device.devices(_kind(settings))), None)
    if on is not None:
        device.prepare(on)
    dtype = dtype_of(precision(settings.training.precision, _kind(settings)))
    # The probe's factor bags: three factors a token, more than real vocabularies have on average.
    offsets = np.arange(shape.vocabulary + 1, dtype=np.int64) * 3
    indices = np.arange(offsets[-1], dtype=np.int64) % max(1, shape.factors)
    angles = np.zeros(shape.vocabulary) if shape.phases else None
    model = Transformer(shape, (indices, offsets) if shape.factors else None, dtype, angles)
    model.initialize(0)
    parameters = FlatParameters(model)
    copy = WorkingCopy(model, parameters, on)
    rates = settings.optimizer.model_copy(update={"learning_rate": 1e-4, "embedding_learning_rate": 1e-4})
    steppers = optimizers.make(parameters, rates, torch.float32 if dtype == torch.float16 else dtype)
    total, gradient = torch.zeros_like(parameters.values, dtype=torch.int64), torch.zeros_like(parameters.values)
    exact = ExactSum(total.to(copy.device))
    tokens = torch.randint(0, shape.vocabulary, (micro_batch, shape.context + 1)).to(copy.device)
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < 3 or (time.perf_counter() - began < seconds and len(times) < 20):
        start = time.perf_counter()
        copy.model.zero_grad(set_to_none=True)
        (copy.model.loss(tokens[:, :-1], tokens[:, 1:]) / tokens.numel()).backward()
        exact.add(copy.gradients())
        times.append(time.perf_counter() - start)
    step_times = []
    for number in (1, 2, 3):
        start = time.perf_counter()
        if on is not None:
            copy.refresh()
            total.copy_(exact.total)
        combine([total], gradient)
        for stepper in steppers:
            stepper.device = copy.device
            for unit in stepper.units:
                stepper.step(unit, gradient[unit.start : unit.end], 1.0, number)
        step_times.append(time.perf_counter() - start)
    return Timing(float(np.median(times[1:])) / micro_batch, float(np.median(step_times)))


def memory(recipe: Recipe, workers: int) -> float:
    """Resident bytes of all processes of a run at the peak, what they share counted once.

    Shared: weights, gradient, optimizer state. Each worker's own: its exact sum (int64); and, where that is not on a
    GPU, its gradient, in 16 bits also copies of weights and gradients, what the backward pass keeps of every block,
    the table and the logits. And what the scribe works on and with.
    """
    shape, item = recipe.shape, recipe.dtype.itemsize
    shared = shape.parameters * (4 + 4 + 4 * _states(recipe.settings))
    block, logits = _token_bytes(recipe, library())
    tokens = _tokens_at_once(recipe)
    table = shape.vocabulary * shape.width * (4 + item + 4)
    # The scribe works on a copy of weights and state. It looks forward only: logits, and in bf16 copies of weights.
    scribe = tokens * logits + shape.vocabulary * shape.width * (4 + item) + (4 - item) * shape.parameters
    copy = shape.parameters * (4 + 4 * _states(recipe.settings))
    own: float = 8 * shape.parameters
    if recipe.device == "cpu":
        own += shape.parameters * (4 + 4 * (4 - item)) + tokens * (shape.layers * block + logits) + table
    return BASE_MEMORY + shared + own * max(1, workers) + WORKER_MEMORY * workers + copy + scribe


def gpu_memory(recipe: Recipe) -> float:
    """Bytes that one worker needs on its GPU: counted as `memory`, but not yet measured on one."""
    shape, item = recipe.shape, recipe.dtype.itemsize
    block, logits = _token_bytes(recipe, None)
    tokens, in_table = _tokens_at_once(recipe), shape.parameters - shape.block_parameters
    weights = 8 * shape.parameters + 2 * (item * shape.block_parameters + 4 * in_table)  # sum, weights, gradient
    table = shape.vocabulary * shape.width * (4 + item + 4)
    return weights + tokens * shape.layers * block + min(tokens, LOGITS_AT_ONCE // shape.vocabulary) * logits + table


def _tokens_at_once(recipe: Recipe) -> int:
    assert recipe.settings.training.micro_batch is not None
    return recipe.settings.training.micro_batch * recipe.shape.context


def _token_bytes(recipe: Recipe, kernels: CDLL | None) -> tuple[float, float]:
    """What a token takes until the backward pass: in each block, and as logits."""
    shape, item = recipe.shape, recipe.dtype.itemsize
    heads = shape.head_width * (shape.heads + 2 * shape.kv_heads)
    block: float
    if kernels is not None:
        # Probabilities are kept, if at all, for keys up to the end of each block of queries only.
        seen = (1 + min(1.0, QUERY_BLOCK / shape.context)) / 2
        scores = 0.0 if has_attention(kernels, recipe.dtype) else item * shape.heads * shape.context * seen
        block = 8 * shape.width + item * (2 * shape.width + 4 * heads + 4 * shape.hidden) + scores
        logits = item * shape.vocabulary
    else:
        block = 24 * shape.width + (item + 12) * heads + item * (5 * shape.hidden + 3 * shape.width)
        logits = (item + 12) * shape.vocabulary
    return block, logits


def _states(settings: Settings) -> int:
    """Optimizer numbers kept per weight, roughly."""
    return {"muon": 1, "adamw": 2, "sgd": 1}[settings.optimizer.name]


def _size_for(seconds: float, settings: Settings, text: TextFacts) -> tuple[str, Timing]:
    """The size with the lowest expected bits per byte after `seconds` of training here."""
    best: tuple[float, str, Timing] | None = None
    for size, row in SIZES.items():
        shape = shape_of(settings.model, size, text.vocabulary, text.factors)
        timing = probe(settings, shape, row[4], seconds=0.5)
        step = _step_seconds(settings, row[4], timing)
        tokens = seconds / OVERHEAD / step * settings.training.positions * row[4] * shape.context
        loss = curve(shape.block_parameters, tokens, text.tokens)
        if best is not None and loss >= best[0]:
            break  # the next sizes are slower still
        best = (loss, size, timing)
    assert best is not None
    return best[1], best[2]


def _length(settings: Settings, shape: Shape, text: TextFacts, micro_batch: int, timing: Timing) -> tuple[int, int]:
    """(steps, sequences in a position) from steps, tokens, epochs or time, whichever was set."""
    t = settings.training
    per_sequence = t.positions * t.accumulation * shape.context  # tokens in a step for each sequence

    def steps_with(sequences: int) -> int:
        asked = steps_for(t, per_sequence * sequences, text.tokens)
        if asked is not None:
            return asked
        seconds = (t.minutes or DEFAULT_MINUTES) * 60 / OVERHEAD
        steps = int(seconds / _step_seconds(settings, sequences, timing))
        if t.minutes is None:
            steps = min(steps, round(DEFAULT_EPOCHS * text.tokens / (per_sequence * sequences)))
        return max(1, steps)

    if t.micro_batch is None and t.steps is None:
        while micro_batch > 1 and steps_with(micro_batch) < WANTED_STEPS:
            micro_batch //= 2
    return max(steps_with(micro_batch), 1), micro_batch


# --- expected loss --------------------------------------------------------------------------------------

# bits per byte = FLOOR + A / N^ALPHA + B / D^BETA (the form of Hoffmann et al. 2022, arXiv 2203.15556), N weights in
# the blocks, D training tokens; fitted to the six runs in docs/lab-notes.md, which it meets within 5 %.
FLOOR, A, ALPHA, B, BETA = 0.2, 99.6, 0.45, 213.0, 0.36
SPREAD = 0.15  # relative half-width of the range that is named: other texts are easier or harder


def curve(block_parameters: int, tokens: float, text_tokens: int) -> float:
    """Expected bits per byte on held-out text. Passes over the same text count less and less
    (Muennighoff et al. 2023, arXiv 2305.16264: new-token worth of repeated data decays with R* = 15)."""
    repeats = max(0.0, tokens / max(1, text_tokens) - 1)
    unique = min(tokens, text_tokens)
    worth = unique * (1 + 15 * (1 - float(np.exp(-repeats / 15))))
    return float(FLOOR + A / block_parameters**ALPHA + B / max(1.0, worth) ** BETA)


def expected_bits_per_byte(shape: Shape, tokens: int, text: TextFacts) -> tuple[float, float] | None:
    """The range to expect; None for runs far shorter than any that the curve was fitted to."""
    if tokens < 100_000:
        return None
    middle = curve(shape.block_parameters, tokens, text.tokens)
    return middle * (1 - SPREAD), middle * (1 + SPREAD)
