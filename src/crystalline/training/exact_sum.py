"""Gradients summed without rounding, so that the sum has no order.

Floating-point addition depends on the order of its terms; integer addition does not. Each gradient element is
rounded once to a multiple of 2^-48 and added as an int64. Whoever computed a position, and whenever,
the sum of a step's positions is the same to the bit.

The same idea is in IntSGD (Mishchenko et al. 2022, arXiv 2102.08374) and in fixed-point switches (SwitchML, NSDI
2021); int64 with one constant scale needs no agreement on a scale before the sum.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from ctypes import c_float, c_long, c_void_p

import torch
from torch import Tensor

from crystalline.model.library import library

FRACTION_BITS = 48  # resolution 3.6e-15
# 144 positions of this norm cannot overflow: 144 * 2^7 * 2^48 < 2^63. A sound position has a norm under 10.
LARGEST_NORM = 2.0**7
CHUNK = 1 << 16  # elements worked on at a time: the temporaries stay in the processor's cache


class ExactSum:
    """A running sum of flat fp32 gradients, in the int64 tensor `total`."""

    def __init__(self, total: Tensor) -> None:
        self.total = total
        self._scaled = torch.empty(CHUNK)
        self._fixed = torch.empty(CHUNK, dtype=torch.int64)

    def clear(self) -> None:
        self.total.zero_()

    def add(self, pieces: Iterable[tuple[int, Tensor]]) -> None:
        """Add one position's gradient, given as (offset, fp32 tensor) pieces.

        The caller has checked with `norm` that it is finite and not larger than LARGEST_NORM.
        """
        kernels = library()
        for offset, piece in pieces:
            flat = piece.reshape(-1)
            if kernels is not None:
                place = self.total[offset : offset + flat.numel()]
                kernels.add_exact(
                    c_void_p(flat.data_ptr()),
                    c_void_p(place.data_ptr()),
                    c_long(flat.numel()),
                    c_float(2.0**FRACTION_BITS),
                )
                continue
            for start in range(0, flat.numel(), CHUNK):
                part = flat[start : start + CHUNK]
                scaled, fixed = self._scaled[: part.numel()], self._fixed[: part.numel()]
                torch.mul(part, 2.0**FRACTION_BITS, out=scaled)
                fixed.copy_(scaled)  # toward zero: exact, whatever the rest of the sum is
                self.total[offset + start : offset + start + part.numel()] += fixed


def combine(totals: Sequence[Tensor], gradient: Tensor) -> None:
    """Put the sum of several sums into the fp32 `gradient` (n,), rounded once."""
    for start in range(0, gradient.numel(), CHUNK):
        rows = [total[start : start + CHUNK] for total in totals]
        part = gradient[start : start + CHUNK]
        part.copy_(functools.reduce(torch.add, rows))
        part.mul_(2.0**-FRACTION_BITS)


def norm(pieces: Iterable[Tensor]) -> float:
    """The norm of a gradient in pieces; NaN or infinite when any element is."""
    squares = [float(torch.linalg.vector_norm(piece, dtype=torch.float64)) ** 2 for piece in pieces]
    return math.sqrt(math.fsum(squares))
