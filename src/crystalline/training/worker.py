"""A worker process and the sphere in it: positions into its own sum, then its units of the update.

A sphere does what Node Zero says, one order at a time, with one thread, and never waits for another sphere or takes a
lock. When Node Zero is gone, its pipe ends, and so does the worker.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch

from crystalline import processes
from crystalline.training import device, position, process
from crystalline.training.batches import Batches
from crystalline.training.exact_sum import ExactSum, add_up, combine
from crystalline.training.parameters import WorkingCopy
from crystalline.training.position import PositionResult
from crystalline.training.workspace import CHANGED, CHANGING, TOTAL, Workspace


class Sphere:
    """What one worker computes, in the numbers of a `Workspace`. number: which sum and undo space are its own.

    On a device of its own it has a copy of the weights there, brought in for each step, and adds its positions up
    there; `deliver` brings the sum out.
    """

    def __init__(self, workspace: Workspace, batches: Batches, number: int) -> None:
        self.workspace, self.batches, self.number = workspace, batches, number
        self.device = workspace.devices[number % len(workspace.devices)] if workspace.devices else None
        shared = workspace.sum_of(number)
        if self.device is not None:
            device.prepare(self.device)
            for optimizer in workspace.optimizers:
                optimizer.device = self.device
            if workspace.objective is not None and workspace.objective.score is not None:
                workspace.objective.score.to(self.device)
        self._copy = WorkingCopy(workspace.model, workspace.parameters, self.device)
        self._sum = ExactSum(shared if self.device is None else torch.zeros_like(shared, device=self.device))

    @property
    def summing(self) -> float:
        """Seconds spent with the exact sum so far."""
        return self._sum.seconds

    def compute(
        self, step: int, place: int, targets_in_step: int, first: bool, frugal: bool = False
    ) -> PositionResult:
        """Add position `place` of `step` to this sphere's sum.

        first: of this sphere in this step: the weights are new, and the sum is empty before. frugal: with less
        memory, in more time.
        """
        if first:
            self._copy.refresh()
            self._sum.clear()
        objective = self.workspace.objective
        term = objective.at(step) if objective is not None else None
        return position.compute(self._copy, self.batches, step, place, targets_in_step, self._sum, frugal, term)

    def deliver(self) -> None:
        """Bring the sum to where other spheres see it. Those of the processor add to it there already."""
        if self.device is not None:
            self.workspace.sum_of(self.number).copy_(self._sum.total)

    def total(self, units: Sequence[int], spheres: Sequence[int]) -> None:
        """Add the sums of `spheres` up, for `units`: the total, to which other machines' are added."""
        w = self.workspace
        sums, seconds = [w.sum_of(sphere) for sphere in spheres], w.memory["seconds.total"]
        for number in units:
            began = time.perf_counter()
            unit = w.units[number][1]
            add_up([total[unit.start : unit.end] for total in sums], w.sum_of(TOTAL)[unit.start : unit.end])
            seconds[number] = time.perf_counter() - began

    def reduce(self, units: Sequence[int], spheres: Sequence[int]) -> None:
        """Combine the sums of `spheres` into the gradient of `units`, and note the squares of its norm."""
        w = self.workspace
        sums = [w.sum_of(sphere) for sphere in spheres]
        squares, seconds = w.memory["squares"], w.memory["seconds.reduce"]
        for number in units:
            began = time.perf_counter()
            unit = w.units[number][1]
            part = w.gradient[unit.start : unit.end]
            squares[number] = combine([total[unit.start : unit.end] for total in sums], part)
            seconds[number] = time.perf_counter() - began

    def update(self, units: Sequence[int], clip: float, share: float, number: int) -> None:
        """Change the weights of `units` by the gradient times `clip`. Ready to be undone at any moment."""
        w = self.workspace
        marks, undo, seconds = w.memory["marks"], w.memory[f"undo.{self.number}"], w.memory["seconds.update"]
        for index in units:
            began = time.perf_counter()
            optimizer, unit = w.units[index]
            offset = 0
            for tensor in optimizer.touched(unit):
                undo[offset : offset + tensor.numel()] = tensor
                offset += tensor.numel()
            marks[index] = CHANGING + self.number
            g = w.gradient[unit.start : unit.end]
            optimizer.step(unit, g if clip == 1.0 else g * clip, share, number)
            marks[index] = CHANGED
            seconds[index] = time.perf_counter() - began


@dataclass(frozen=True)
class Answer:
    """What a worker says when it has done an order.

    result: of the order, or the exception that it ended with. In seconds, one after the other without a gap: waited,
    since the answer before; busy, with the order; summing: the part of that spent with the exact sum. memory: the
    process's peak in bytes, pages that it shares counted in full.
    """

    result: Any
    waited: float
    busy: float
    summing: float
    memory: int


def main(
    pipe: Connection, others: list[Connection], workspace: Workspace, batches: Batches, number: int, began: float
) -> None:
    """The life of a worker process, forked from Node Zero: follow orders, (name, arguments), and answer each.

    Its first answer says that it is there. others: ends of pipes that belong to Node Zero; while a worker held them,
    nobody would notice its death. began: when it was started, by the monotonic clock.
    """
    process.be_child()
    for other in others:
        other.close()
    process.prepare()
    try:
        sphere = Sphere(workspace, batches, number)
    except Exception as error:  # there is too little memory, or the GPU does not start
        pipe.send(Answer(processes.portable(error), 0.0, time.monotonic() - began, 0.0, _peak_memory()))
        os._exit(1)
    orders: dict[str, Callable[..., Any]] = {
        "compute": sphere.compute,
        "deliver": sphere.deliver,
        "total": sphere.total,
        "reduce": sphere.reduce,
        "update": sphere.update,
    }
    result: Any = "ready"
    waited, summed = 0.0, 0.0
    while True:
        done = time.monotonic()
        try:
            pipe.send(Answer(result, waited, done - began, sphere.summing - summed, _peak_memory()))
            name, arguments = pipe.recv()
        except (EOFError, OSError):
            os._exit(0)  # Node Zero is gone or done with us; nothing of its state here may run its exit handlers
        began = time.monotonic()
        waited, summed = began - done, sphere.summing
        try:
            result = orders[name](*arguments)
        except Exception as error:  # told to Node Zero, which decides; the worker stays usable
            result = processes.portable(error)


def _peak_memory() -> int:
    """Bytes; the kernel of macOS counts in bytes, others in kB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
