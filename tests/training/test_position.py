"""A position is a pure function; its share, and the exact sum of all shares, are the gradient of the step."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from crystalline.model.shape import Shape
from crystalline.model.transformer import Transformer
from crystalline.training import position
from crystalline.training.batches import Batches
from crystalline.training.exact_sum import LARGEST_NORM, ExactSum, combine
from crystalline.training.parameters import FlatParameters, WorkingCopy
from crystalline.training.position import PositionResult

SHAPE = Shape(vocabulary=50, layers=2, width=32, heads=4, kv_heads=2, head_width=8, hidden=48, context=16, factors=3)
BAGS = (np.array([0, 1, 1, 2, 0], np.int64), np.array([0, 2, 3, 5] + [5] * 47, np.int64))
STEP = 3


class Noise:
    """A token stream of 2,000 tokens; 15 of the last window's 16 places are padding."""

    def __init__(self, length=2002):
        self.tokens = np.random.RandomState(1).randint(0, SHAPE.vocabulary, length).astype(np.uint16)

    def __len__(self):
        return len(self.tokens)

    def read(self, start, count):
        return self.tokens[start : start + count]


@pytest.fixture
def parameters():
    """Weights all different from zero, so that every gradient is."""
    model = Transformer(SHAPE, BAGS)
    generator = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0.0, 0.2, generator=generator)
    flat = FlatParameters(model)
    flat.model, flat.copy = model, WorkingCopy(model, flat)
    return flat


def batches(**changes) -> Batches:
    options = {"seed": 4, "context": 16, "micro_batch": 4, "accumulation": 1, "positions": 12, "pad": 0}
    return Batches(Noise(), **{**options, **changes})


def gradient_of(parameters, b, number, step=STEP, targets=None, frugal=False):
    """(flat gradient of one position, what `compute` said)."""
    targets = targets or b.targets_in_step(step)
    total = ExactSum(torch.zeros_like(parameters.values, dtype=torch.int64))
    result = position.compute(parameters.copy, b, step, number, targets, total, frugal)
    flat = torch.empty_like(parameters.values)
    combine([total.total], flat)
    return flat, result


def summed(parameters, b, step=STEP):
    """(gradient of the step as the loop makes it, its mean loss)."""
    total, loss = ExactSum(torch.zeros_like(parameters.values, dtype=torch.int64)), 0.0
    for number in range(b.positions):
        loss += position.compute(parameters.copy, b, step, number, b.targets_in_step(step), total).loss
    gradient = torch.empty_like(parameters.values)
    combine([total.total], gradient)
    return gradient, loss / b.targets_in_step(step)


def error(got, expected):
    return float(torch.linalg.vector_norm(got.double() - expected.double()) / torch.linalg.vector_norm(expected))


def one_pass(parameters, b, step=STEP):
    """The same gradient from a single batch of all windows and torch's own mean."""
    parts = [b.micro_batch_at(step, n, part) for n in range(b.positions) for part in range(b.accumulation)]
    tokens, targets = (torch.from_numpy(np.concatenate(side)) for side in zip(*parts, strict=True))
    parameters.model.zero_grad()
    logits = parameters.model(tokens)
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100)
    loss.backward()
    flat = torch.zeros_like(parameters.values)
    for slot, weight in zip(parameters.slots, parameters.parameters, strict=True):
        flat[slot.offset : slot.end] = weight.grad.flatten()
    return flat, loss.item()


def test_small_batches_accumulate_to_the_large_one(parameters):
    for number in (0, 7):
        whole, said = gradient_of(parameters, batches(), number)
        parts, said_parts = gradient_of(parameters, batches(micro_batch=1, accumulation=4), number)
        assert error(parts, whole) <= 1e-6
        assert said_parts.loss == pytest.approx(said.loss, rel=1e-6)


def test_the_sum_of_the_positions_is_the_gradient_of_the_step(parameters):
    """Also in the steps in which the short last window comes, whose padding counts nowhere."""
    b = batches()
    with_padding = [s for s in range(9) if b.targets_in_step(s) < b.windows_per_step * 16]
    assert with_padding
    for step in (STEP, *with_padding):
        gradient, loss = summed(parameters, b, step)
        expected, expected_loss = one_pass(parameters, b, step)
        assert error(gradient, expected) <= 1e-6
        assert loss == pytest.approx(expected_loss, rel=1e-6)


def test_any_grain_gives_the_same_gradient(parameters):
    """144 positions of one window: another way to cut the same step."""
    b = batches(micro_batch=1, accumulation=12)
    fine = batches(micro_batch=1, positions=144)
    assert error(summed(parameters, fine)[0], summed(parameters, b)[0]) <= 1e-6


