"""`cllm vocab`: a vocabulary in numbers, beside another one, as a file; or a new one, from any text."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystalline.cli import common, output
from crystalline.errors import EXIT_OK, EXIT_USAGE, UserError

if TYPE_CHECKING:
    from crystalline.tokens.tokenizer import Tokenizer

EXAMPLES = """example:
  cllm vocab my-model
  cllm vocab my-model --compare other-model
  cllm vocab my-model --to vocabulary.tsv
  cllm vocab my-tokenizer --train ~/Documents --size 8192"""
SAMPLE = 4 << 20  # bytes of held-out text that two vocabularies are compared on


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN|FILE", help="a run or checkpoint folder, or a tokenizer.json")
    parser.add_argument(
        "-k", type=common.whole(1), default=10, metavar="K", help="how many of each list; default: 10"
    )
    parser.add_argument("--compare", metavar="RUN|FILE", help="another vocabulary, on the held-out text of RUN")
    parser.add_argument(
        "--to", metavar="FILE", help="write it: .json: token to number; else lines of number, count, token"
    )
    parser.add_argument(
        "--train", action="append", metavar="PATH", help="learn one from this text, into the new folder RUN"
    )
    parser.add_argument("--size", type=common.whole(264), metavar="N", help="of a vocabulary to learn")
    common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    if args.train:
        _train(args)
    elif args.size:
        raise UserError("could not set the size", "nothing is to be learned", "add --train PATH", EXIT_USAGE)
    tokenizer = common.tokenizer(args.run)
    counts = _counts(args.run, tokenizer)
    facts = _facts(tokenizer, counts, args.k, args.run)
    if args.compare:
        facts["compared"] = _compared(args, tokenizer)
    if args.to:
        common.write_file(args.to, _file(tokenizer, counts, args.to))
    if args.json:
        output.print_json(facts)
    else:
        print("\n".join(_told(facts)))
        if args.to and not args.quiet:
            print(f"written to {args.to}")
    return EXIT_OK


def _train(args: argparse.Namespace) -> None:
    from crystalline.corpus.stage import iterate
    from crystalline.pipeline import preparation
    from crystalline.tokens.tokenizer import Tokenizer, choose_vocabulary_size

    target = Path(args.run).expanduser()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(
            f"could not learn a vocabulary into {target}",
            "it exists and is not an empty folder",
            "choose a new folder name",
            EXIT_USAGE,
        )
    with tempfile.TemporaryDirectory(prefix="cllm-vocab-") as name:
        sources = [str(Path(path).expanduser().resolve()) for path in args.train]
        report = preparation.preview(sources, Path(name))
        corpus = Path(name) / "corpus"
        texts = (d.text for side in ("held_out", "train") for d in iterate(corpus, side))
        size = args.size or choose_vocabulary_size(report["bytes"]["kept"])
        Tokenizer.train(texts, size).save(target)


def _counts(run: str, tokenizer: Tokenizer) -> list[int] | None:
    """How often each token occurs in the training text, where that is known."""
    import numpy as np

    path = Path(run).expanduser() / "shards" / "counts.npy"
    if not path.exists():
        return None
    counts: list[int] = np.load(path).tolist()
    return counts if len(counts) == tokenizer.vocabulary_size else None


def _facts(tokenizer: Tokenizer, counts: list[int] | None, most: int, run: str) -> dict[str, Any]:
    own = [id_ for id_ in range(tokenizer.vocabulary_size) if not tokenizer.is_special(id_)]
    longest = sorted(own, key=lambda id_: (-len(tokenizer.token_bytes(id_)), id_))[:most]
    facts: dict[str, Any] = {
        "tokens": tokenizer.vocabulary_size,
        "special": tokenizer.vocabulary_size - len(own),
        "fingerprint": tokenizer.fingerprint,
        "mean_bytes": sum(len(tokenizer.token_bytes(id_)) for id_ in own) / len(own),
        "longest": [_entry(tokenizer, id_, counts) for id_ in longest],
    }
    if counts is not None:
        frequent = sorted(own, key=lambda id_: (-counts[id_], id_))[:most]
        unused = [id_ for id_ in own if counts[id_] == 0]
        single = sum(len(tokenizer.token_bytes(id_)) == 1 for id_ in unused)
        index = json.loads((Path(run).expanduser() / "shards" / "index.json").read_text("utf-8"))["splits"]
        facts["bytes_per_token"] = {
            side: index[side]["bytes"] / index[side]["tokens"] for side in index if index[side]["tokens"]
        }
        facts["frequent"] = [_entry(tokenizer, id_, counts) for id_ in frequent]
        facts["unused"] = {"count": len(unused), "single_bytes": single}
        facts["unused"]["first"] = [_entry(tokenizer, id_, None) for id_ in unused if id_ >= 264][:most]
    return facts


def _entry(tokenizer: Tokenizer, id_: int, counts: list[int] | None) -> dict[str, Any]:
    entry = {"id": id_, "token": common.piece(tokenizer, id_), "bytes": len(tokenizer.token_bytes(id_))}
    return entry if counts is None else entry | {"count": counts[id_]}


def _compared(args: argparse.Namespace, tokenizer: Tokenizer) -> dict[str, Any]:
    from crystalline.corpus.stage import iterate

    other = common.tokenizer(args.compare)
    corpus = Path(args.run).expanduser() / "corpus"
    if not (corpus / "held_out.jsonl").exists():
        raise UserError(
            f"could not compare {args.run} with {args.compare}",
            f"{args.run} has no text to cut",
            "give a run whose text has been read as the first of the two",
        )
    texts, size = [], 0
    for document in iterate(corpus, "held_out"):
        texts.append(document.text)
        size += len(document.text.encode())
        if size >= SAMPLE:
            break
    vocabularies = [{t.token_bytes(id_) for id_ in range(8, t.vocabulary_size)} for t in (tokenizer, other)]
    shared = len(vocabularies[0] & vocabularies[1])
    rates = [size / max(1, sum(map(len, t.encode_batch(texts)))) for t in (tokenizer, other)]
    return {
        "with": args.compare,
        "tokens": other.vocabulary_size,
        "shared": shared,
        "bytes": size,
        "bytes_per_token": rates[0],
        "its_bytes_per_token": rates[1],
        "same": tokenizer.fingerprint == other.fingerprint,
    }


def _file(tokenizer: Tokenizer, counts: list[int] | None, name: str) -> str:
    pieces = [common.piece(tokenizer, id_) for id_ in range(tokenizer.vocabulary_size)]
    if name.endswith(".json"):
        return json.dumps({piece: id_ for id_, piece in enumerate(pieces)}, ensure_ascii=False, indent=0) + "\n"
    return "".join(f"{id_}\t{'' if counts is None else counts[id_]}\t{piece}\n" for id_, piece in enumerate(pieces))


def _told(facts: dict[str, Any]) -> Iterator[str]:
    yield f"{facts['tokens']:,} tokens, {facts['special']} special; on average {facts['mean_bytes']:.2f} bytes"
    if "bytes_per_token" in facts:
        rates = ", ".join(f"{side.replace('_', '-')} {rate:.3f}" for side, rate in facts["bytes_per_token"].items())
        yield f"bytes per token: {rates}"
        unused = facts["unused"]
        some = ", ".join(entry["token"] for entry in unused["first"])
        yield (
            f"unused in the training text: {unused['count']:,}, of which {unused['single_bytes']} single bytes"
            + (f"; such as {some}" if some else "")
        )
        yield "most frequent"
        yield from (f"  {entry['id']:6}  {entry['count']:10,}  {entry['token']}" for entry in facts["frequent"])
    yield "longest"
    yield from (f"  {entry['id']:6}  {entry['bytes']:4} bytes  {entry['token']}" for entry in facts["longest"])
    if "compared" in facts:
        other = facts["compared"]
        yield (
            f"{other['with']}: {other['tokens']:,} tokens, {other['shared']:,} the same; "
            f"on {output.size(other['bytes'])} of held-out text {other['its_bytes_per_token']:.3f} bytes per token, "
            f"this one {other['bytes_per_token']:.3f}"
        )
