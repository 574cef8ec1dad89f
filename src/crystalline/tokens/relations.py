"""What tokens are to each other, as arrays that a network can use: roots, beginnings, angles.

Between the token codes and the model's objective and phases.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from crystalline.tokens.codes import TokenCodes
from crystalline.tokens.tokenizer import Tokenizer

GOLDEN_ANGLE = math.pi * (3 - math.sqrt(5))  # radians


def roots(codes: TokenCodes) -> NDArray[np.int64]:
    """(V,): the family of each token, counted from 0 in the order of the roots' primes (frequent families first)."""
    primes = np.array([codes.root(token).prime for token in range(codes.vocabulary_size)])
    return np.unique(primes, return_inverse=True)[1].astype(np.int64)


def angles(codes: TokenCodes) -> NDArray[np.float64]:
    """(V,) radians: family k stands at k golden angles, as the seeds of a sunflower do; its tokens all there."""
    return np.asarray(roots(codes) * GOLDEN_ANGLE % (2 * math.pi), np.float64)


def beginnings(tokenizer: Tokenizer) -> NDArray[np.int64]:
    """(V,): the longest other token that each token's bytes begin with; its own id where there is none."""
    ids = {tokenizer.token_bytes(token): token for token in reversed(range(tokenizer.vocabulary_size))}
    found = np.arange(tokenizer.vocabulary_size)
    for text, token in ids.items():
        lengths = range(len(text) - 1, 0, -1)
        found[token] = next((ids[text[:n]] for n in lengths if text[:n] in ids), token)
    return found
