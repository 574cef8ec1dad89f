"""A worker process and the sphere in it: positions into its own sum, then its units of the update.

A sphere does what Node Zero says, one order at a time, with one thread, and never waits for another sphere or takes a
lock. When Node Zero is gone, its pipe ends, and so does the worker.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

import torch

from crystalline.training import position, process
from crystalline.training.batches import Batches
from crystalline.training.exact_sum import ExactSum, combine
from crystalline.training.position import PositionResult
from crystalline.training.workspace import CHANGED, CHANGING, Workspace


class Sphere:
    """What one worker computes, in the numbers of a `Workspace`. number: which sum and undo space are its own."""

    def __init__(self, workspace: Workspace, batches: Batches, number: int) -> None:
        self.workspace, self.batches, self.number = workspace, batches, number
        self._sum = ExactSum(workspace.sum_of(number))
        self._step = -1  # the step whose positions are in the sum

    def compute(self, step: int, place: int, targets_in_step: int) -> PositionResult:
        """Add position `place` of `step` to this sphere's sum."""
        if step != self._step:
            self._sum.clear()
            self._step = step
        result = position.compute(self.workspace.model, self.batches, step, place, targets_in_step)
        if result.sound:
            self._sum.add(position.pieces(self.workspace.parameters))
        return result

    def reduce(self, units: Sequence[int], spheres: Sequence[int]) -> None:
        """Combine the sums of `spheres` into the gradient of `units`, and note the squares of its norm."""
        w = self.workspace
        sums = [w.sum_of(sphere) for sphere in spheres]
        for number in units:
            unit = w.units[number][1]
            part = w.gradient[unit.start : unit.end]
            combine([total[unit.start : unit.end] for total in sums], part)
            w.memory["squares"][number] = torch.linalg.vector_norm(part, dtype=torch.float64) ** 2

    def update(self, units: Sequence[int], clip: float, share: float, number: int) -> None:
        """Change the weights of `units` by the gradient times `clip`. Ready to be undone at any moment."""
        w = self.workspace
        marks, undo = w.memory["marks"], w.memory[f"undo.{self.number}"]
        for index in units:
            optimizer, unit = w.units[index]
            offset = 0
            for tensor in optimizer.touched(unit):
                undo[offset : offset + tensor.numel()] = tensor
                offset += tensor.numel()
            marks[index] = CHANGING + self.number
            g = w.gradient[unit.start : unit.end]
            optimizer.step(unit, g if clip == 1.0 else g * clip, share, number)
            marks[index] = CHANGED


def main(
    pipe: Connection, others: list[Connection], workspace: Workspace, batches: Batches, number: int, core: int
) -> None:
    """The life of a worker process, forked from Node Zero: follow orders.

    An order is (name, arguments), its answer (result or exception, seconds it took, peak memory in bytes).
    others: ends of pipes that belong to Node Zero; while a worker held them, nobody would notice its death.
    core: the processor to stay on, or -1.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; Node Zero decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for other in others:
        other.close()
    process.die_with_parent()
    process.prepare()
    if core >= 0:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, {core})
    sphere = Sphere(workspace, batches, number)
    orders: dict[str, Callable[..., Any]] = {
        "compute": sphere.compute,
        "reduce": sphere.reduce,
        "update": sphere.update,
    }
    answer: Any = "ready"
    seconds = 0.0
    while True:
        try:
            pipe.send((answer, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))
            name, arguments = pipe.recv()
        except (EOFError, OSError):
            os._exit(0)  # Node Zero is gone or done with us; nothing of its state here may run its exit handlers
        began = time.monotonic()
        try:
            answer = orders[name](*arguments)
        except Exception as error:  # told to Node Zero, which decides; the worker stays usable
            answer = error
        seconds = time.monotonic() - began
