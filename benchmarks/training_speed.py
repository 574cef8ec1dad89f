"""How fast crystalline trains, beside a plain PyTorch loop over the same network. On this machine, now.

    python benchmarks/training_speed.py [--size S|M] [--rounds 5]

(a) plain: stock PyTorch as most people would write it: fp32, eager, torch.optim.AdamW, all cores.
(b) crystalline: the step that `cllm run` does, with its defaults: Node Zero and a worker for each core.

Both train the same shape on random tokens. An optimizer step has 48 sequences of 256 tokens in both: three batches
of 16 in (a), twelve positions of 4 in (b). They take turns in processes of their own, so that neither's threads
and memory disturb the other's, and what else the machine does meets both alike. Medians over the rounds. Read the
ratio: tokens per second change with the machine's load.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from contextlib import closing

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

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
SEQUENCES = {"plain": (16, 3), "crystalline": (4, 12)}  # in a batch, and batches in a step
STEP_TOKENS = 48 * CONTEXT
SECONDS = 8.0  # for each side in a round


class PlainAttention(nn.Module):
    """Causal attention with normed, rotated queries and keys."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.head_width = heads, width // heads
        self.q, self.k, self.v, self.o = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.q_norm, self.k_norm = nn.RMSNorm(self.head_width, 1e-6), nn.RMSNorm(self.head_width, 1e-6)

    def forward(self, x, cos, sin):
        batch, time_, width = x.shape
        q, k, v = (p(x).view(batch, time_, self.heads, -1).transpose(1, 2) for p in (self.q, self.k, self.v))
        q, k = turned(self.q_norm(q), cos, sin), turned(self.k_norm(k), cos, sin)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o(y.transpose(1, 2).reshape(batch, time_, width))


def turned(x, cos, sin):
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-b, a), dim=-1) * sin


class PlainBlock(nn.Module):
    """Attention, then SwiGLU, each after a norm and added to its input."""

    def __init__(self, width, heads, hidden):
        super().__init__()
        self.norm1, self.norm2 = nn.RMSNorm(width, 1e-6), nn.RMSNorm(width, 1e-6)
        self.attention = PlainAttention(width, heads)
        self.gate, self.up = nn.Linear(width, hidden, bias=False), nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x, cos, sin):
        x = x + self.attention(self.norm1(x), cos, sin)
        h = self.norm2(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class PlainModel(nn.Module):
    """A Qwen3-like network with tied embedding, in the usual modules."""

    def __init__(self, layers, width, heads, hidden, vocabulary):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(PlainBlock(width, heads, hidden) for _ in range(layers))
        self.norm = nn.RMSNorm(width, 1e-6)
        frequencies = 10_000.0 ** -(torch.arange(0, width // heads, 2) / (width // heads))
        angles = torch.outer(torch.arange(CONTEXT), frequencies).repeat(1, 2)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def forward(self, tokens, targets):
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        logits = F.linear(self.norm(x), self.embedding.weight)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def repeat(step):
    """Call `step` for SECONDS after one warm-up; tokens per second of the median step."""
    step()
    times, end = [], time.perf_counter() + SECONDS
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return STEP_TOKENS / statistics.median(times)


def measure_plain(size):
    layers, width, heads, hidden, vocabulary = SIZES[size]
    model = PlainModel(layers, width, heads, hidden, vocabulary)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1)
    rows, batches = SEQUENCES["plain"]
    batch = torch.randint(0, vocabulary, (rows, CONTEXT + 1))

    def step():
        optimizer.zero_grad()
        for _ in range(batches):
            (model(batch[:, :-1], batch[:, 1:]) / batches).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    speed = repeat(step)
    weights = sum(p.numel() for p in model.parameters())
    return {"speed": speed, "threads": torch.get_num_threads(), "weights": weights, "precision": "fp32"}


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

    workers = min(process.cores(), positions)
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
    how = {"threads": workers, "weights": recipe.shape.parameters, "precision": recipe.settings.training.precision}
    return {"speed": speed, "alone": speed_alone, "parts": parts, "shares": shares, **how}


def in_own_process(side, size):
    command = [sys.executable, __file__, "--size", size, "--measure", side]
    # The plain loop gets all cores whatever the caller's environment says: that is what it would use.
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    return json.loads(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="S")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--measure", choices=SEQUENCES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure = {"plain": measure_plain, "crystalline": measure_crystalline}[options.measure]
        print(json.dumps(measure(options.size)))
        return

    load = os.getloadavg()[0]
    found = {"plain": [], "crystalline": []}
    for number in range(options.rounds):
        # Who is first changes, so that neither always meets a machine that the other has warmed.
        for side in sorted(found, reverse=number % 2 == 0):
            found[side].append(in_own_process(side, options.size))
        a, b = (found[side][-1]["speed"] for side in ("plain", "crystalline"))
        print(f"round {number + 1}: plain {a:,.0f}, crystalline {b:,.0f} tokens/s, ratio {b / a:.2f}", flush=True)

    print(f"\nsize {options.size}, {options.rounds} rounds, load of the machine before: {load:.1f}")
    for side, results in found.items():
        speeds, first = [result["speed"] for result in results], results[0]
        spread = f"{min(speeds):,.0f} to {max(speeds):,.0f}"
        how = f"{first['precision']}, {first['threads']} cores, {first['weights'] / 1e6:.1f} M weights"
        print(f"{side:12} {statistics.median(speeds):8,.0f} tokens/s  ({spread}; {how})")
    pairs = zip(found["plain"], found["crystalline"], strict=True)
    print(f"ratio        {statistics.median(b['speed'] / a['speed'] for a, b in pairs):8.2f}")
    alone = statistics.median(result["alone"] for result in found["crystalline"])
    workers = found["crystalline"][0]["threads"]
    gain = statistics.median(b["speed"] / b["alone"] for b in found["crystalline"])
    print(f"one process  {alone:8,.0f} tokens/s; {workers} workers are {gain:.2f} times as fast. In the one:")
    parts = [result["parts"] for result in found["crystalline"]]
    medians = {name: statistics.median(part[name] for part in parts) for name in parts[0]}
    for name, seconds in medians.items():
        share = seconds / sum(medians.values())
        print(f"  {name:20} {1000 * seconds:8,.1f} ms of a step, {share:.1%}")
    print(f"Where the time of the {workers} workers goes:")
    shares = [result["shares"] for result in found["crystalline"]]
    for name in shares[0]:
        print(f"  {name:20} {statistics.median(share[name] for share in shares):8.1%}")


if __name__ == "__main__":
    main()
