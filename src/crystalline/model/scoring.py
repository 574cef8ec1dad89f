"""How well a network predicts given text: cross-entropy and bits per byte.

Bits per byte does not depend on the tokenizer, so models with different vocabularies can be compared by it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from crystalline.model.transformer import IGNORE, Transformer
from crystalline.tokens.tokenizer import Tokenizer

LOGITS_AT_ONCE = 1 << 24


@dataclass(frozen=True)
class Score:
    """cross_entropy: nats per token. tokens: how many were predicted. bytes: the text they stand for."""

    cross_entropy: float
    tokens: int
    bytes: int

    @property
    def bits_per_byte(self) -> float:
        return self.cross_entropy * self.tokens / math.log(2) / max(1, self.bytes)

    @property
    def perplexity(self) -> float:
        return math.exp(min(self.cross_entropy, 700.0))


def token_byte_lengths(tokenizer: Tokenizer) -> np.ndarray:
    """(V,) int64: how many bytes of text each token stands for; special tokens stand for none."""
    return np.array([len(tokenizer.token_bytes(t)) for t in range(tokenizer.vocabulary_size)], np.int64)


@torch.inference_mode()
def score(model: Transformer, tokens: np.ndarray, token_bytes: np.ndarray, batch: int = 8) -> Score:
    """Predict every token but the first from those before it in its window of `context` tokens.

    tokens: (n,) with n >= 2. token_bytes: (V,) length in bytes of each token; special tokens have 0.
    Windows do not overlap, so tokens early in a window have little to go by: a slightly pessimistic, fast measure.
    """
    total = sum(float(model.loss(*pair)) for pair in _windows(model, tokens, batch))
    return Score(total / (len(tokens) - 1), len(tokens) - 1, int(token_bytes[tokens[1:].astype(np.int64)].sum()))


@torch.inference_mode()
def losses(model: Transformer, tokens: np.ndarray) -> np.ndarray:
    """(n - 1,) fp32: what each of these predictions costs, in nats; see `score`."""
    batch = max(1, LOGITS_AT_ONCE // (model.shape.context * model.shape.vocabulary))
    parts = [
        F.cross_entropy(model(inputs).flatten(0, 1), wanted.flatten(), ignore_index=IGNORE, reduction="none")
        for inputs, wanted in _windows(model, tokens, batch)
    ]
    found: np.ndarray = torch.cat(parts)[: len(tokens) - 1].numpy()
    return found


def _windows(model: Transformer, tokens: np.ndarray, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """(at most `batch`, T) inputs and targets, in order; those missing in the last window are IGNORE."""
    context, count = model.shape.context, len(tokens) - 1
    size = -(-count // context) * context
    inputs, wanted = np.zeros(size, np.int64), np.full(size, IGNORE, np.int64)
    inputs[:count], wanted[:count] = tokens[:-1], tokens[1:]
    split = (torch.from_numpy(side).view(-1, context).split(batch) for side in (inputs, wanted))
    return zip(*split, strict=True)
