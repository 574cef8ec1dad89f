"""The terms beside the cross-entropy: their values written out, their gradients, and that they are proper."""

import math

import numpy as np
import pytest
import torch

from crystalline.model.objective import KERNEL_EVERY, KernelScore, Objective, PrefixScore, RootScore, Term
from crystalline.settings import Objective as ObjectiveSettings
from crystalline.tokens import relations
from crystalline.tokens.codes import TokenCodes
from crystalline.tokens.similarity import CrystallineKernel
from crystalline.tokens.tokenizer import Tokenizer

TEXT = "the run runs and the runner is running to run again; Run and RUN and runs " * 40


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train([TEXT], 320)


@pytest.fixture(scope="module")
def codes(tokenizer: Tokenizer) -> TokenCodes:
    return TokenCodes.build(tokenizer)


def some(size: int, rows: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(rows, size, generator=generator), torch.randint(0, size, (rows,), generator=generator)


def test_roots(codes: TokenCodes) -> None:
    roots = relations.roots(codes)
    logits, targets = some(len(roots))
    p = logits.double().softmax(1).numpy()
    wanted = -sum(math.log(p[i][roots == roots[t]].sum()) for i, t in enumerate(targets.tolist()))
    assert float(RootScore(roots)(logits, targets)) == pytest.approx(wanted, rel=1e-5)


def test_beginnings(tokenizer: Tokenizer) -> None:
    begins = relations.beginnings(tokenizer)
    every = {tokenizer.token_bytes(t) for t in range(tokenizer.vocabulary_size)}
    for token, begin in enumerate(begins.tolist()):
        text, found = tokenizer.token_bytes(token), tokenizer.token_bytes(begin)
        longer = [text[:n] for n in range(len(text) - 1, 0, -1) if text[:n] in every]
        assert (begin == token) if not longer else found == longer[0]
    assert (begins != np.arange(len(begins))).sum() > 10


def test_prefix(tokenizer: Tokenizer) -> None:
    begins = relations.beginnings(tokenizer)
    logits, targets = some(len(begins), 200)
    p = logits.double().softmax(1)
    wanted = -sum(math.log(p[i, begins[t]]) for i, t in enumerate(targets.tolist()) if begins[t] != t)
    assert float(PrefixScore(begins)(logits, targets)) == pytest.approx(wanted, rel=1e-5)


def kernel_matrix(score: KernelScore, size: int) -> torch.Tensor:
    incidence = torch.zeros(size, score.factors)
    incidence[score.tokens, score.columns] = score.weights.squeeze(1)
    return (0.7 * incidence @ incidence.T + 0.3 * score.closeness[score.roots][:, score.roots]).double()


def test_kernel(codes: TokenCodes) -> None:
    score, size = KernelScore(codes, relations.roots(codes)), codes.vocabulary_size
    kernel = kernel_matrix(score, size)
    shared = torch.from_numpy(CrystallineKernel(codes, 1.0, 0.0).rows(np.arange(size)))
    families = score.closeness[score.roots][:, score.roots]
    assert torch.allclose(kernel, 0.7 * shared + 0.3 * families, atol=1e-5)
    assert torch.allclose(kernel.diagonal(), torch.ones(size).double(), atol=1e-5)
    assert torch.linalg.eigvalsh(kernel)[0] > -1e-6  # positive semidefinite
    logits, targets = some(size, 2 * KERNEL_EVERY)
    asked = [0, KERNEL_EVERY]
    off = logits[asked].double().softmax(1) - torch.eye(size).double()[targets[asked]]
    wanted = KERNEL_EVERY * 0.5 * ((off @ kernel) * off).sum()
    assert float(score(logits, targets)) == pytest.approx(float(wanted), rel=1e-4)


@pytest.mark.parametrize("name", ["roots", "kernel"])
def test_proper(name: str, tokenizer: Tokenizer, codes: TokenCodes) -> None:
    """Nothing predicted scores better, on average over what comes, than what truly comes."""
    score = Objective.of(ObjectiveSettings(name=name), 10, tokenizer, codes).score
    assert score is not None
    size, generator = codes.vocabulary_size, torch.Generator().manual_seed(2)
    truth = torch.randn(size, generator=generator)
    targets, share = torch.arange(size), truth.softmax(0)

    def expected(logits: torch.Tensor) -> float:
        return sum(float(share[t] * score(logits.unsqueeze(0), targets[t : t + 1])) for t in range(size))

    best = expected(truth)
    for _ in range(5):
        assert expected(truth + torch.randn(size, generator=generator)) > best


@pytest.mark.parametrize("name", ["prefix", "roots", "kernel"])
def test_gradient(name: str, tokenizer: Tokenizer, codes: TokenCodes) -> None:
    """The derivative along a random direction is that of the value; padding counts nothing."""
    score = Objective.of(ObjectiveSettings(name=name), 10, tokenizer, codes).score
    assert score is not None
    term = Term(score, 0.5)
    logits, targets = some(codes.vocabulary_size, 40)
    targets[7] = -100
    logits.requires_grad_()
    term(logits, targets).backward()
    assert logits.grad is not None
    assert logits.grad[7].abs().sum() == 0
    direction, step = logits.grad / logits.grad.norm(), 0.1
    with torch.no_grad():
        slope = (term(logits + step * direction, targets) - term(logits - step * direction, targets)) / (2 * step)
    assert float(slope) == pytest.approx(float(logits.grad.norm()), rel=2e-2)


def test_the_weight_falls_to_nothing(tokenizer: Tokenizer, codes: TokenCodes) -> None:
    objective = Objective.of(ObjectiveSettings(name="roots", weight=0.3, until=0.5), 100, tokenizer, codes)
    weights = [term.weight if (term := objective.at(step)) else 0.0 for step in range(100)]
    assert weights[0] == 0.3
    assert weights[25] == pytest.approx(0.15)
    assert weights == sorted(weights, reverse=True)
    assert weights[50:] == [0.0] * 50
    assert all(Objective.of(ObjectiveSettings(), 100, tokenizer, codes).at(step) is None for step in range(100))
