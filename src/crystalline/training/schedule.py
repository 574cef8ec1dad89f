"""The learning rate over a run, as a share of its peak: a pure function of the step."""

from __future__ import annotations

import math

from crystalline.settings import Scheduler


def rate_at(step: int, steps: int, scheduler: Scheduler) -> float:
    """The share of the peak rate used by step `step` (0-based) of `steps`.

    It rises linearly over the warmup, stays, and falls over the cool-down to `minimum`: linearly, or as half a
    cosine (a cool-down of 1 - warmup is the usual cosine schedule). "constant" does not fall. "step" is multiplied by
    `step_factor` at each of the shares `step_at` of the run instead, down to `minimum` at most.
    """
    warmup = round(scheduler.warmup * steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if scheduler.name == "step":
        falls = sum(step >= round(share * steps) for share in scheduler.step_at)
        return max(scheduler.minimum, scheduler.step_factor**falls)
    cooldown = min(round(scheduler.cooldown * steps), steps - warmup)
    left = steps - step  # steps still to do, this one included
    if scheduler.name == "constant" or left > cooldown:
        return 1.0
    share = left / (cooldown + 1)
    if scheduler.name == "cosine":
        share = 0.5 * (1 - math.cos(math.pi * share))
    return scheduler.minimum + (1 - scheduler.minimum) * share
