"""What the evaluations of a run have said: the best one, and how long ago that was.

Early stopping must not depend on how fast an evaluation was: its result is acted on at the next evaluation step, no
sooner and no later. So this state is the same in every run of a recipe, and it is saved in every checkpoint.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass
class Evaluations:
    """best_step, best: the step and bits per byte of the best one. stale: evaluations since. pending: the step whose
    evaluation is under way. best_at_anchor: `best_step` when the checkpoint was made to which a rollback goes.
    ended: the length in steps of the run that was ended early; 0: it was not. ended_after: `stale` then."""

    best_step: int | None = None
    best: float | None = None
    stale: int = 0
    pending: int | None = None
    best_at_anchor: int | None = None
    ended: int = 0
    ended_after: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def result(self, step: int, bits_per_byte: float) -> bool:
        """Take the result of an evaluation; whether it is the best so far."""
        self.pending = None
        if self.best is None or bits_per_byte < self.best:
            self.best_step, self.best, self.stale = step, bits_per_byte, 0
            return True
        self.stale += 1
        return False

    def exhausted(self, patience: int) -> bool:
        """Whether `patience` evaluations in a row were no better. 0: never."""
        return 0 < patience <= self.stale

    @property
    def steps_kept(self) -> frozenset[int]:
        """Steps whose checkpoints are needed as the best ones."""
        return frozenset({self.best_step, self.best_at_anchor, self.pending} - {None})  # type: ignore[arg-type]
