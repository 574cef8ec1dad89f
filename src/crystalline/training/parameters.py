"""All weights of a network in one flat tensor, with the network's parameters as views of it.

One tensor makes the rest of training simple: gradients are summed, optimizers step and checkpoints are written over
plain ranges, and worker processes share it. Tables and gains stand first, matrices last, so that each optimizer owns
one contiguous range.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from crystalline.model.store import weights_hash
from crystalline.model.transformer import Transformer, is_matrix

ALIGNMENT = 16  # floats (64 bytes): matrix kernels may give other bits for weights at odd addresses


@dataclass(frozen=True)
class Slot:
    """Where one parameter lies in the flat tensor."""

    name: str
    offset: int
    shape: tuple[int, ...]

    @property
    def end(self) -> int:
        return self.offset + math.prod(self.shape)


@dataclass(frozen=True)
class Matrix:
    """One mathematical matrix (queries, keys, values, gate and up apart) in the flat tensor."""

    start: int
    rows: int
    columns: int

    @property
    def size(self) -> int:
        return self.rows * self.columns

    @property
    def end(self) -> int:
        return self.start + self.size


class FlatParameters:
    """The weights of `model` in one flat fp32 tensor `values` (n,); the model sees its views.

    values: a tensor that holds the weights already (a worker's shared memory), or None to make one from the model's.
    `matrices_from` is where the block matrices begin: tables and gains are values[:matrices_from].
    """

    def __init__(self, model: Transformer, values: Tensor | None = None) -> None:
        parameters = dict(model.named_parameters())
        names = sorted(parameters, key=is_matrix)  # stable: tables and gains first
        self.slots: list[Slot] = []
        offset = 0
        for name in names:
            self.slots.append(Slot(name, offset, tuple(parameters[name].shape)))
            offset = -(-self.slots[-1].end // ALIGNMENT) * ALIGNMENT
        self.parameters = [parameters[name] for name in names]
        self.values = torch.zeros(offset) if values is None else values
        for slot, parameter in zip(self.slots, self.parameters, strict=True):
            view = self.view(self.values, slot)
            if values is None:
                view.copy_(parameter.data)
            parameter.data = view
        shape = model.shape
        shares = {"qkv": [shape.heads, shape.kv_heads, shape.kv_heads], "gate_up": [1, 1]}
        self.matrices = list(_matrices(self.slots, shares))
        self.matrices_from = self.matrices[0].start

    @staticmethod
    def view(flat: Tensor, slot: Slot) -> Tensor:
        """The part of a flat tensor that belongs to `slot`, in its shape."""
        return flat[slot.offset : slot.end].view(slot.shape)

    def named(self) -> dict[str, Tensor]:
        """Name -> view of the weights, as a checkpoint stores them."""
        return {slot.name: self.view(self.values, slot) for slot in self.slots}

    def hash(self) -> str:
        """SHA-256 of all weights with their names and shapes."""
        return weights_hash(self.named())


class WorkingCopy:
    """What one process computes gradients with: the network as products want it (`Transformer.for_products`).

    Shared weights change between steps; `refresh` follows them. device: where it is to have everything for itself;
    None: in shared memory, where it copies only what it must convert.
    """

    def __init__(self, model: Transformer, parameters: FlatParameters, device: torch.device | None = None) -> None:
        self.device = device or torch.device("cpu")
        self.model = model.for_products(device)
        named = dict(self.model.named_parameters())
        self._weights = [(slot.offset, named[slot.name]) for slot in parameters.slots]
        originals = zip(self._weights, parameters.parameters, strict=True)
        self._copied: list[tuple[Tensor, Tensor]] = [
            (own, p) for (_, own), p in originals if device is not None or own.dtype != p.dtype
        ]
        if device is not None:  # the tokens' factors may change too (training/roots.py)
            self._copied += zip(self.model.buffers(), model.buffers(), strict=True)

    @torch.no_grad()
    def refresh(self) -> None:
        """Bring the copied weights, and the tables made of the shared ones, to what the shared ones are now."""
        for own, original in self._copied:
            own.copy_(original)
        self.model.embedding.hold(self.model.dtype)

    def gradients(self) -> Iterator[tuple[int, Tensor]]:
        """(offset in the flat tensor, gradient) of every parameter that has one; see `operations.look_up`."""
        for offset, weight in self._weights:
            if weight.grad is not None:
                yield offset, weight.grad

    def finite(self) -> bool:
        """Whether every number of the gradients is finite."""
        numbers = (g._values() if g.is_sparse else g for _, g in self.gradients())
        return bool(torch.stack([x.isfinite().all() for x in numbers]).all())


def flat_size(model: Transformer) -> int:
    """How many numbers `FlatParameters` needs for this network, the gaps of alignment included."""
    return sum(-(-p.numel() // ALIGNMENT) * ALIGNMENT for p in model.parameters())


def _matrices(slots: list[Slot], shares: dict[str, list[int]]) -> Iterator[Matrix]:
    for slot in slots:
        if is_matrix(slot.name):
            start, (rows, columns) = slot.offset, slot.shape
            parts = shares.get(slot.name.rsplit(".", 1)[-1], [1])
            for part in parts:
                yield Matrix(start, rows * part // sum(parts), columns)
                start += rows * part // sum(parts) * columns
