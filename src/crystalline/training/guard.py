"""The guard: looks at every step before the weights change, and drops it when its numbers cannot be trusted.

A step is dropped when its loss or gradient is not a usable number, or when one of them jumps far above what the
steps before it had. Three in a row, and the fault is not in one batch: training goes back to the last good checkpoint
and leaves out the text that was tried since. Three times back, and it ends with advice.

All of it depends on the steps alone, never on time or on who computed what, and it is saved in every checkpoint: a
run that was killed and resumed drops the same steps as one that was not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

WINDOW = 128  # used steps that are remembered
ENOUGH = 32  # of them, before a jump can be told from the usual
SIGMAS = 10.0  # standard deviations above the mean, from which on a number is a spike
# The least standard deviation that is believed, so that normal runs lose no step: they were seen to have gradients of
# seven times the mean (13.8 sigma, AdamW), and single batches 0.7 nats harder than the mean. A gradient under 1 moves
# the weights no further than usual, and optimizer.clip_norm bounds the others.
LOSS_FLOOR = 0.1  # nats per token
NORM_FLOOR, NORM_FLOOR_SHARE = 0.1, 1.0  # absolute, and as a share of the mean
DROPS_IN_A_ROW = 3  # after which training goes back
ROLLBACKS = 3  # after which it ends
CALM = 1000  # used steps without a drop, after which earlier rollbacks are forgiven


@dataclass(frozen=True)
class Drop:
    """Why a step is dropped. numbers: what it was measured by, for the record."""

    reason: str
    numbers: dict[str, float] = field(default_factory=dict)


@dataclass
class Guard:
    """What the guard remembers: the state of a run as far as it is not weights.

    losses, norms: of the last used steps. drops: steps dropped in all; in_a_row: without a used one in between; calm:
    used steps since the last. rollbacks: that are not forgiven. skipped: how far the text is ahead of the steps.
    anchor: the step that a rollback goes to; before_anchor: the one before it.
    """

    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    drops: int = 0
    in_a_row: int = 0
    calm: int = 0
    rollbacks: int = 0
    skipped: int = 0
    anchor: int = 0
    before_anchor: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def judge(self, loss: float, norm: float) -> Drop | None:
        """None when the step may change the weights; it is then remembered. Else why it may not.

        loss: nats per token. norm: of the step's gradient; NaN when there is none to be had.
        """
        drop = self._fault(loss, norm)
        if drop is None:
            self.losses = [*self.losses, loss][-WINDOW:]
            self.norms = [*self.norms, norm][-WINDOW:]
            self.in_a_row = 0
            self.calm += 1
            if self.calm >= CALM:
                self.rollbacks = 0
        else:
            self.drops += 1
            self.in_a_row += 1
            self.calm = 0
        return drop

    def _fault(self, loss: float, norm: float) -> Drop | None:
        if not math.isfinite(loss):
            return Drop("the loss is not a finite number")
        if not math.isfinite(norm):
            return Drop("the gradient is not finite, or too large to be added")
        if len(self.losses) < ENOUGH:
            return None
        return _spike("loss", loss, self.losses, LOSS_FLOOR, 0.0) or _spike(
            "gradient norm", norm, self.norms, NORM_FLOOR, NORM_FLOOR_SHARE
        )

    def set_anchor(self, step: int) -> bool:
        """Let rollbacks go to `step`, whose checkpoint is being made. Not (False) while steps are dropped."""
        if self.in_a_row or step == self.anchor:
            return False
        self.anchor, self.before_anchor = step, self.anchor
        return True

    @property
    def hopeless(self) -> bool:
        """Whether going back once more would be too often."""
        return self.rollbacks + 1 >= ROLLBACKS

    def go_back(self, step: int, then: Guard) -> None:
        """Training goes from `step` back to the anchor, at which the guard was `then`.

        Steps are numbered anew from there, but no text is tried twice.
        """
        self.losses, self.norms, self.skipped = then.losses, then.norms, self.skipped + step - self.anchor
        self.before_anchor = then.before_anchor
        self.in_a_row, self.calm, self.rollbacks = 0, 0, self.rollbacks + 1


def _spike(name: str, value: float, before: Sequence[float], floor: float, share: float) -> Drop | None:
    """A drop when `value` is far above those `before`. floor, share: the least sigma, by itself and of the mean."""
    mean = math.fsum(before) / len(before)
    sigma = math.sqrt(math.fsum((x - mean) ** 2 for x in before) / len(before))
    sigma = max(sigma, floor, share * mean)
    sigmas = (value - mean) / sigma
    if sigmas <= SIGMAS:
        return None
    reason = f"the {name} {value:.4g} is {sigmas:.1f} sigma above the {mean:.4g} of the last {len(before)} steps"
    return Drop(reason, {"mean": mean, "sigma": sigma, "sigmas": sigmas})
