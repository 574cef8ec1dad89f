"""The compiled kernels against the same formulas in PyTorch, values and gradients."""

import math

import pytest
import torch
import torch.nn.functional as F

from crystalline.model import library, operations

pytestmark = pytest.mark.skipif(library.library() is None, reason="there is no C compiler here")
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 2e-2}
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])


def numbers(*shape: int, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


def both(monkeypatch, function, *inputs: torch.Tensor):
    """(result, gradients) of `function` by the kernels, and by PyTorch in fp32."""
    outcomes = []
    for compiled in (True, False):
        with monkeypatch.context() as patch:
            if not compiled:
                patch.setattr(operations, "usable", lambda *_: None)
            leaves = [x.clone() if compiled else x.float() for x in inputs]
            leaves = [x.requires_grad_(x.is_floating_point()) for x in leaves]
            out = function(*leaves)
            outs = out if isinstance(out, tuple) else (out,)
            loss = sum((o.float() * numbers(*o.shape, seed=9 + i)).sum() for i, o in enumerate(outs))
            wanted = [x for x in leaves if x.requires_grad]
            outcomes.append((outs, torch.autograd.grad(loss, wanted)))
    return outcomes


def assert_alike(outcomes, dtype):
    (ours, our_gradients), (theirs, their_gradients) = outcomes
    for a, b in zip((*ours, *our_gradients), (*theirs, *their_gradients), strict=True):
        a, b = a.detach(), b.detach()
        scale = max(float(b.abs().max()), 0.1)  # a gradient that is zero but for rounding has no scale
        assert float((a.float() - b).abs().max()) <= TOLERANCE[dtype] * scale


@DTYPES
@pytest.mark.parametrize("width", [8, 48, 130])
def test_rms_norm(monkeypatch, dtype, width):
    def alone(x, gain):
        return operations.rms_norm(x, None, gain, 1e-6, dtype if operations.usable(x) else torch.float32)[1]

    def of_a_sum(x, branch, gain):
        return operations.rms_norm(x, branch, gain, 1e-6, branch.dtype)

    def of_a_sum_that_is_not_used(x, branch, gain):
        return of_a_sum(x, branch, gain)[1]

    x, branch, gain = numbers(3, 7, width), numbers(3, 7, width, seed=2).to(dtype), numbers(width, seed=1)
    assert_alike(both(monkeypatch, alone, x, gain), dtype)
    assert_alike(both(monkeypatch, of_a_sum, x, branch, gain), dtype)
    assert_alike(both(monkeypatch, of_a_sum_that_is_not_used, x, branch, gain), dtype)


@DTYPES
@pytest.mark.parametrize("width", [8, 48])
def test_token_table(monkeypatch, dtype, width):
    """Tokens with no factor, one, and several, the same factor in many."""
    bags = torch.tensor([0, 2, 1, 2, 2, 0]), torch.tensor([0, 0, 1, 3, 6, 6])

    def function(own, factors):
        return operations.token_table(own, factors, bags, 0.7, dtype)

    outcomes = both(monkeypatch, function, numbers(5, width), numbers(3, width, seed=1))
    assert_alike(outcomes, dtype)
    assert outcomes[0][1][1].any(), "no gradient of the factors: the test tests nothing"


@DTYPES
@pytest.mark.parametrize(("heads", "kv_heads", "width"), [(4, 4, 16), (6, 2, 10), (3, 1, 64)])
def test_split_heads(monkeypatch, dtype, heads, kv_heads, width):
    angles = numbers(9, width // 2, seed=5)
    rotary = (torch.cat((angles, angles), 1).cos(), torch.cat((angles, angles), 1).sin())
    qkv = numbers(2, 9, (heads + 2 * kv_heads) * width).to(dtype)

    def function(x, a, b):
        return operations.split_heads(x, (a, b), rotary, heads, kv_heads, 1e-6)

    assert_alike(both(monkeypatch, function, qkv, numbers(width, seed=1), numbers(width, seed=2)), dtype)


@DTYPES
@pytest.mark.parametrize("one_kernel", [True, False])
@pytest.mark.parametrize("time", [1, 5, operations.QUERY_BLOCK, operations.QUERY_BLOCK + 3, 300])
@pytest.mark.parametrize(("kv_heads", "width"), [(4, 16), (2, 64), (1, 34)])
def test_causal_attention(monkeypatch, dtype, time, kv_heads, width, one_kernel):
    if not one_kernel:
        monkeypatch.setattr(operations, "has_attention", lambda *_: False)
    q = numbers(2, 4, time, width).to(dtype)
    k, v = (numbers(2, kv_heads, time, width, seed=s).to(dtype) for s in (1, 2))
    for scale in (width**-0.5, 0.31):
        assert_alike(both(monkeypatch, lambda a, b, c: operations.causal_attention(a, b, c, scale), q, k, v), dtype)  # noqa: B023


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_attention_passes_bad_numbers_on(bad):
    for place in range(3):
        q, k, v = (numbers(1, 2, 40, 16, seed=s).bfloat16().requires_grad_() for s in range(3))
        with torch.no_grad():
            (q, k, v)[place][0, 1, 7, 3] = bad
        out = operations.causal_attention(q, k, v, 0.25)
        out.sum().backward()
        assert not torch.isfinite(out).all()
        assert not all(torch.isfinite(x.grad).all() for x in (q, k, v))


@DTYPES
def test_swiglu(monkeypatch, dtype):
    x = torch.cat((numbers(5, 40, scale=4.0), torch.tensor([[-90.0, 90.0, 0.0, 20.0] * 10])))
    assert_alike(both(monkeypatch, operations.swiglu, x.to(dtype)), dtype)


@DTYPES
def test_head_loss(monkeypatch, dtype):
    targets = torch.tensor([3, 0, -100, 50, 17, -100])
    x, table = numbers(6, 24, scale=3.0).to(dtype), numbers(51, 24, seed=1).to(dtype)
    assert_alike(both(monkeypatch, lambda a, b: operations.head_loss(a, b, targets), x, table), dtype)


def test_head_loss_of_padding_only_is_zero():
    x, table = numbers(2, 8).requires_grad_(), numbers(5, 8).requires_grad_()
    loss = operations.head_loss(x, table, torch.tensor([-100, -100]))
    loss.backward()
    assert float(loss.detach()) == 0
    assert not x.grad.any()
    assert not table.grad.any()


@DTYPES
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_bad_numbers_are_passed_on(dtype, value):
    """The guard sees them in the loss and the gradient; kernels that hid them would let them train."""
    x, table = numbers(3, 8), numbers(5, 8).to(dtype).requires_grad_()
    x[1, 2] = value
    normed = operations.rms_norm(x, None, torch.ones(8), 1e-6, dtype)[1]
    loss = operations.head_loss(normed, table, torch.tensor([1, 2, 3]))
    loss.backward()
    assert not math.isfinite(float(loss.detach()))
    assert not torch.isfinite(table.grad).all()
    gate = torch.full((1, 16), value).to(dtype)
    assert not torch.isfinite(operations.swiglu(gate)).all()


@DTYPES
def test_rounding_to_bf16_is_the_processors(dtype):
    """To nearest, ties to even: the norm of a row of ones times a gain is the gain itself, rounded."""
    gain = numbers(4096, scale=3.0)
    ones = torch.ones(1, 4096)
    assert torch.equal(operations.rms_norm(ones, None, gain, 0.0, dtype)[1][0], gain.to(dtype))


def test_the_same_input_gives_the_same_bits_at_any_address():
    """Sums must not run in another order when a buffer begins elsewhere: workers have different addresses."""
    for offset in (0, 16, 32, 48):
        buffer = torch.zeros(64 * 100 + 64)
        x = buffer[offset : offset + 6400].view(100, 64)
        x.copy_(numbers(100, 64))
        out = operations.rms_norm(x, None, numbers(64, seed=1), 1e-6, torch.float32)[1]
        if offset == 0:
            first = out
        assert torch.equal(out, first)


def test_a_machine_without_compiler_computes_too(monkeypatch):
    x = numbers(2, 8, 16)
    monkeypatch.setattr(operations, "usable", lambda *_: None)
    torch.testing.assert_close(
        operations.rms_norm(x, None, torch.ones(16), 1e-6, torch.float32)[1],
        F.rms_norm(x, (16,), torch.ones(16), 1e-6),
    )


def test_the_kernels_are_named_by_what_their_bits_depend_on(monkeypatch):
    name = library.identity()
    assert len(name) == 16
    monkeypatch.setattr(library, "WIDE", ["-O2"])
    monkeypatch.setattr(library, "FLAGS", [*library.FLAGS, "-O1"])
    library._key.cache_clear()
    assert library.identity() != name
    library._key.cache_clear()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=["fp32", "bf16", "fp16"])
def test_a_loss_in_parts_is_that_of_the_whole(monkeypatch, dtype):
    """So many logits that they are not held at once. The last part is shorter, and a target is left out."""
    monkeypatch.setattr(operations, "usable", lambda *_: None)
    outcomes = []
    for at_once in (operations.LOGITS_AT_ONCE, 4 * 40):
        monkeypatch.setattr(operations, "LOGITS_AT_ONCE", at_once)
        x = numbers(10, 16).to(dtype).requires_grad_()
        table = numbers(40, 16, seed=1).to(dtype).requires_grad_()
        targets = torch.arange(10) * 3
        targets[7] = -100
        loss = operations.head_loss(x, table, targets)
        outcomes.append((loss, *torch.autograd.grad(loss, (x, table))))
    for whole, parts in zip(*outcomes, strict=True):
        error = float((whole.detach().float() - parts.detach().float()).abs().max())
        assert error <= {torch.float32: 1e-5}.get(dtype, 2e-2) * float(whole.detach().abs().max())
