"""`cllm generate`: continue a text, or many."""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystalline.cli import common, output
from crystalline.errors import EXIT_OK, EXIT_USAGE, UserError
from crystalline.run_folder import reporting_os_errors

if TYPE_CHECKING:
    from crystalline.model.generation import LanguageModel

EXAMPLES = """example:
  cllm generate my-model -p "def main" -n 100
  cllm generate my-model -p "Once" --greedy --stop "\\n"
  echo "The sea" | cllm generate my-model --samples 3 --temperature 1.1
  cllm generate my-model -p "The sea" --beams 5 --samples 2
  cllm generate my-model --prompts questions.txt --out answers.jsonl
  cllm generate my-model -p "The sea" -n 5 --json --logprobs 3"""
LENGTH_PENALTY = 0.6  # as in Wu et al. 2016
LINES = ".jsonl"  # a file with one JSON document a line
FREE = ("temperature", "greedy", "top_k", "top_p", "min_p", "repetition_penalty", "seed")  # have no sense for beams

log = logging.getLogger("crystalline.generate")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run folder or a checkpoint folder")
    parser.add_argument("-p", "--prompt", help="the beginning of the text; default: standard input")
    parser.add_argument(
        "--prompts", metavar="FILE", help="many of them: one a line, or JSON lines with \"prompt\"; -: standard input"
    )  # fmt: skip
    common.add_tokens(parser)
    common.add_sampling(parser)
    parser.add_argument(
        "--samples", type=common.whole(1), default=1, metavar="N",
        help="N texts for each prompt, with the seeds S, S + 1, ...; with --beams the N best",
    )  # fmt: skip
    parser.add_argument(
        "--beams", type=common.whole(1), metavar="N",
        help="nothing is drawn: the most likely text that a search with N beams finds",
    )  # fmt: skip
    parser.add_argument(
        "--length-penalty", type=_penalty, metavar="A",
        help=f"of beams: 0: none; above: longer texts are worth more; default: {LENGTH_PENALTY}",
    )  # fmt: skip
    parser.add_argument("--echo", action="store_true", help="the prompt, too, before its text")
    parser.add_argument("--out", metavar="FILE", help="write to a file; as JSON lines if it is called NAME.jsonl")
    parser.add_argument(
        "--logprobs", type=common.whole(0), metavar="N", help="with JSON: of each token its log-probability, and the "
        "N most likely ones"
    )  # fmt: skip
    common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    _check(args)
    prompts = _prompts(args)
    began = time.perf_counter()
    from crystalline.model.generation import load

    model = load(args.run, args.precision)
    log.debug("loaded in %.2f s", time.perf_counter() - began)
    several, shown = args.prompts is not None or args.samples > 1, not (args.out or args.json)
    if shown and not several and not args.beams:
        _stream(args, model, prompts[0])
        return EXIT_OK
    began, results = time.perf_counter(), []
    for result in _beams(args, model, prompts) if args.beams else _samples(args, model, prompts):
        results.append(result)
        if shown:
            print(_told(result, args, several), flush=True)
    log.debug("%s", _speed(sum(result["tokens"] for result in results), time.perf_counter() - began, len(results)))
    if args.out is not None:
        if args.out.endswith(LINES):
            texts = [json.dumps(result, ensure_ascii=False) for result in results]
        elif args.json:
            texts = [json.dumps(results if several else results[0], indent=2, ensure_ascii=False)]
        else:
            texts = [_told(result, args, several) for result in results]
        common.write_file(args.out, "".join(f"{text}\n" for text in texts))
    elif args.json:
        output.print_json(results if several else results[0])
    return EXIT_OK


def _stream(args: argparse.Namespace, model: LanguageModel, prompt: str) -> None:
    """One text, shown as it comes."""
    from crystalline.model.generation import Generated, visible

    how, result = common.sampling(args, model), Generated([], "length")
    shown = visible if sys.stdout.isatty() else str
    began = time.perf_counter()
    first = None
    if args.echo:
        print(shown(prompt), end="", flush=True)
    for piece in model.stream(prompt, how, args.tokens, args.stop, result):
        first = first or time.perf_counter() - began
        print(shown(piece), end="", flush=True)
    seconds = time.perf_counter() - began
    print()
    log.debug("%s, the first after %.3f s", _speed(len(result.tokens), seconds), first or seconds)


def _samples(args: argparse.Namespace, model: LanguageModel, prompts: list[str]) -> Iterator[dict[str, Any]]:
    """A result for each prompt and seed, in that order, as soon as it and those before it are there."""
    from dataclasses import replace

    from crystalline.model.batch import Continued, Request, continue_all

    how, limit = common.sampling(args, model), args.tokens or model.defaults.max_tokens
    hows = [replace(how, seed=how.seed + number) for number in range(args.samples)]
    requests = [Request(prompt, each, limit, args.stop, args.logprobs) for prompt in prompts for each in hows]
    early: dict[int, Continued] = {}
    following = 0
    for number, result in continue_all(model, requests):
        early[number] = result
        while (done := early.pop(following, None)) is not None:
            request = requests[following]
            facts: dict[str, Any] = {
                "prompt": request.prompt,
                "seed": request.how.seed,
                "text": done.text,
                "tokens": len(done.tokens),
                "reason": done.reason,
                "seconds": done.seconds,
                "tokens_per_second": len(done.tokens) / done.seconds,
            }
            if args.logprobs is not None:
                facts["logprobs"] = [
                    _likely(model, each.token, each.log_probability)
                    | {"top": [_likely(model, *likely) for likely in each.best]}
                    for each in done.likelihoods
                ]
            yield facts
            following += 1


