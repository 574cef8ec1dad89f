"""How well a model predicts the held-out text of its run."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from crystalline.errors import EXIT_DAMAGED, UserError
from crystalline.model import checkpoints, scoring, store
from crystalline.run_folder import RunFolder, read_json
from crystalline.tokens.stream import TokenStream
from crystalline.tokens.tokenizer import Tokenizer


def held_out_score(run: RunFolder, checkpoint: Path) -> dict[str, Any]:
    """Score all held-out tokens of `run` with the model in `checkpoint`.

    Raises UserError (exit code 4) when the shards are damaged or were made with another tokenizer.
    """
    torch.set_num_threads(1)
    stream, tokenizer = TokenStream(run.shards, "held_out"), Tokenizer.load(checkpoint)
    model = store.read_model(checkpoint)
    tokens: NDArray[np.integer[Any]] = stream.read(0, len(stream))
    encoded_by = read_json(run.shards / "index.json")["tokenizer"]
    if encoded_by != tokenizer.fingerprint:
        own = Tokenizer.load(run.tokenizer)
        if checkpoint.is_relative_to(run.root) or encoded_by != own.fingerprint:
            raise _of_another(run, checkpoint)
        tokens = _encoded_again(tokens, stream.document_starts(), own, tokenizer)
    if int(tokens.max()) >= model.shape.vocabulary:
        raise _of_another(run, checkpoint)
    result = scoring.score(model, tokens, scoring.token_byte_lengths(tokenizer))
    return {
        "checkpoint": checkpoint.name,
        "step": checkpoints.step_of(checkpoint),
        **asdict(result),
        "perplexity": result.perplexity,
        "bits_per_byte": result.bits_per_byte,
    }


def _encoded_again(
    tokens: NDArray[np.integer[Any]], starts: NDArray[np.integer[Any]], before: Tokenizer, now: Tokenizer
) -> NDArray[np.int64]:
    """Documents as tokens of another vocabulary."""
    found = []
    for document in np.split(tokens, starts[1:]):
        found += [now.bos, *now.encode_bytes(before.decode_bytes(document.tolist())), now.eos]
    return np.array(found, np.int64)


def _of_another(run: RunFolder, checkpoint: Path) -> UserError:
    return UserError(
        f"could not measure {checkpoint}",
        "the held-out text was encoded with another tokenizer",
        f"delete {run.shards} and give the command cllm run {run.root}: it is made anew",
        EXIT_DAMAGED,
    )
