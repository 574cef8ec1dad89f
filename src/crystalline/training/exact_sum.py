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
import time
from collections.abc import Iterable, Sequence
from ctypes import c_float, c_long, c_void_p

import torch
from torch import Tensor

from crystalline.model import library

FRACTION_BITS = 48  # resolution 3.6e-15
# 144 positions of this norm cannot overflow: 144 * 2^7 * 2^48 < 2^63. A sound position has a norm under 10.
LARGEST_NORM = 2.0**7
CHUNK = 1 << 16  # elements worked on at a time: the temporaries stay in the processor's cache
GPU_CHUNK = 1 << 24  # enough to be busy with, and temporaries of 200 MB


class ExactSum:
    """A running sum of flat gradients, in the int64 tensor `total`. seconds: spent with it so far."""

    def __init__(self, total: Tensor) -> None:
        self.total, self.seconds = total, 0.0

    def clear(self) -> None:
        began = time.perf_counter()
        self.total.zero_()
        self.seconds += time.perf_counter() - began

    def add(self, pieces: Iterable[tuple[int, Tensor]], scale: float = 1.0) -> float:
        """Add a gradient, given as (offset, tensor of 16 or 32 bits) pieces on this sum's device; its norm.

        A piece may be sparse (COO): then it is a table, of which it has only the rows that were looked up.
        scale: a power of two, that the pieces are too large by; dividing by it is exact.
        A norm that is not finite or above LARGEST_NORM says that the sum is of no use any more.
        """
        began = time.perf_counter()
        unit = 2.0**FRACTION_BITS / scale
        squares = math.fsum(
            self._add_rows(offset, piece.coalesce(), unit) if piece.is_sparse else self._add(offset, piece, unit)
            for offset, piece in pieces
        )
        self.seconds += time.perf_counter() - began
        return math.sqrt(squares) / scale

    def _add(self, offset: int, piece: Tensor, unit: float) -> float:
        """Add one piece, times `unit`; the sum of its squares."""
        piece = piece.reshape(-1)
        place = self.total[offset : offset + piece.numel()]
        kernels = library.usable(piece)
        if kernels is not None:
            return float(library.call(kernels, "add_exact", piece.dtype, piece, place, len(piece), unit))
        squares, size = 0.0, CHUNK if piece.device.type == "cpu" else GPU_CHUNK
        for start in range(0, piece.numel(), size):
            part = piece[start : start + size].float()
            squares += float(torch.linalg.vector_norm(part, dtype=torch.float64)) ** 2
            place[start : start + size] += (part * unit).long()  # toward zero
        return squares

    def _add_rows(self, offset: int, piece: Tensor, unit: float) -> float:
        """Add the rows of a coalesced sparse piece."""
        places, rows = piece.indices()[0], piece.values()
        table = self.total[offset : offset + piece.numel()].view(piece.shape)
        kernels = library.usable(rows)
        if kernels is not None:
            return float(library.call(kernels, "add_exact_rows", rows.dtype, rows, places, table, *rows.shape, unit))
        table[places] += (rows.float() * unit).long()
        return float(torch.linalg.vector_norm(rows, dtype=torch.float64)) ** 2


def combine(totals: Sequence[Tensor], gradient: Tensor) -> float:
    """Put the sum of several sums into the fp32 `gradient` (n,), rounded once; the sum of its squares.

    Sums and gradient are contiguous.
    """
    kernels = library.usable(gradient)
    if kernels is not None:
        rows = (c_void_p * len(totals))(*(total.data_ptr() for total in totals))
        where, count = c_void_p(gradient.data_ptr()), gradient.numel()
        squares = kernels.combine_exact(rows, c_long(len(totals)), where, c_long(count), c_float(2.0**-FRACTION_BITS))
        return float(squares)
    for start in range(0, gradient.numel(), CHUNK):
        part = gradient[start : start + CHUNK]
        part.copy_(functools.reduce(torch.add, [total[start : start + CHUNK] for total in totals]))
        part.mul_(2.0**-FRACTION_BITS)
    return float(torch.linalg.vector_norm(gradient, dtype=torch.float64)) ** 2


def add_up(totals: Sequence[Tensor], into: Tensor) -> None:
    """Put the sum of several sums (none: zeros) into the int64 tensor `into` (n,)."""
    for start in range(0, into.numel(), CHUNK):
        part = into[start : start + CHUNK]
        part.zero_()
        for total in totals:
            part += total[start : start + CHUNK]
