"""A memory for pairs of neighbouring tokens: composites over time.

A pair is looked up by a hash in two tables whose sizes are different primes, and both vectors are added to the
residual stream. The lookup costs next to nothing, the tables cost memory, and no other program reads them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from crystalline.model import operations
from crystalline.model.shape import Shape, table_sizes

# 2^63 / golden ratio and 2^63 / e, made odd, spread neighbouring ids over all 63 bits (Knuth, TAOCP 3, 6.4).
_FIRST, _SECOND = 0x4F1BBCDCBFA53E0B, 0x2F16AC6C59DE6F8D
_POSITIVE = 2**63 - 1


class NgramMemory(nn.Module):
    """(B, T) tokens -> (B, T, D): the sum of two vectors of each token and the one before it.

    Engram (Cheng et al. 2026, arXiv 2601.07372) with one order of n-grams; a random sign for each pair and table, as
    in feature hashing (Weinberger et al. 2009, arXiv 0902.2206), keeps pairs that collide from adding up.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        sizes = table_sizes(shape.ngram_rows)
        self.tables = nn.ParameterList(nn.Parameter(torch.empty(size, shape.width)) for size in sizes)
        self.layer_gain = nn.Parameter(torch.empty(shape.layers))

    def forward(self, tokens: Tensor, before: Tensor) -> Tensor:
        """before: (B, 1), the token in front of the first one."""
        hashes = (tokens * _FIRST + torch.cat((before, tokens[:, :-1]), dim=1) * _SECOND) & _POSITIVE
        parts = []
        for number, table in enumerate(self.tables):
            sign = 1 - 2 * ((hashes >> (60 + number)) & 1)
            parts.append(operations.look_up(hashes % len(table), table) * sign.unsqueeze(-1))
        return torch.stack(parts).sum(0)
