"""What each idea of the lattice gives: trained with it and without, at equal tokens and at equal seconds.

    python benchmarks/ablation.py --text FOLDER [--size 1M] [--tokens 1000000] [--seeds 3] [--only factors values]
                                  [--name ENGLISH] [--seconds] [--results FILE.jsonl] [--table]

Every variant is the default model with one thing changed. The same seed has the same batches and the same starting
weights in all of them, so differences to `plain` are taken seed by seed. Measured is the held-out text, which no run
has seen, in bits per byte; "rare" are those of its tokens that the training text has fewer than 50 times.

With --seconds the cost of a step is measured first, all in turn, several rounds, medians; nothing else may run
then. A variant whose step takes more than 1 % longer than plain's is trained once more with as many steps as fit into
plain's time.

Results are added to a file as they come; a run that is in it already is not repeated. --table makes the table of the
file and does nothing else.
"""

import argparse
import contextlib
import json
import random
import shutil
import statistics
import sysconfig
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from crystalline.model import checkpoints, scoring, store
from crystalline.pipeline import preparation, runner
from crystalline.run_folder import read_json, seal, write_json
from crystalline.tokens.codes import FILE as CODES
from crystalline.tokens.stream import TokenStream
from crystalline.tokens.tokenizer import Tokenizer
from crystalline.training.loop import Trainer
from crystalline.training.recipe import settle

PLAIN = {"model.factor_scale": 0.0}
VARIANTS = {
    "plain": PLAIN,
    "factors": {},
    "factors, shuffled": {},
    "factors, better roots": {"training.discover_roots": 3},
    "value embeddings": {**PLAIN, "model.value_embeddings": True},
    "n-gram memory": {**PLAIN, "model.ngram_rows": 20_000},
    "factors, values, n-grams": {"model.value_embeddings": True, "model.ngram_rows": 20_000},
    "objective: prefix": {**PLAIN, "objective.name": "prefix"},
    "objective: roots": {**PLAIN, "objective.name": "roots"},
    "objective: kernel": {**PLAIN, "objective.name": "kernel"},
    "rotary: golden": {**PLAIN, "model.rotary": "golden"},
    "rotary: clock": {**PLAIN, "model.rotary": "clock"},
    "phase: lattice": {**PLAIN, "model.phases": ["lattice"]},
    "phase: golden": {**PLAIN, "model.phases": ["golden"]},
    "phase: clock": {**PLAIN, "model.phases": ["clock"]},
}
RARE = 50  # times in the training text
JUDGED = 150_000  # held-out tokens at most
STEPS_TIMED, ROUNDS = 2, 5
LONGER = 1.01  # times plain's step, from which on equal seconds are not equal tokens
KEY = ("name", "size", "tokens", "variant", "seed", "equal")
HEADER = "| variant | bits per byte (seeds) | at equal tokens | at equal seconds | rare tokens, nats |"


def grain(size):
    """The size, and the smallest positions: little text is learned best in small steps (docs/lab-notes.md)."""
    return {"model.size": size, "training.micro_batch": 1}


def trained(prepared, place, variant, size, steps, seed):
    """Train a copy of `prepared`; its folder."""
    folder = place / "run"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(prepared.root, folder)
    if variant == "factors, shuffled":
        shuffle_codes(folder / "tokenizer", seed)
    wanted = {**grain(size), "training.seed": seed, "training.steps": steps, "training.evaluate_every": steps}
    wanted |= {"training.sample_every": steps, "training.evaluate_tokens": 4096}
    runner.run(folder, {**wanted, **VARIANTS[variant]})
    return folder


def shuffle_codes(folder, seed):
    """Give every token the code of another one: the same factors as often, for tokens that do not have them."""
    stored = read_json(folder / CODES)
    random.Random(seed).shuffle(stored["codes"])
    write_json(folder / CODES, stored)
    seal(folder)


