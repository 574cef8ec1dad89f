"""Each optimizer gives the reference library's numbers."""

import pytest
import torch

from crystalline.model.shape import Shape
from crystalline.model.transformer import Transformer
from crystalline.settings import Optimizer
from crystalline.training import optimizers
from crystalline.training.parameters import FlatParameters

SHAPE = Shape(vocabulary=40, layers=2, width=24, heads=3, kv_heads=1, head_width=8, hidden=32, context=8)


def flat_parameters() -> FlatParameters:
    model = Transformer(SHAPE)
    model.initialize(2)
    with torch.no_grad():
        for weight in model.parameters():  # the zero matrices too
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(4)) * 0.1)
    return FlatParameters(model)


def gradients(count: int, size: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(9)
    return [torch.randn(size, generator=generator) for _ in range(count)]


def matrices_of(parameters: FlatParameters, flat: torch.Tensor) -> list[torch.Tensor]:
    return [flat[m.start : m.end].view(m.rows, m.columns) for m in parameters.matrices]


def run_both(name: str, steps: int = 10, warming: bool = False):
    """Our weights and the reference's after the same gradients and rates; `warming`: Muon's momentum, in 4 steps."""
    ours = flat_parameters()
    s = Optimizer(
        name=name, learning_rate=0.03, embedding_learning_rate=0.02, weight_decay=0.1, momentum_warmup=4 * warming
    )
    steppers = optimizers.make(ours, s, torch.bfloat16)
    middle = ours.matrices_from
    tables = torch.nn.Parameter(ours.values[:middle].clone())
    matrices = [torch.nn.Parameter(m.clone()) for m in matrices_of(ours, ours.values)]
    if name == "sgd":
        theirs = [
            torch.optim.SGD([tables], lr=0.02, momentum=0.95),
            torch.optim.SGD(matrices, lr=0.03, momentum=0.95, weight_decay=0.1),
        ]
    else:
        adam = {"betas": (0.9, 0.95), "eps": 1e-8}
        theirs = [torch.optim.AdamW([tables], lr=0.02, weight_decay=0.0, **adam)]
        theirs += [
            torch.optim.AdamW(matrices, lr=0.03, weight_decay=0.1, **adam)
            if name == "adamw"
            else torch.optim.Muon(matrices, lr=0.03, momentum=0.95, weight_decay=0.1, nesterov=True)
        ]
    base = [group["lr"] for optimizer in theirs for group in optimizer.param_groups]
    for number, gradient in enumerate(gradients(steps, ours.values.numel()), 1):
        share = number / steps
        for optimizer, rate in zip(theirs, base, strict=True):
            optimizer.param_groups[0]["lr"] = rate * share
            if warming:
                optimizer.param_groups[0]["momentum"] = [0.875, 0.9, 0.925, 0.95][min(number, 4) - 1]
        tables.grad = gradient[:middle].clone()
        for matrix, grad in zip(matrices, matrices_of(ours, gradient), strict=True):
            matrix.grad = grad.clone()
        for optimizer in theirs:
            optimizer.step()
        for stepper in steppers:
            for unit in stepper.units:
                stepper.step(unit, gradient[unit.start : unit.end], share, number)
    return ours, tables.detach(), [m.detach() for m in matrices]


@pytest.mark.parametrize(
    ("name", "tolerance", "warming"),
    [("adamw", 1e-6, False), ("sgd", 1e-5, False), ("muon", 2e-2, False), ("muon", 2e-2, True)],
)
def test_equals_torch(name, tolerance, warming):
    """Muon iterates in bf16 (8 bits), so products of another order differ in the third digit."""
    ours, tables, matrices = run_both(name, warming=warming)
    scale = 1e-6 if name != "sgd" else 1e-5
    torch.testing.assert_close(ours.values[: ours.matrices_from], tables, rtol=scale, atol=scale)
    for mine, theirs in zip(matrices_of(ours, ours.values), matrices, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("shape", [(20, 12), (12, 20)])
def test_muon_in_fp32_is_the_written_iteration(shape):
    """The quintic applied to singular values, which is what the matrix iteration does to them."""
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    got = optimizers.orthogonalize(matrix, torch.float32)
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    s = s / torch.linalg.vector_norm(s)
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    torch.testing.assert_close(got, u * s @ v, rtol=1e-4, atol=1e-4)
    assert 0.6 < float(s.min()) < float(s.max()) < 1.3


def test_matrices_are_taken_apart():
    parameters = flat_parameters()
    shapes = [(m.rows, m.columns) for m in parameters.matrices]
    assert shapes == [(24, 24), (8, 24), (8, 24), (24, 24), (32, 24), (32, 24), (24, 32)] * 2
    ends = [m.end for m in parameters.matrices]
    assert [m.start for m in parameters.matrices] == [parameters.matrices_from, *ends[:-1]]
    assert ends[-1] == parameters.values.numel()


@pytest.mark.parametrize("name", ["muon", "adamw", "sgd"])
def test_units_cover_all_weights_once(name):
    parameters = flat_parameters()
    s = Optimizer(name=name, learning_rate=0.03, embedding_learning_rate=0.02)
    units = [u for stepper in optimizers.make(parameters, s, torch.float32) for u in stepper.units]
    covered = torch.zeros(parameters.values.numel())
    for unit in units:
        covered[unit.start : unit.end] += 1
    assert covered.eq(1).all()


def test_weights_are_aligned():
    parameters = flat_parameters()
    assert all(slot.offset % 16 == 0 for slot in parameters.slots)


def test_the_network_sees_the_flat_tensor():
    model = Transformer(SHAPE)
    model.initialize(2)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    parameters = FlatParameters(model)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    parameters.values.zero_()
    assert all(not p.any() for p in model.parameters())
    assert set(parameters.named()) == set(before)
