"""How long crystalline takes to the quality that a tuned plain PyTorch loop reaches. On this machine, now.

    python benchmarks/time_to_quality.py [--size 1M] [--seconds 120] [--seeds 3] [--text FOLDER]

The plain loop trains the same shape on the same tokens for `seconds`: eager fp32, torch.optim.AdamW, warmup and
cosine, all cores. Its learning rate and batch are tuned first, on seed 0, each candidate with the full time.
Then, for every seed, crystalline trains with its defaults (`cllm run --minutes`) for a sixth of that time, a
fifth, and so on; the answer is the shortest run that ends with no more bits per byte on all of the held-out
text. Both count the seconds of their steps: reading the text, starting and measuring are left out on both
sides. Steps of a run are planned from a probe, so a run's own measured seconds are given, not those asked for.
"""

import argparse
import itertools
import json
import math
import os
import shutil
import statistics
import sysconfig
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import torch
from plain import PlainModel

from crystalline import events
from crystalline.model import scoring
from crystalline.model.shape import shape_of
from crystalline.pipeline import preparation, runner
from crystalline.settings import Settings
from crystalline.tokens.stream import TokenStream
from crystalline.tokens.tokenizer import Tokenizer
from crystalline.training.batches import Batches

RATES, ROWS = (1e-3, 2e-3, 4e-3, 8e-3), (8, 16, 48)
SHARES = (1 / 6, 1 / 5, 1 / 4, 1 / 3, 1 / 2, 1.0)  # of the plain loop's time


def train_plain(run, shape, seconds, seed, rate, rows):
    """Train for about `seconds`; (bits per byte, seconds of its steps, steps)."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(seed)
    tokenizer = Tokenizer.load(run.tokenizer)
    batches = Batches(TokenStream(run.shards, "train"), seed, shape.context, rows, 1, 1, tokenizer.pad)
    model = PlainModel(shape.layers, shape.width, shape.heads, shape.hidden, shape.vocabulary, shape.context)
    for name, weight in model.named_parameters():
        if weight.dim() == 2:  # as GPT-2: what writes into the stream is smaller
            writes = name.endswith(("o.weight", "down.weight"))
            torch.nn.init.normal_(weight, std=0.02 / (math.sqrt(2 * shape.layers) if writes else 1))
    decayed = [p for p in model.parameters() if p.dim() == 2]
    rest = [p for p in model.parameters() if p.dim() != 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95))

    def step(number):
        tokens, targets = (torch.from_numpy(side) for side in batches.micro_batch_at(number, 0, 0))
        optimizer.zero_grad()
        model(tokens, targets).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    spent, number = 0.0, 0
    while spent < seconds:
        share = spent / seconds
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (number + 1) / 50) * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * share)))
        start = time.perf_counter()
        step(number)
        spent += time.perf_counter() - start
        number += 1
    held_out = TokenStream(run.shards, "held_out")
    judged = SimpleNamespace(shape=shape, loss=lambda tokens, targets, *_: model(tokens, targets, "sum"))
    score = scoring.score(judged, held_out.read(0, len(held_out)), scoring.token_byte_lengths(tokenizer))
    return score.bits_per_byte, spent, number


def train_crystalline(prepared, folder, size, seconds, seed):
    """A run of about `seconds` with default settings; (bits per byte, seconds of its steps, steps)."""
    shutil.copytree(prepared.root, folder)
    overrides = {"model.size": size, "training.seed": seed, "training.minutes": seconds / 60}
    runner.run(folder, overrides)
    steps = [event["seconds"] for event in events.read(folder / "events.jsonl", "training.step")]
    return runner.evaluate(folder)["bits_per_byte"], sum(steps), len(steps)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="1M")
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--text", default=sysconfig.get_paths()["stdlib"])
    parser.add_argument("--rate", type=float, help="of the plain loop, instead of tuning")
    parser.add_argument("--rows", type=int, help="sequences in its batch")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        prepared = runner.new(root / "text", [options.text])
        runner.plan(prepared.root, {"training.steps": 1, "model.size": options.size})
        facts = preparation.text_facts(prepared)
        shape = shape_of(Settings().model, options.size, facts.vocabulary, facts.factors)

        def plain(seed, rate, rows):
            return train_plain(prepared, shape, options.seconds, seed, rate, rows)

        tried = {}
        rates, all_rows = [options.rate] if options.rate else RATES, [options.rows] if options.rows else ROWS
        for rate, rows in itertools.product(rates, all_rows):
            bits, _, steps = tried[rate, rows] = plain(0, rate, rows)
            print(f"plain, rate {rate}, {rows} sequences: {bits:.3f} bits/byte in {steps} steps", flush=True)
        rate, rows = min(tried, key=lambda key: tried[key][0])

        ratios = []
        for seed in range(options.seeds):
            goal, goal_seconds, _ = tried[rate, rows] if seed == 0 else plain(seed, rate, rows)
            for share in SHARES:
                folder = root / f"seed-{seed}-{share:.3f}"
                bits, seconds, steps = train_crystalline(
                    prepared, folder, options.size, options.seconds * share, seed
                )
                ours = f"{bits:.3f} in {seconds:.0f} s ({steps} steps)"
                print(f"seed {seed}: plain {goal:.3f} in {goal_seconds:.0f} s; crystalline {ours}", flush=True)
                if bits <= goal:
                    ratios.append(goal_seconds / seconds)
                    break
        print(json.dumps({"rate": rate, "sequences": rows, "ratios": [round(ratio, 2) for ratio in ratios]}))
        if ratios:
            median = statistics.median(ratios)
            print(f"crystalline needs {median:.1f} times fewer seconds, median of {len(ratios)} seeds")


if __name__ == "__main__":
    main()
