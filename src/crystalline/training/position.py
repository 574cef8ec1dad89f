"""One position of a step: the gradient of its micro-batches, a pure function of weights, seed, step and position.

It is computed by one thread from start to end: two threads would add in an order of their own and change the bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from crystalline.model.objective import Term
from crystalline.training.batches import Batches
from crystalline.training.exact_sum import LARGEST_NORM, ExactSum
from crystalline.training.parameters import WorkingCopy

# What an fp16 loss is multiplied by, so that small gradients do not vanish: the first at which none overflows. Always
# beginning with the largest, so that no position depends on what was computed before it.
FP16_SCALES = (2.0**16, 2.0**12, 2.0**8, 2.0**4, 1.0)


@dataclass(frozen=True)
class PositionResult:
    """loss: what was differentiated, summed over the position's targets (nats). gradient_norm: of its share of the
    step, at most.
    """

    loss: float
    gradient_norm: float

    @property
    def sound(self) -> bool:
        """Finite, and small enough for the exact sum. If not, the whole step's sum is of no use."""
        return math.isfinite(self.loss) and self.gradient_norm <= LARGEST_NORM


def compute(
    copy: WorkingCopy,
    batches: Batches,
    step: int,
    position: int,
    targets_in_step: int,
    total: ExactSum,
    frugal: bool = False,
    term: Term | None = None,
) -> PositionResult:
    """Add d(mean loss of the step)/d(weights), this position's share, to `total`.

    targets_in_step: what the loss is divided by, so that the shares of all positions add up to the gradient.
    frugal: take less memory and more time, for the same bits (see `Transformer.hidden`).
    term: what is minimised besides the cross-entropy.
    """
    loss = norm = 0.0
    for part in range(batches.accumulation):
        tokens, targets = (torch.from_numpy(x).to(copy.device) for x in batches.micro_batch_at(step, position, part))
        for scale in FP16_SCALES if copy.model.dtype == torch.float16 else (1.0,):
            copy.model.zero_grad(set_to_none=True)
            part_loss = copy.model.loss(tokens, targets, frugal, term)
            (part_loss / targets_in_step * scale).backward()
            if scale == 1.0 or copy.finite():
                break
        loss += part_loss.item()
        norm += total.add(copy.gradients(), scale)  # a bound of the whole, so that no element can overflow the sum
    return PositionResult(loss, norm)
