"""How fast crystalline trains, beside a plain PyTorch loop over the same network. On this machine, now.

    python benchmarks/training_speed.py [--size S|M] [--rounds 5] [--peers]

plain: stock PyTorch as most people would write it: fp32, eager, torch.optim.AdamW, all cores.
crystalline: the step that `cllm run` does, with its defaults: Node Zero and a worker for each core.
With --peers also what PyTorch can do at its best: compiled: the plain loop in bf16 (autocast), torch.compile, fused
AdamW, all cores. ddp: DistributedDataParallel over gloo, bf16, a single-threaded process for each core.

All train the same shape on random tokens. An optimizer step has 48 sequences of 256 tokens in each: three batches
of 16, or twelve positions of 4 in crystalline. They take turns in processes of their own, so that neither's threads
and memory disturb the other's, and what else the machine does meets both alike. Medians over the rounds. Read the
ratio: tokens per second change with the machine's load.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from plain import PlainModel
from torch import nn

from crystalline import processes
from crystalline.model.transformer import Transformer
from crystalline.settings import Model, Settings
from crystalline.training import process
from crystalline.training.batches import Batches
from crystalline.training.exact_sum import ExactSum
from crystalline.training.node_zero import Alone, Workers
from crystalline.training.recipe import settle
from crystalline.training.workspace import Workspace

# layers, width, heads, hidden, vocabulary
SIZES = {"S": (4, 256, 4, 704, 4096), "M": (6, 384, 6, 1024, 8192)}
CONTEXT = 256
SEQUENCES = {"plain": (16, 3), "compiled": (16, 3), "ddp": (16, 3), "crystalline": (4, 12)}  # in a batch; batches
STEP_TOKENS = 48 * CONTEXT
SECONDS = 8.0  # for each side in a round


def repeat(step, tokens=STEP_TOKENS, rounds=0):
    """Call `step` for SECONDS (or `rounds` times) after one warm-up; tokens per second of the median step."""
    step()
    times, end = [], time.perf_counter() + SECONDS
    while len(times) < max(3, rounds) or (not rounds and time.perf_counter() < end):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return tokens / statistics.median(times)


def matrix_rate(precision):
    """FLOP/s of one thread in large products, the best of a few: what a step is measured against."""
    a = torch.randn(2048, 2048, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)
    times = []
    for _ in range(8):
        start = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - start)
    return 2 * 2048**3 / min(times)


def plain_speed(size, kind, batches, processes=1):
    """Tokens per second of all `processes` of the plain loop, in this one."""
    vocabulary = SIZES[size][-1]
    model = PlainModel(*SIZES[size], CONTEXT)
    fused = {} if kind == "plain" else {"fused": True}
    if kind == "compiled":
        model = torch.compile(model)
    if kind == "ddp":
        model = nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, **fused)
    rows = SEQUENCES[kind][0]
    batch = torch.randint(0, vocabulary, (rows, CONTEXT + 1))

    def step():
        optimizer.zero_grad()
        for number in range(batches):
            last = number == batches - 1  # DDP exchanges gradients once a step
            with contextlib.nullcontext() if kind != "ddp" or last else model.no_sync():
                with torch.autocast("cpu", torch.bfloat16, enabled=kind != "plain"):
                    loss = model(batch[:, :-1], batch[:, 1:])
                (loss / batches).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return repeat(step, batches * rows * CONTEXT, rounds=4 if processes > 1 else 0) * processes


def measure_plain(size, kind="plain"):
    precision = "fp32" if kind == "plain" else "bf16"
    weights = sum(p.numel() for p in PlainModel(*SIZES[size], CONTEXT).parameters())
    speed = plain_speed(size, kind, SEQUENCES[kind][1])
    return {"speed": speed, "threads": torch.get_num_threads(), "weights": weights, "precision": precision}


def measure_ddp(size):
    """One process a core, all doing the same number of steps; each counts its own tokens."""
    cores = processes.cores()
    with tempfile.TemporaryDirectory() as folder:
        arguments = (size, cores, folder)
        torch.multiprocessing.spawn(ddp_process, arguments, cores)
        speed = float(Path(folder, "speed").read_text())
    weights = sum(p.numel() for p in PlainModel(*SIZES[size], CONTEXT).parameters())
    return {"speed": speed, "threads": cores, "weights": weights, "precision": "bf16"}


def ddp_process(rank, size, processes, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=processes)
    # 48 sequences a step between them, or as near as batches of 16 come.
    speed = plain_speed(size, "ddp", max(1, round(SEQUENCES["ddp"][1] / processes)), processes)
    if rank == 0:
        Path(folder, "speed").write_text(str(speed))
    torch.distributed.destroy_process_group()


class RandomTokens:
    """As much of a token stream as `Batches` uses."""

    def __init__(self, vocabulary):
        self.tokens = np.random.default_rng(0).integers(0, vocabulary, 1_000_001).astype(np.uint16)

    def __len__(self):
        return len(self.tokens)

    def read(self, start, count):
        return self.tokens[start : start + count]


class Clock:
    """Seconds spent under each name, within the step being done."""

    def __init__(self):
        self.steps = [{}]

    def timed(self, name, function):
        def call(*arguments):
            start = time.perf_counter()
            result = function(*arguments)
            self.steps[-1][name] = self.steps[-1].get(name, 0.0) + time.perf_counter() - start
            return result

        return call

    def medians(self):
        return {name: statistics.median(step[name] for step in self.steps[1:]) for name in self.steps[-1]}


def measure_crystalline(size):
    process.prepare()  # as every process that trains
    layers, width, heads, hidden, vocabulary = SIZES[size]
    wanted = Settings(model=Model(layers=layers, width=width, heads=heads, hidden=hidden, context=CONTEXT))
    factors = vocabulary // 16  # about what a vocabulary learned from text has, three of them in a token
    recipe = settle(wanted, "4M", vocabulary, factors, {}, steps=1000)
    bags = np.arange(3 * vocabulary, dtype=np.int64) % factors, np.arange(vocabulary + 1, dtype=np.int64) * 3
    model = Transformer(recipe.shape, bags, recipe.dtype)
    model.initialize(0)
    rows, positions = SEQUENCES["crystalline"]
    workspace = Workspace(model, recipe, spheres=positions)
    batches = Batches(RandomTokens(vocabulary), 0, CONTEXT, rows, 1, positions, pad=0)
    clip_norm, number = recipe.settings.optimizer.clip_norm, 0

    def step(team):
        nonlocal number
        team.positions(number, batches.targets_in_step(number))
        norm = team.reduce()
        number += 1
        team.update(min(1.0, clip_norm / norm), 1e-3, number)

    workers = min(processes.cores(), positions)
    with closing(Workers(workspace, batches, workers)) as team:
        step(team)
        team.shares()  # from here on
        speed = repeat(lambda: step(team))
        shares = team.shares()

    # The same by one process, which can say where the time goes.
    clock = Clock()
    ExactSum.add = clock.timed("sum", ExactSum.add)
    alone = Alone(workspace, batches)
    for name in ("positions", "reduce", "update"):
        setattr(alone, name, clock.timed(name, getattr(alone, name)))

    def timed_step():
        clock.steps.append({})
        step(alone)

    speed_alone = repeat(timed_step)
    t = clock.medians()
    parts = {
        "forward + backward": t["positions"] - t["sum"],
        "norm + exact sum": t["sum"] + t["reduce"],
        "optimizer": t["update"],
    }
    precision = recipe.settings.training.precision
    used = recipe.shape.flops_per_token * speed_alone / matrix_rate(precision)
    how = {"threads": workers, "weights": recipe.shape.parameters, "precision": precision, "used": used}
    return {"speed": speed, "alone": speed_alone, "parts": parts, "shares": shares, **how}


def in_own_process(side, size):
    command = [sys.executable, __file__, "--size", size, "--measure", side]
    # The plain loop gets all cores whatever the caller's environment says: that is what it would use.
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    return json.loads(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout)


MEASURES = {
    "plain": measure_plain,
    "compiled": lambda size: measure_plain(size, "compiled"),
    "ddp": measure_ddp,
    "crystalline": measure_crystalline,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="S")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", action="store_true", help="also the best forms of the plain loop")
    parser.add_argument("--measure", choices=SEQUENCES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(MEASURES[options.measure](options.size)))
        return

    load = os.getloadavg()[0]
    found = {side: [] for side in MEASURES if options.peers or side in ("plain", "crystalline")}
    for number in range(options.rounds):
        # Who is first changes, so that nobody always meets a machine that another has warmed.
        for side in list(found)[:: 1 if number % 2 else -1]:
            found[side].append(in_own_process(side, options.size))
        speeds = ", ".join(f"{side} {results[-1]['speed']:,.0f}" for side, results in found.items())
        print(f"round {number + 1}: {speeds} tokens/s", flush=True)

    print(f"\nsize {options.size}, {options.rounds} rounds, load of the machine before: {load:.1f}")
    ours = found["crystalline"]
    for side, results in found.items():
        speeds, first = [result["speed"] for result in results], results[0]
        ratio = statistics.median(b["speed"] / a["speed"] for a, b in zip(results, ours, strict=True))
        spread = f"{min(speeds):,.0f} to {max(speeds):,.0f}"
        how = f"{first['precision']}, {first['threads']} cores, {first['weights'] / 1e6:.1f} M weights"
        print(
            f"{side:12} {statistics.median(speeds):8,.0f} tokens/s  ({spread}; {how}); crystalline is {ratio:.2f} x"
        )
    alone = statistics.median(result["alone"] for result in ours)
    gain = statistics.median(b["speed"] / b["alone"] for b in ours)
    used = statistics.median(result["used"] for result in ours)
    print(f"one process  {alone:8,.0f} tokens/s, {used:.0%} of the measured matrix rate as model FLOPs;")
    print(f"{ours[0]['threads']} workers are {gain:.2f} times as fast. In the one:")
    parts = [result["parts"] for result in ours]
    medians = {name: statistics.median(part[name] for part in parts) for name in parts[0]}
    for name, seconds in medians.items():
        share = seconds / sum(medians.values())
        print(f"  {name:20} {1000 * seconds:8,.1f} ms of a step, {share:.1%}")
    print(f"Where the time of the {ours[0]['threads']} workers goes:")
    shares = [result["shares"] for result in ours]
    for name in shares[0]:
        print(f"  {name:20} {statistics.median(share[name] for share in shares):8.1%}")


if __name__ == "__main__":
    main()
