"""All weights of a network in one flat tensor, with the network's parameters as views of it.

One tensor makes the rest of training simple: gradients are summed, optimizers step and checkpoints are
written over plain ranges, and worker processes can share it. Tables and gains stand first, matrices last, so that
each optimizer owns one contiguous range.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from crystalline.model.store import weights_hash
from crystalline.model.transformer import Transformer


@dataclass(frozen=True)
class Slot:
    """Where one parameter lies in the flat tensor."""

    name: str
    offset: int
    shape: tuple[int, ...]

    @property
    def end(self) -> int:
        return self.offset + math.prod(self.shape)


class FlatParameters:
    """The weights of `model`, moved into one flat fp32 tensor `values` (n,); the model sees its views.

    `matrices_from` is where the block matrices begin: tables and gains are values[:matrices_from].
    """

    def __init__(self, model: Transformer) -> None:
        parameters = dict(model.named_parameters())
        names = sorted(parameters, key=lambda name: _is_matrix(name))  # stable: tables and gains first
        self.slots: list[Slot] = []
        offset = 0
        for name in names:
            self.slots.append(Slot(name, offset, tuple(parameters[name].shape)))
            offset = self.slots[-1].end
        self.values = torch.empty(offset)
        self.parameters = [parameters[name] for name in names]
        self.matrices_from = next((s.offset for s in self.slots if _is_matrix(s.name)), offset)
        for slot, parameter in zip(self.slots, self.parameters, strict=True):
            view = self.view(self.values, slot)
            view.copy_(parameter.data)
            parameter.data = view
        self._rows = {
            "qkv": [model.shape.heads, model.shape.kv_heads, model.shape.kv_heads],
            "gate_up": [1, 1],
        }

    @staticmethod
    def view(flat: Tensor, slot: Slot) -> Tensor:
        """The part of a flat tensor that belongs to `slot`, in its shape."""
        return flat[slot.offset : slot.end].view(slot.shape)

    def matrices(self, flat: Tensor) -> Iterator[Tensor]:
        """Views of `flat`, one for each mathematical matrix: queries, keys, values, gate and up apart."""
        for slot in self.slots:
            if _is_matrix(slot.name):
                shares = self._rows.get(slot.name.rsplit(".", 1)[-1], [1])
                rows = [slot.shape[0] * share // sum(shares) for share in shares]
                yield from self.view(flat, slot).split(rows)

    def named(self) -> dict[str, Tensor]:
        """Name -> view of the weights, as a checkpoint stores them."""
        return {slot.name: self.view(self.values, slot) for slot in self.slots}

    def hash(self) -> str:
        """SHA-256 of all weights with their names and shapes."""
        return weights_hash(self.named())


def _is_matrix(name: str) -> bool:
    return name.endswith(("qkv", "output", "gate_up", "down"))
