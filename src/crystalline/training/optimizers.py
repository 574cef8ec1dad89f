"""How weights change: Muon for matrices, AdamW or SGD for the rest, each in place over a range of the flat weights.

A step is given the whole gradient (already summed and clipped) and the schedule's share of the peak rate.
State lives in flat tensors beside the weights, so that it is saved, resumed and later divided like them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict

import torch
from torch import Tensor

from crystalline.settings import Optimizer as OptimizerSettings
from crystalline.training.parameters import FlatParameters


class RangeOptimizer(ABC):
    """An optimizer of values[start:end]. `state`: name -> flat tensor of that length."""

    def __init__(self, values: Tensor, start: int, end: int, rate: float, state_names: tuple[str, ...]) -> None:
        self.values, self.start, self.end, self.rate = values, start, end, rate
        self.state = {name: torch.zeros(end - start) for name in state_names}

    @abstractmethod
    def step(self, gradient: Tensor, share: float, number: int) -> None:
        """Update the range. gradient: (n,) of all weights; share of the peak rate; number: 1, 2, 3, ..."""


class AdamW(RangeOptimizer):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv 1711.05101)."""

    def __init__(self, values: Tensor, start: int, end: int, rate: float, s: OptimizerSettings, decay: float) -> None:
        super().__init__(values, start, end, rate, ("mean", "square"))
        self.beta1, self.beta2, self.epsilon, self.decay = s.beta1, s.beta2, s.epsilon, decay

    def step(self, gradient: Tensor, share: float, number: int) -> None:
        weights, g = self.values[self.start : self.end], gradient[self.start : self.end]
        mean, square = self.state["mean"], self.state["square"]
        rate = self.rate * share
        weights.mul_(1 - rate * self.decay)
        mean.lerp_(g, 1 - self.beta1)
        square.mul_(self.beta2).addcmul_(g, g, value=1 - self.beta2)
        divisor = (square / (1 - self.beta2**number)).sqrt_().add_(self.epsilon)
        weights.addcdiv_(mean, divisor, value=-rate / (1 - self.beta1**number))


class SGD(RangeOptimizer):
    """Stochastic gradient descent with momentum and coupled weight decay, as torch.optim.SGD."""

    def __init__(self, values: Tensor, start: int, end: int, rate: float, s: OptimizerSettings, decay: float) -> None:
        super().__init__(values, start, end, rate, ("momentum",))
        self.momentum, self.decay = s.momentum, decay

    def step(self, gradient: Tensor, share: float, number: int) -> None:
        weights = self.values[self.start : self.end]
        g = gradient[self.start : self.end].add(weights, alpha=self.decay)
        velocity = self.state["momentum"]
        if number == 1:
            velocity.copy_(g)  # torch starts with the gradient itself
        else:
            velocity.mul_(self.momentum).add_(g)
        weights.add_(velocity, alpha=-self.rate * share)


class Muon(RangeOptimizer):
    """Momentum whose update is made orthogonal, matrix by matrix (Jordan et al. 2024, kellerjordan.github.io).

    The rate is for square matrices; taller ones get sqrt(rows / columns) of it, as in torch.optim.Muon.
    """

    def __init__(self, parameters: FlatParameters, rate: float, s: OptimizerSettings, dtype: torch.dtype) -> None:
        start, end = parameters.matrices_from, parameters.values.numel()
        super().__init__(parameters.values, start, end, rate, ("momentum",))
        self.momentum, self.decay, self.dtype = s.momentum, s.weight_decay, dtype
        # Matrices of one shape go through the iteration together: few large products instead of many small.
        self._momentum = torch.zeros_like(parameters.values)
        self.state["momentum"] = self._momentum[start:end]
        self._update = torch.empty_like(parameters.values)
        by_shape: dict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        weights, updates = parameters.matrices(parameters.values), parameters.matrices(self._update)
        for weight, update in zip(weights, updates, strict=True):
            by_shape[weight.shape].append((weight, update))
        self._stacks = list(by_shape.values())

    def step(self, gradient: Tensor, share: float, number: int) -> None:
        g, velocity = gradient[self.start : self.end], self.state["momentum"]
        velocity.lerp_(g, 1 - self.momentum)
        torch.lerp(g, velocity, self.momentum, out=self._update[self.start : self.end])  # Nesterov
        rate = self.rate * share
        for stack in self._stacks:
            rows, columns = stack[0][0].shape
            scale = -rate * max(1.0, rows / columns) ** 0.5
            directions = orthogonalize(torch.stack([update for _, update in stack]), self.dtype)
            for (weight, _), direction in zip(stack, directions, strict=True):
                weight.mul_(1 - rate * self.decay).add_(direction, alpha=scale)


def orthogonalize(matrices: Tensor, dtype: torch.dtype, iterations: int = 5) -> Tensor:
    """The nearest (semi-)orthogonal matrices, roughly: singular values end between 0.7 and 1.2.

    Newton-Schulz with the quintic of Jordan et al. 2024. matrices: (count, rows, columns); computed in `dtype`.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrices.to(dtype)
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(iterations):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return (x.mT if tall else x).float()


def make(parameters: FlatParameters, s: OptimizerSettings, dtype: torch.dtype) -> list[RangeOptimizer]:
    """The optimizers of a run: one for tables and gains, one for matrices.

    s: settled settings (both rates are numbers). dtype: of Muon's iteration.
    """
    assert s.learning_rate is not None
    assert s.embedding_learning_rate is not None
    values, middle = parameters.values, parameters.matrices_from
    tables: RangeOptimizer
    matrices: RangeOptimizer
    if s.name == "sgd":
        tables = SGD(values, 0, middle, s.embedding_learning_rate, s, 0.0)
        matrices = SGD(values, middle, values.numel(), s.learning_rate, s, s.weight_decay)
        return [tables, matrices]
    tables = AdamW(values, 0, middle, s.embedding_learning_rate, s, 0.0)
    if s.name == "muon":
        matrices = Muon(parameters, s.learning_rate, s, dtype)
    else:
        matrices = AdamW(values, middle, values.numel(), s.learning_rate, s, s.weight_decay)
    return [tables, matrices]