def test_a_position_is_the_same_bits_whatever_was_computed_before(parameters):
    b = batches(accumulation=2)
    first, said = gradient_of(parameters, b, 5)
    for other in (0, 11, 5):
        gradient_of(parameters, b, other)
    again, said_again = gradient_of(parameters, b, 5)
    assert torch.equal(first, again)
    assert said == said_again
    assert not torch.equal(first, gradient_of(parameters, b, 6)[0])
    assert not torch.equal(first, gradient_of(parameters, replace(b, seed=5), 5)[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_less_memory_gives_the_same_bits(parameters, dtype):
    parameters.model.dtype = dtype
    parameters.copy = WorkingCopy(parameters.model, parameters)
    for number in (0, 7):
        expected, said = gradient_of(parameters, batches(accumulation=2), number)
        frugal, said_frugal = gradient_of(parameters, batches(accumulation=2), number, frugal=True)
        assert torch.equal(frugal, expected)
        assert said_frugal == said


def test_a_working_copy_follows_the_weights_and_shares_what_it_can(parameters):
    parameters.model.dtype = torch.bfloat16
    copy = WorkingCopy(parameters.model, parameters)
    named = dict(copy.model.named_parameters())
    with torch.no_grad():
        parameters.values.mul_(3.0)
    copy.refresh()
    for name, weight in parameters.model.named_parameters():
        assert torch.equal(named[name], weight.to(named[name].dtype))
        assert (named[name].data_ptr() == weight.data_ptr()) == (named[name].dtype == weight.dtype)
    assert [weight.grad for weight in parameters.parameters] == [None] * len(parameters.parameters)


def test_computing_changes_no_weight(parameters):
    before = parameters.hash()
    gradient_of(parameters, batches(), 0)
    assert parameters.hash() == before


def test_the_norm_is_that_of_the_gradient(parameters):
    gradient, said = gradient_of(parameters, batches(), 2)
    assert said.gradient_norm == pytest.approx(float(torch.linalg.vector_norm(gradient.double())), rel=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_bad_number_anywhere_is_unsound(parameters, bad):
    assert gradient_of(parameters, batches(), 0)[1].sound
    for weight in parameters.copy.model.parameters():

        def poison(gradient):
            gradient = gradient.clone()
            gradient.view(-1)[-1] = bad
            return gradient

        hook = weight.register_hook(poison)
        assert not gradient_of(parameters, batches(), 0)[1].sound
        hook.remove()
    assert gradient_of(parameters, batches(), 0)[1].sound, "nothing bad is left for the next position"


def test_what_is_sound():
    assert PositionResult(1.0, LARGEST_NORM).sound
    assert not PositionResult(1.0, math.nextafter(LARGEST_NORM, math.inf)).sound
    for bad in (math.nan, math.inf, -math.inf):
        assert not PositionResult(bad, 1.0).sound
        assert not PositionResult(1.0, abs(bad)).sound


class TestFp16:
    """Gradients of 16 bits with few exponents: neither vanished nor overflown, and the same whatever came before."""

    @pytest.fixture
    def half(self, parameters):
        parameters.exact = gradient_of(parameters, batches(), 3)
        parameters.model.dtype = torch.float16
        parameters.copy = WorkingCopy(parameters.model, parameters)
        return parameters

    def tried(self, monkeypatch):
        """What became of each scale that was tried: whether all gradients were finite."""
        original, found = WorkingCopy.finite, []
        monkeypatch.setattr(WorkingCopy, "finite", lambda copy: found.append(original(copy)) or found[-1])
        return found

    def test_the_gradient_is_right(self, half, monkeypatch):
        tried = self.tried(monkeypatch)
        gradient, said = gradient_of(half, batches(), 3)
        assert tried == [True]
        assert error(gradient, half.exact[0]) <= 5e-3
        assert said.loss == pytest.approx(half.exact[1].loss, rel=1e-3)

    def test_small_numbers_do_not_vanish(self, half, monkeypatch):
        """As in a step of many tokens: without a scale most would be zero."""
        scaled = gradient_of(half, batches(), 3, targets=10**7)[0]
        monkeypatch.setattr(position, "FP16_SCALES", (1.0,))
        bare = gradient_of(half, batches(), 3, targets=10**7)[0]
        exact = half.exact[0] * (batches().targets_in_step(STEP) / 10**7)
        assert error(scaled, exact) <= 5e-3
        assert error(bare, exact) > 0.1

    def test_what_overflows_is_computed_again_with_a_smaller_scale(self, half, monkeypatch):
        tried = self.tried(monkeypatch)
        gradient, said = gradient_of(half, batches(), 3, targets=1)
        assert tried[-1]
        assert not any(tried[:-1])
        assert len(tried) > 1, "nothing has overflown: the test tests nothing"
        assert said.sound
        exact = half.exact[0] * batches().targets_in_step(STEP)
        assert error(gradient, exact) <= 5e-3

    def test_it_does_not_depend_on_what_was_computed_before(self, half):
        b = batches(accumulation=2)
        first = gradient_of(half, b, 3, targets=1)
        for other, targets in ((0, None), (11, 40), (3, 10**7)):
            gradient_of(half, b, other, targets=targets)
        again = gradient_of(half, b, 3, targets=1)
        assert torch.equal(first[0], again[0])
        assert first[1] == again[1]

    def test_less_memory_gives_the_same_bits(self, half):
        for targets in (None, 1):
            whole, frugal = (gradient_of(half, batches(), 3, targets=targets, frugal=f) for f in (False, True))
            assert torch.equal(whole[0], frugal[0])

    def test_what_no_scale_can_hold_is_unsound(self, half, monkeypatch):
        tried = self.tried(monkeypatch)
        with torch.no_grad():
            half.values.mul_(1e6)
        half.copy.refresh()
        assert not gradient_of(half, batches(), 3)[1].sound
        assert len(tried) == len(position.FP16_SCALES) - 1, "the last one is taken as it is"
