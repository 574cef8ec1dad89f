"""The numbers of a training run, in memory that its processes share.

All large tensors lie in one `Workspace`: the weights, which nobody changes while positions are computed; a sum of
gradients for each sphere; the optimizers' state, of which each sphere updates the units it is told to.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from crystalline.model.objective import Objective
from crystalline.model.transformer import Transformer
from crystalline.training import optimizers
from crystalline.training.memory import Field, SharedMemory
from crystalline.training.optimizers import RangeOptimizer, Unit
from crystalline.training.parameters import FlatParameters
from crystalline.training.recipe import Recipe

# What `marks` says of a unit during an update; CHANGING + s: sphere s is at it, and its old numbers are in undo.s.
UNTOUCHED, CHANGED, CHANGING = 0, 1, 2
TOTAL = -1  # in place of a sphere's number: the sum of all spheres here, where other machines have some too


class Workspace:
    """Weights, gradient, sums, optimizer state: the same bytes for all processes forked after it was made.

    model: its weights move into the workspace; it sees them from then on.
    spheres: for how many there is a sum. Pages of sums that nobody uses cost nothing.
    objective: what is minimised besides the cross-entropy, if anything.
    devices: what they compute positions on, in turn; none: the processor, in this memory.
    """

    def __init__(
        self,
        model: Transformer,
        recipe: Recipe,
        spheres: int,
        objective: Objective | None = None,
        devices: Sequence[torch.device] = (),
    ) -> None:
        self.model, self.recipe, self.spheres = model, recipe, spheres
        self.objective, self.devices = objective, devices
        private = FlatParameters(model)
        makers = optimizers.make(private, recipe.settings.optimizer, recipe.update_dtype)
        self.memory = memory = SharedMemory(_fields(private.values.numel(), makers, spheres))
        memory["weights"].copy_(private.values)
        self.parameters = FlatParameters(model, memory["weights"])
        self.gradient = memory["gradient"]
        self.optimizers = optimizers.make(self.parameters, recipe.settings.optimizer, recipe.update_dtype)
        for index, optimizer in enumerate(self.optimizers):
            optimizer.state = {name: memory[f"state.{index}.{name}"] for name in optimizer.state_names}
        self.units: list[tuple[RangeOptimizer, Unit]] = [(o, unit) for o in self.optimizers for unit in o.units]

    def sum_of(self, sphere: int) -> Tensor:
        """(n,) int64: the positions that a sphere (or TOTAL) has added in this step."""
        return self.memory[f"sum.{sphere}"]

    def undo(self, sphere: int) -> None:
        """Put back the units that a sphere was changing when it died."""
        marks = self.memory["marks"]
        for number in (marks == CHANGING + sphere).nonzero().flatten().tolist():
            optimizer, unit = self.units[number]
            saved, offset = self.memory[f"undo.{sphere}"], 0
            for tensor in optimizer.touched(unit):
                tensor.copy_(saved[offset : offset + tensor.numel()])
                offset += tensor.numel()
            marks[number] = UNTOUCHED


def _fields(size: int, makers: list[RangeOptimizer], spheres: int) -> list[Field]:
    """Names, shapes and types of the shared tensors."""
    units = [(o, unit) for o in makers for unit in o.units]
    largest = max((unit.end - unit.start) * (1 + len(o.state_names)) for o, unit in units)
    fields = [Field("weights", (size,), torch.float32), Field("gradient", (size,), torch.float32)]
    fields += [
        Field(f"state.{index}.{name}", (o.end - o.start,), torch.float32)
        for index, o in enumerate(makers)
        for name in o.state_names
    ]
    fields += [Field("squares", (len(units),), torch.float64), Field("marks", (len(units),), torch.int32)]
    # How long each unit took last time: by it the units are divided among the workers.
    fields += [Field(f"seconds.{order}", (len(units),), torch.float64) for order in ("total", "reduce", "update")]
    fields += [Field(f"sum.{TOTAL}", (size,), torch.int64)]
    for sphere in range(spheres):
        fields += [Field(f"sum.{sphere}", (size,), torch.int64), Field(f"undo.{sphere}", (largest,), torch.float32)]
    return fields
