"""Memory that the processes of one run share: named tensors in one anonymous mapping, inherited by forked workers.

It has no name and no descriptor, so nothing is left behind however the processes end: the kernel frees it with the
last of them. It is not under /dev/shm, so a container's small limit there does not matter. Pages that nobody has
touched cost nothing.
"""

from __future__ import annotations

import math
import mmap
from dataclasses import dataclass

import torch
from torch import Tensor

ALIGNMENT = 64  # bytes: a cache line, and what matrix kernels want for the same bits everywhere


@dataclass(frozen=True)
class Field:
    """One tensor: its name, shape and type."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class SharedMemory:
    """Tensors by name, all zero at first. Processes forked from this one see the same bytes."""

    def __init__(self, fields: list[Field]) -> None:
        memory = mmap.mmap(-1, sum(_aligned(field.bytes) for field in fields) + ALIGNMENT)
        self._tensors: dict[str, Tensor] = {}
        offset = 0
        for field in fields:
            count = math.prod(field.shape)
            flat = torch.frombuffer(memory, dtype=field.dtype, count=max(1, count), offset=offset)
            self._tensors[field.name] = flat[:count].view(field.shape)
            offset += _aligned(field.bytes)

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
