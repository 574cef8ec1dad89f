"""How fast crystalline generates, beside transformers and llama.cpp. On this machine, now.

    python benchmarks/decoding.py [--size 1M|25M] [--precision fp32|bf16|int8] [--rounds 7]

All continue the same 32 tokens by 128 more, one text, the most likely token each time, with the same weights (random
ones: speed does not depend on them) and their own KV caches, in processes of their own that take turns.

crystalline: the token loop that `cllm generate` runs.
transformers: Qwen3ForCausalLM in eager mode, a forward call for each token (quicker than `generate`); int8 as bf16.
llama.cpp: the GGUF file that `cllm export` writes, through its C interface; q8_0 for int8. Left out when the package
llama_cpp is not installed.

The other two may use one thread or all, whichever was quicker in the round. Also: seconds from the prompt to the
first token, and the speed of 16 texts at once. Medians over the rounds; read the ratios.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from crystalline.export import gguf, layout

from crystalline import processes
from crystalline.model.decoder import decoder
from crystalline.model.generation import Continuation, advance
from crystalline.model.sampling import Sampling
from crystalline.model.shape import shape_of
from crystalline.model.transformer import Transformer
from crystalline.settings import Model
from crystalline.tokens.tokenizer import Tokenizer

SIZES = {"1M": ("1M", 4096), "25M": ("30M", 4096)}  # named size, vocabulary
PROMPT, NEW, TEXTS = 32, 128, 16
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.bfloat16}
GGUF = {"fp32": "fp32", "bf16": "bf16", "int8": "q8_0"}


def network(size):
    name, vocabulary = SIZES[size]
    model = Transformer(shape_of(Model(), name, vocabulary))
    generator = torch.Generator().manual_seed(0)
    for name, weight in model.named_parameters():
        weight.data.fill_(1.0) if name.endswith("gain") else weight.data.normal_(0.0, 0.02, generator=generator)
    return model.eval().requires_grad_(False)


def crystalline(size, precision, folder):
    model = network(size)
    weights = decoder(model, precision=precision)
    prompts = np.random.default_rng(0).integers(20, model.shape.vocabulary, (TEXTS, PROMPT)).tolist()
    nothing = np.zeros(0, np.int64)

    def texts(count):
        how = Sampling(temperature=0)
        return {slot: Continuation(prompts[slot], how, model.shape.context, nothing, -1) for slot in range(count)}

    def tokens_per_second(count):
        slots, continued = weights.fresh(count), texts(count)
        begin = time.perf_counter()
        for slot, logits in advance(slots, continued).items():
            continued[slot].choose(logits)
        first = time.perf_counter()
        for _ in range(NEW):
            for slot, logits in advance(slots, continued).items():
                continued[slot].choose(logits)
        return count * NEW / (time.perf_counter() - first), first - begin

    def measure():
        speed, first = tokens_per_second(1)
        return {"speed": speed, "first": first, "many": tokens_per_second(TEXTS)[0]}

    return measure


def transformers(size, precision, folder):
    from transformers import Qwen3Config, Qwen3ForCausalLM

    model = network(size)
    theirs = Qwen3ForCausalLM(Qwen3Config(**layout.to_config(model.shape)))
    theirs.load_state_dict(layout.to_plain(model), strict=False)  # the head is tied
    theirs = theirs.to(DTYPES[precision]).eval()
    prompt = torch.randint(20, model.shape.vocabulary, (1, PROMPT))

    @torch.inference_mode()
    def run():
        begin = time.perf_counter()
        out = theirs(prompt, use_cache=True)
        token = out.logits[:, -1:].argmax(-1)
        first = time.perf_counter()
        for _ in range(NEW):
            out = theirs(token, past_key_values=out.past_key_values, use_cache=True)
            token = out.logits[:, -1:].argmax(-1)
        return NEW / (time.perf_counter() - first), first - begin

    return quicker(run, torch.set_num_threads)


def llama_cpp(size, precision, folder):
    import llama_cpp as api

    path = str(folder / f"{size}-{GGUF[precision]}.gguf")
    silent = api.llama_log_callback(lambda *_: None)
    api.llama_log_set(silent, None)
    api.llama_backend_init()
    loaded = api.llama_model_load_from_file(path.encode(), api.llama_model_default_params())
    if not loaded:
        raise SystemExit(f"llama.cpp cannot load {path}")
    options = api.llama_context_default_params()
    options.n_ctx, options.n_batch = 256, 256
    context = api.llama_init_from_model(loaded, options)
    vocabulary = SIZES[size][1]
    prompt = np.random.default_rng(0).integers(20, vocabulary, PROMPT).tolist()

    def read(tokens):
        array = (api.llama_token * len(tokens))(*tokens)
        assert api.llama_decode(context, api.llama_batch_get_one(array, len(tokens))) == 0
        return int(np.ctypeslib.as_array(api.llama_get_logits_ith(context, -1), (vocabulary,)).argmax())

    def run(silent=silent):  # which C may call as long as there is a run
        api.llama_memory_clear(api.llama_get_memory(context), True)
        begin = time.perf_counter()
        token = read(prompt)
        first = time.perf_counter()
        for _ in range(NEW):
            token = read([token])
        return NEW / (time.perf_counter() - first), first - begin

    return quicker(run, lambda threads: api.llama_set_n_threads(context, threads, threads))


def quicker(run, set_threads):
    """One thread or all, whichever is quicker."""

    def measure():
        found = []
        for threads in {1, processes.cores()}:
            set_threads(threads)
            run()
            speed, first = run()
            found.append({"speed": speed, "first": first, "threads": threads})
        return max(found, key=lambda result: result["speed"])

    return measure


def write_gguf(size, precision, folder):
    vocabulary = SIZES[size][1]
    library = Path(sysconfig.get_paths()["stdlib"])
    sources = sorted(library.glob("*.py"))
    tokenizer = Tokenizer.train((path.read_text("utf-8", "replace") for path in sources), vocabulary)
    model, path = network(size), folder / f"{size}-{GGUF[precision]}.gguf"
    gguf.write(path, layout.to_plain(model), model.shape, tokenizer, GGUF[precision], {"name": "random"}, "")


SIDES = {"crystalline": crystalline, "transformers": transformers, "llama.cpp": llama_cpp}


def serve(side, size, precision, folder):
    """In a process of its own: measure when told to."""
    measure = SIDES[side](size, precision, Path(folder))
    measure()
    print("ready", flush=True)
    for _ in sys.stdin:
        print(json.dumps(measure()), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="1M")
    parser.add_argument("--precision", choices=GGUF, default="bf16")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        side, folder = options.serve
        serve(side, options.size, options.precision, folder)
        return

    load = os.getloadavg()[0]
    sides = [side for side in SIDES if side != "llama.cpp" or importlib.util.find_spec("llama_cpp")]
    with tempfile.TemporaryDirectory() as folder:
        if "llama.cpp" in sides:
            write_gguf(options.size, options.precision, Path(folder))
        # All cores for each, whatever the caller's environment says.
        environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
        command = [sys.executable, __file__, "--size", options.size, "--precision", options.precision, "--serve"]
        talking = {
            side: subprocess.Popen(
                [*command, side, folder], env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )
            for side in sides
        }  # fmt: skip
        for process in talking.values():
            process.stdout.readline()
        found = {side: [] for side in sides}
        for number in range(options.rounds):
            # Who is first changes, so that nobody always meets a machine that another has warmed.
            for side in sides[:: 1 if number % 2 else -1]:
                talking[side].stdin.write("go\n")
                talking[side].stdin.flush()
                found[side].append(json.loads(talking[side].stdout.readline()))
        for process in talking.values():
            process.stdin.close()
            process.wait()

    weights = sum(p.numel() for p in network(options.size).parameters())
    print(f"{weights / 1e6:.1f} M weights, {options.precision}, {options.rounds} rounds, load before: {load:.1f}")
    ours = found["crystalline"]
    for side, results in found.items():
        speeds = [result["speed"] for result in results]
        ratio = statistics.median(b["speed"] / a["speed"] for a, b in zip(results, ours, strict=True))
        first = 1000 * statistics.median(result["first"] for result in results)
        print(
            f"{side:12} {statistics.median(speeds):8,.0f} tokens/s ({min(speeds):,.0f} to {max(speeds):,.0f}), "
            f"first token {first:.1f} ms; crystalline is {ratio:.2f} x"
        )
    many = statistics.median(result["many"] for result in ours)
    gain = statistics.median(result["many"] / result["speed"] for result in ours)
    print(f"{TEXTS} texts at once: {many:,.0f} tokens/s, {gain:.2f} x one")


if __name__ == "__main__":
    main()
