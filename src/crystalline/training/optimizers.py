"""How weights change: Muon for matrices, AdamW or SGD for the rest, each in place over its range of the flat weights.

A range is divided into units: single matrices for Muon, chunks for the others. Each unit is updated by itself, so it
does not matter who updates which: any division of the units gives the same bits. State lies in flat tensors beside
the weights, so that it is shared, saved and resumed like them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from crystalline.settings import Optimizer as OptimizerSettings
from crystalline.training.parameters import FlatParameters, Matrix

MOMENTUM_AT_FIRST = 0.85  # of Muon, as in modded-nanogpt
CHUNK = 1 << 16  # weights in a unit that has no shape


@dataclass(frozen=True)
class Unit:
    """values[start:end], updated as a whole. cost: relative time it takes."""

    start: int
    end: int
    cost: float


class RangeOptimizer(ABC):
    """An optimizer of values[start:end] with its units.

    `state`: name -> flat tensor of end - start numbers, at first zero. They may be replaced by shared ones.
    `device`: where products of matrices are computed; a worker may set its own.
    """

    state_names: tuple[str, ...] = ()
    device = torch.device("cpu")

    def __init__(self, values: Tensor, start: int, end: int, rate: float) -> None:
        self.values, self.start, self.end, self.rate = values, start, end, rate
        self.state = {name: torch.zeros(end - start) for name in self.state_names}
        self.units = [Unit(a, min(a + CHUNK, end), min(CHUNK, end - a)) for a in range(start, end, CHUNK)]

    @abstractmethod
    def step(self, unit: Unit, g: Tensor, share: float, number: int) -> None:
        """Update a unit. g: its flat gradient; share: of the peak rate; number: of the update, from 1."""

    def touched(self, unit: Unit) -> list[Tensor]:
        """Everything that `step` changes: the unit's weights and state."""
        return [self.values[unit.start : unit.end], *(self._state(name, unit) for name in self.state_names)]

    def _state(self, name: str, unit: Unit) -> Tensor:
        return self.state[name][unit.start - self.start : unit.end - self.start]


class AdamW(RangeOptimizer):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv 1711.05101)."""

    state_names = ("mean", "square")

    def __init__(self, values: Tensor, start: int, end: int, rate: float, s: OptimizerSettings, decay: float) -> None:
        super().__init__(values, start, end, rate)
        self.beta1, self.beta2, self.epsilon, self.decay = s.beta1, s.beta2, s.epsilon, decay

    def step(self, unit: Unit, g: Tensor, share: float, number: int) -> None:
        weights, mean, square = self.touched(unit)
        rate = self.rate * share
        weights.mul_(1 - rate * self.decay)
        mean.lerp_(g, 1 - self.beta1)
        square.mul_(self.beta2).addcmul_(g, g, value=1 - self.beta2)
        divisor = (square / (1 - self.beta2**number)).sqrt_().add_(self.epsilon)
        weights.addcdiv_(mean, divisor, value=-rate / (1 - self.beta1**number))


class SGD(RangeOptimizer):
    """Stochastic gradient descent with momentum and coupled weight decay, as torch.optim.SGD."""

    state_names = ("momentum",)

    def __init__(self, values: Tensor, start: int, end: int, rate: float, s: OptimizerSettings, decay: float) -> None:
        super().__init__(values, start, end, rate)
        self.momentum, self.decay = s.momentum, decay

    def step(self, unit: Unit, g: Tensor, share: float, number: int) -> None:
        weights, velocity = self.touched(unit)
        g = g.add(weights, alpha=self.decay)
        if number == 1:
            velocity.copy_(g)  # torch starts with the gradient itself
        else:
            velocity.mul_(self.momentum).add_(g)
        weights.add_(velocity, alpha=-self.rate * share)


class Muon(RangeOptimizer):
    """Momentum whose update is made orthogonal, matrix by matrix (Jordan et al. 2024, "Muon").

    The rate is for square matrices; taller ones get sqrt(rows / columns) of it, as in torch.optim.Muon. A unit is one
    matrix: batching several would be a little faster, but the bits would then depend on who owns which.
    """

    state_names = ("momentum",)

    def __init__(self, parameters: FlatParameters, rate: float, s: OptimizerSettings, dtype: torch.dtype) -> None:
        super().__init__(parameters.values, parameters.matrices_from, parameters.values.numel(), rate)
        self.momentum, self.warmup, self.decay, self.dtype = s.momentum, s.momentum_warmup, s.weight_decay, dtype
        # The iteration multiplies min(rows, columns) times per weight; reading and writing cost about 64 of these.
        self.units = [Unit(m.start, m.end, m.size * (1 + min(m.rows, m.columns) / 64)) for m in parameters.matrices]
        self._matrices: dict[int, Matrix] = {m.start: m for m in parameters.matrices}

    def step(self, unit: Unit, g: Tensor, share: float, number: int) -> None:
        matrix = self._matrices[unit.start]
        weights, velocity = self.touched(unit)
        rate, momentum = self.rate * share, self.momentum_at(number)
        velocity.lerp_(g, 1 - momentum)
        update = torch.lerp(g, velocity, momentum).view(matrix.rows, matrix.columns)  # Nesterov
        direction = orthogonalize(update.to(self.device), self.dtype).to(update.device).reshape(-1)
        scale = -rate * max(1.0, matrix.rows / matrix.columns) ** 0.5
        weights.mul_(1 - rate * self.decay).add_(direction, alpha=scale)

    def momentum_at(self, number: int) -> float:
        """Of update `number`, from 1. Early gradients soon point elsewhere, so older ones count less."""
        start = min(MOMENTUM_AT_FIRST, self.momentum)
        return start + (self.momentum - start) * (min(1.0, number / self.warmup) if self.warmup else 1.0)


def orthogonalize(matrix: Tensor, dtype: torch.dtype, iterations: int = 5) -> Tensor:
    """The nearest (semi-)orthogonal matrix, roughly: singular values end between 0.7 and 1.2.

    Newton-Schulz with the quintic of Jordan et al. 2024. matrix: (rows, columns) fp32; computed in `dtype`.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix.to(dtype)
    tall = x.shape[0] > x.shape[1]
    if tall:
        x = x.mT.contiguous()
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(iterations):
        gram = x @ x.mT
        polynomial = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.addmm(x, polynomial, x, beta=a)
    return (x.mT if tall else x).float()


def make(parameters: FlatParameters, s: OptimizerSettings, dtype: torch.dtype) -> list[RangeOptimizer]:
    """The optimizers of a run: one for tables and gains, one for matrices.

    s: settled settings (both rates are numbers). dtype: of Muon's iteration.
    """
    assert s.learning_rate is not None
    assert s.embedding_learning_rate is not None
    values, middle, end = parameters.values, parameters.matrices_from, parameters.values.numel()
    if s.name == "sgd":
        return [
            SGD(values, 0, middle, s.embedding_learning_rate, s, 0.0),
            SGD(values, middle, end, s.learning_rate, s, s.weight_decay),
        ]
    tables = AdamW(values, 0, middle, s.embedding_learning_rate, s, 0.0)
    if s.name == "muon":
        return [tables, Muon(parameters, s.learning_rate, s, dtype)]
    return [tables, AdamW(values, middle, end, s.learning_rate, s, s.weight_decay)]
