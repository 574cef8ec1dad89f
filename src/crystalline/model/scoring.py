"""How well a network predicts given text: cross-entropy and bits per byte.

Bits per byte does not depend on the tokenizer, so models with different vocabularies can be compared by it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from crystalline.model.transformer import IGNORE, Transformer
from crystalline.tokens.tokenizer import Tokenizer


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
    context = model.shape.context
    targets = tokens[1:].astype(np.int64)
    windows = -(-len(targets) // context)
    inputs = np.zeros((windows, context), np.int64)
    wanted = np.full((windows, context), IGNORE, np.int64)
    inputs.reshape(-1)[: len(targets)], wanted.reshape(-1)[: len(targets)] = tokens[:-1], targets
    total = 0.0
    for first in range(0, windows, batch):
        rows = slice(first, first + batch)
        total += float(model.loss(torch.from_numpy(inputs[rows]), torch.from_numpy(wanted[rows])))
    return Score(total / len(targets), len(targets), int(token_bytes[targets].sum()))
