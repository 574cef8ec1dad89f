"""What training can minimise besides the cross-entropy, with a weight that falls to zero: the crystalline objective.

Each term is a proper score of the prediction, or the cross-entropy of a coarser question, so that it pulls towards
what the data say; and it is gone before the end, so that what is learned last is the cross-entropy alone. Evaluations
never count it. What each gives is measured in docs/lattice.md.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from crystalline.settings import Objective as ObjectiveSettings
from crystalline.tokens import relations
from crystalline.tokens.codes import TokenCodes
from crystalline.tokens.similarity import CrystallineKernel
from crystalline.tokens.tokenizer import Tokenizer

SHARED, CLOSE = 0.7, 0.3  # of the crystalline kernel
KERNEL_EVERY = 16  # of the kernel score, which costs V x families a token, only every 16th token is asked


class Score(ABC):
    """Something else that a prediction is asked. Made once for a run."""

    @abstractmethod
    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Sum over all targets that are not negative, in nats. logits: (N, V) fp32; targets: (N,) int64."""

    def to(self, device: torch.device) -> None:
        """Be asked there from now on."""
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(self, name, value.to(device))


@dataclass(frozen=True)
class Term:
    """A score and its weight in one step."""

    score: Score
    weight: float

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        seen = targets >= 0
        return self.weight * self.score(logits[seen], targets[seen])


class PrefixScore(Score):
    """-ln p(the longest other token that the target begins with), where there is one.

    Improper, hence only for the beginning of a run (modded-nanogpt, pull request 337, 2026).
    """

    def __init__(self, beginnings: NDArray[np.int64]) -> None:
        self.beginnings = torch.from_numpy(beginnings)

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        begins = self.beginnings[targets]
        return F.cross_entropy(logits, torch.where(begins == targets, -100, begins), reduction="sum")


class RootScore(Score):
    """-ln p(the target's family): the cross-entropy of the coarser question which root comes next. Proper."""

    def __init__(self, roots: NDArray[np.int64]) -> None:
        self.roots = torch.from_numpy(roots)

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        others = self.roots != self.roots[targets].unsqueeze(1)
        return (logits.logsumexp(1) - logits.masked_fill(others, -math.inf).logsumexp(1)).sum()


class KernelScore(Score):
    """The kernel score 1/2 (p - y)' K (p - y) of the crystalline kernel K = 0.7 shared + 0.3 closeness.

    shared: the cosine of the tokens' prime factors, as in `tokens.similarity.CrystallineKernel`. closeness: 1 / (1 +
    distance) of their families' places on the golden-angle spiral; forms stand where their root does, which keeps the
    matrix small. Both are positive semidefinite, so the score is proper (Gneiting & Raftery 2007, "Strictly proper
    scoring rules", section 5).
    """

    def __init__(self, codes: TokenCodes, roots: NDArray[np.int64]) -> None:
        kernel = CrystallineKernel(codes, SHARED, CLOSE)
        indices, offsets, values = kernel.features()
        self.columns = torch.from_numpy(indices)
        self.tokens = torch.arange(len(offsets) - 1).repeat_interleave(torch.from_numpy(np.diff(offsets)))
        self.weights, self.factors = torch.from_numpy(values).unsqueeze(1), int(indices.max()) + 1
        self.roots, self.families = torch.from_numpy(roots), int(roots.max()) + 1
        rank = torch.arange(self.families, dtype=torch.float64)
        plane = torch.view_as_real(torch.polar(rank.sqrt(), rank * relations.GOLDEN_ANGLE))
        self.closeness = 1 / (1 + torch.cdist(plane, plane)).float()

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        asked = slice(0, None, KERNEL_EVERY)
        share = len(targets) / max(1, len(targets[asked]))
        logits, targets = logits[asked], targets[asked]
        off = (logits.softmax(1) - F.one_hot(targets, logits.shape[1])).T  # (V, n)
        mass = off.new_zeros(self.factors, off.shape[1]).index_add(0, self.columns, off[self.tokens] * self.weights)
        of_family = off.new_zeros(self.families, off.shape[1]).index_add(0, self.roots, off)
        close = (of_family * (self.closeness @ of_family)).sum()
        return 0.5 * share * (SHARED * mass.square().sum() + CLOSE * close)


class Objective:
    """The term of each step: a pure function of the settings, the tokens and the step."""

    def __init__(self, settings: ObjectiveSettings, steps: int, score: Score | None) -> None:
        self.settings, self.steps, self.score = settings, steps, score

    @classmethod
    def of(cls, settings: ObjectiveSettings, steps: int, tokenizer: Tokenizer, codes: TokenCodes) -> Objective:
        """What `settings` ask for, over a run of `steps`."""
        score: Score | None = None
        if settings.name == "prefix":
            score = PrefixScore(relations.beginnings(tokenizer))
        elif settings.name == "roots":
            score = RootScore(relations.roots(codes))
        elif settings.name == "kernel":
            score = KernelScore(codes, relations.roots(codes))
        return cls(settings, steps, score)

    def at(self, step: int) -> Term | None:
        """The term in step `step` (from 0): its weight falls in a straight line; None once it is gone."""
        weight = self.settings.weight * (1 - step / (self.settings.until * self.steps))
        return Term(self.score, weight) if self.score is not None and weight > 0 else None