def judge(prepared, folder):
    """Bits per byte of held-out text, and cross-entropy in nats of its rare tokens and of the others."""
    model = store.read_model(checkpoints.find(folder))
    tokenizer, context = Tokenizer.load(prepared.tokenizer), model.shape.context
    stream = TokenStream(prepared.shards, "held_out")
    tokens = stream.read(0, min(len(stream), JUDGED)).astype(np.int64)
    tokens = tokens[: (len(tokens) - 1) // context * context + 1]
    losses = torch.from_numpy(scoring.losses(model, tokens))
    rare = torch.from_numpy(np.load(prepared.shards / "counts.npy") < RARE)[tokens[1:]]
    size = sum(len(tokenizer.token_bytes(token)) for token in tokens[1:].tolist())
    return {
        "bits_per_byte": float(losses.double().sum()) / np.log(2) / size,
        "rare": float(losses[rare].mean()),
        "common": float(losses[~rare].mean()),
        "rare_share": float(rare.float().mean()),
    }


def step_seconds(prepared, place, size, names):
    """Seconds of a step of each variant, relative to plain: medians of rounds in which each has its turn."""
    teams, taken = {}, {name: [] for name in names}
    with contextlib.ExitStack() as stack:
        for number, name in enumerate(names):
            folder = place / f"timed-{number}"
            shutil.copytree(prepared.root, folder)
            run = runner.RunFolder.open(folder)
            settings = preparation.settings_of(run, {**grain(size), **VARIANTS[name]})
            facts = preparation.text_facts(run)
            recipe = settle(settings, size, facts.vocabulary, facts.factors, facts.identity, steps=1000)
            trainer = Trainer(run, recipe)
            teams[name] = trainer, stack.enter_context(contextlib.closing(trainer.team(2, lambda: False)))
        for turn in range(ROUNDS + 1):
            for name in names:
                trainer, team = teams[name]
                began = time.perf_counter()
                for step in range(STEPS_TIMED):
                    team.positions(step, trainer.batches.targets_in_step(step))
                    team.reduce()
                    team.update(1.0, 1e-3, step + 1)
                if turn:  # the first is for warming up
                    taken[name].append((time.perf_counter() - began) / STEPS_TIMED)
    ratios = {}
    for name in names:
        ratios[name] = statistics.median(a / b for a, b in zip(taken[name], taken["plain"], strict=True))
        if "objective.name" in VARIANTS[name]:  # asked for in the first part of a run only, the one that was timed
            ratios[name] = 1 + (ratios[name] - 1) * teams[name][0].recipe.settings.objective.until
    return ratios


def change(rows, plain, key="bits_per_byte"):
    """Mean and spread (standard deviation) over the seeds of the difference to plain."""
    differences = [row[key] - plain[row["seed"]][key] for row in rows]
    spread = statistics.stdev(differences) if len(differences) > 1 else float("nan")
    return f"{statistics.mean(differences):+.4f} ± {spread:.4f}"


def table(rows):
    """The results as Markdown: each variant's bits per byte and its differences to plain, seed by seed."""
    groups = {}
    for row in rows:
        groups.setdefault((row["name"], row["size"], row["tokens"]), []).append(row)
    lines = []
    for (name, size, tokens), group in groups.items():
        lines += ["", f"**{name}**, size {size}, {tokens / 1e6:g} M tokens", "", HEADER, "|---|---|---|---|---|"]
        plain = {row["seed"]: row for row in group if row["variant"] == "plain"}
        for variant in dict.fromkeys(row["variant"] for row in group):
            equal = [row for row in group if row["variant"] == variant and row["seed"] in plain]
            by_tokens = [row for row in equal if row["equal"] == "tokens"]
            by_seconds = [row for row in equal if row["equal"] == "seconds"]
            bits = statistics.mean(row["bits_per_byte"] for row in by_tokens)

            changes = ["–", "–", "–"]
            if variant != "plain":
                seconds = change(by_seconds, plain) if by_seconds else "the same"
                changes = [change(by_tokens, plain), seconds, change(by_tokens, plain, "rare")]
            lines.append(f"| {variant} | {bits:.4f} ({len(by_tokens)}) | {' | '.join(changes)} |")
    return "\n".join(lines[1:])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", default=sysconfig.get_paths()["stdlib"])
    parser.add_argument("--name", default="standard library", help="what the table calls the text")
    parser.add_argument("--size", default="1M")
    parser.add_argument("--tokens", type=float, default=1e6)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="besides plain")
    parser.add_argument("--seconds", action="store_true", help="also at equal seconds")
    parser.add_argument("--table", action="store_true", help="only print the table of the results")
    parser.add_argument("--results", type=Path, default=Path("ablation.jsonl"))
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.results.read_text().splitlines()] if options.results.exists() else []
    if options.table:
        print(table(rows))
        return
    names = list(dict.fromkeys(["plain", *options.only]))
    setting = {"name": options.name, "size": options.size, "tokens": options.tokens}
    done = {tuple(row[key] for key in KEY) for row in rows}
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        prepared = runner.new(root / "text", [options.text])
        plan = runner.plan(prepared.root, {"training.steps": 1, **grain(options.size)})
        steps = max(1, round(options.tokens / plan.recipe.tokens_per_step))
        ratios = step_seconds(prepared, root, options.size, names) if options.seconds else {}
        print(f"{steps} steps; seconds of a step, to plain:", {k: round(v, 3) for k, v in ratios.items()}, flush=True)
        for seed in range(options.seeds):
            for variant in names:
                lengths = {"tokens": steps}
                if ratios.get(variant, 1.0) > LONGER:
                    lengths["seconds"] = round(steps / ratios[variant])
                for equal, length in lengths.items():
                    row = {**setting, "variant": variant, "seed": seed, "equal": equal}
                    if tuple(row[key] for key in KEY) in done:
                        continue
                    folder = trained(prepared, root, variant, options.size, length, seed)
                    row |= {"steps": length, **judge(prepared, folder)}
                    rows.append(row)
                    print(json.dumps(row), flush=True)
                    with options.results.open("a") as file:
                        file.write(json.dumps(row) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
