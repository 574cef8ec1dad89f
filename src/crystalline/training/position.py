"""One position of a step: the gradient of its micro-batches, a pure function of weights, seed, step and position.

It is computed by one thread from start to end: two threads would add in an order of their own and change the bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from crystalline.model.transformer import Transformer
from crystalline.training.batches import Batches
from crystalline.training.exact_sum import LARGEST_NORM, norm
from crystalline.training.parameters import FlatParameters


@dataclass(frozen=True)
class PositionResult:
    """loss: sum of -ln p over the position's targets (nats). gradient_norm: of its share of the step."""

    loss: float
    gradient_norm: float

    @property
    def sound(self) -> bool:
        """Finite, and small enough for the exact sum."""
        return math.isfinite(self.loss) and self.gradient_norm <= LARGEST_NORM


def compute(model: Transformer, batches: Batches, step: int, position: int, targets_in_step: int) -> PositionResult:
    """Leave d(mean loss of the step)/d(weights), this position's share, in the parameters' `.grad`.

    targets_in_step: what the loss is divided by, so that the shares of all positions add up to the gradient.
    """
    model.zero_grad(set_to_none=True)
    loss = 0.0
    for part in range(batches.accumulation):
        tokens, targets = batches.micro_batch_at(step, position, part)
        part_loss = model.loss(torch.from_numpy(tokens), torch.from_numpy(targets))
        (part_loss / targets_in_step).backward()
        loss += part_loss.item()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return PositionResult(loss, norm(gradients))


def pieces(parameters: FlatParameters) -> Iterator[tuple[int, Tensor]]:
    """(offset in the flat tensor, gradient) of every parameter that has one."""
    for slot, parameter in zip(parameters.slots, parameters.parameters, strict=True):
        if parameter.grad is not None:
            yield slot.offset, parameter.grad