def _beams(args: argparse.Namespace, model: LanguageModel, prompts: list[str]) -> Iterator[dict[str, Any]]:
    """The best results for each prompt, best first."""
    from crystalline.model.pieces import Pieces

    how = common.sampling(args, model)
    alpha = LENGTH_PENALTY if args.length_penalty is None else args.length_penalty
    for prompt in prompts:
        began = time.perf_counter()
        found = model.beams(prompt, args.beams, args.samples, args.tokens, args.stop, alpha, how)
        seconds = time.perf_counter() - began
        for number, hypothesis in enumerate(found):
            pieces = Pieces(model.tokenizer, args.stop)
            text = "".join(map(pieces.add, hypothesis.tokens))
            yield {
                "prompt": prompt,
                "beam": number + 1,
                "score": hypothesis.score,
                "log_probability": hypothesis.log_probability,
                "text": text + pieces.rest(ended=hypothesis.reason == "stop"),
                "tokens": len(hypothesis.tokens),
                "reason": hypothesis.reason,
                "seconds": seconds,
                "tokens_per_second": len(hypothesis.tokens) / seconds,
            }


def _told(result: dict[str, Any], args: argparse.Namespace, several: bool) -> str:
    """A result as a person reads it; one of several has a heading."""
    from crystalline.model.generation import visible

    prompt = result["prompt"]
    text = (prompt if args.echo else "") + result["text"]
    if several:
        heading = []
        if args.prompts is not None:
            heading.append(json.dumps(prompt if len(prompt) <= 40 else f"{prompt[:39]}…", ensure_ascii=False))
        if "beam" in result:
            heading.append(f"beam {result['beam']}, score {result['score']:.4f}")
        elif args.samples > 1:
            heading.append(f"seed {result['seed']}")
        text = f"--- {', '.join(heading)} ---\n{text}"
    return visible(text) if args.out is None and sys.stdout.isatty() else text


def _likely(model: LanguageModel, token: int, log_probability: float) -> dict[str, Any]:
    text = model.tokenizer.token_bytes(token).decode(errors="backslashreplace")
    return {"token": text, "id": token, "logprob": log_probability}


def _speed(tokens: int, seconds: float, texts: int = 1) -> str:
    many = f" of {texts} texts" if texts > 1 else ""
    return f"{tokens} tokens{many} in {seconds:.2f} s: {output.count(tokens / max(seconds, 1e-9))} tokens/s"


# --- what is asked for ------------------------------------------------------------------------------------


def _as_json(args: argparse.Namespace) -> bool:
    return args.json or (args.out is not None and args.out.endswith(LINES))


def _check(args: argparse.Namespace) -> None:
    """UserError for flags that do not go together."""

    def refuse(what: str, why: str, fix: str) -> None:
        raise UserError(what, why, fix, EXIT_USAGE)

    if args.prompt is not None and args.prompts is not None:
        refuse("could not choose a prompt", "--prompt and --prompts were both given", "leave one of them out")
    if args.logprobs is not None and not _as_json(args):
        refuse("could not tell log-probabilities", "they have no place in a text", "add --json, or --out NAME.jsonl")
    if args.beams is None:
        if args.length_penalty is not None:
            refuse("could not use --length-penalty", "it is for beam search", "add --beams N, or leave it out")
        return
    drawn = [
        f"--{name.replace('_', '-')}"
        for name in FREE
        if getattr(args, name) is not None and getattr(args, name) is not False
    ]
    if drawn:
        refuse(f"could not use {', '.join(drawn)}", "a search with beams draws nothing", "leave it out, or --beams")
    if args.logprobs is not None:
        refuse("could not use --logprobs", "a beam tells the log-probability of its whole text", "leave it out")
    if args.samples > args.beams:
        fix = f"--beams {args.samples}, or more"
        refuse(f"could not keep the {args.samples} best", f"there are only {args.beams} beams", fix)


def _prompts(args: argparse.Namespace) -> list[str]:
    """What to continue. UserError when a file has nothing, or a line of it cannot be understood."""
    if args.prompts is None:
        # An argument may hold bytes that are no text: they are replaced, as in standard input.
        given = sys.stdin.read() if args.prompt is None else args.prompt
        return [os.fsencode(given).decode("utf-8", "replace")]
    name = "standard input" if args.prompts == "-" else args.prompts
    try:
        with reporting_os_errors(f"read {name}"):
            path = Path(args.prompts).expanduser()
            text = sys.stdin.read() if args.prompts == "-" else path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"could not read {name}", f"it is no text in UTF-8: {error}", "save it as UTF-8") from error
    # Not splitlines(): a prompt may hold other line ends than the file's.
    lines = [(number, line.removesuffix("\r")) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise UserError(f"there are no prompts in {name}", "all of its lines are empty", "write one prompt a line")
    if name.endswith(LINES) or _prompt(lines[0][1]) is not None:
        found = [(number, _prompt(line)) for number, line in lines]
        for number, prompt in found:
            if prompt is None:
                why = f'line {number} is no JSON object with a text called "prompt"'
                raise UserError(f"could not read {name}", why, 'write {"prompt": "..."} in each line')
        return [prompt for _, prompt in found if prompt is not None]
    return [line for _, line in lines]


def _prompt(line: str) -> str | None:
    """The prompt in a line of JSON; None when it is no such line."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    prompt = value.get("prompt") if isinstance(value, dict) else None
    # JSON can write half a surrogate pair, which is no text.
    return prompt if isinstance(prompt, str) and not re.search("[\ud800-\udfff]", prompt) else None


def _penalty(text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"'{text}' is no number from 0 up")
    return value
