"""How well a model predicts the held-out text of its run."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

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
    tokens = stream.read(0, len(stream))
    same = read_json(run.shards / "index.json")["tokenizer"] == tokenizer.fingerprint
    if not same or int(tokens.max()) >= model.shape.vocabulary:
        raise UserError(
            f"could not measure {checkpoint}",
            "the held-out text was encoded with another tokenizer",
            f"delete {run.shards} and give the command cllm run {run.root}: it is made anew",
            EXIT_DAMAGED,
        )
    result = scoring.score(model, tokens, scoring.token_byte_lengths(tokenizer))
    return {
        "checkpoint": checkpoint.name,
        "step": checkpoints.step_of(checkpoint),
        **asdict(result),
        "perplexity": result.perplexity,
        "bits_per_byte": result.bits_per_byte,
    }
