"""The sum of gradients has no order, and loses nothing that matters."""

import itertools
import random

import pytest
import torch

from crystalline.model import operations
from crystalline.training import exact_sum
from crystalline.training.exact_sum import CHUNK, LARGEST_NORM, ExactSum, combine


def terms(count: int, size: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    scales = 10.0 ** torch.randint(-9, 1, (count, size), generator=generator)
    return list(torch.randn(count, size, generator=generator) * scales)


def empty_sum(size: int) -> ExactSum:
    return ExactSum(torch.zeros(size, dtype=torch.int64))


def result(*sums: ExactSum) -> torch.Tensor:
    out = torch.empty(len(sums[0].total))
    combine([s.total for s in sums], out)
    return out


def summed(gradients: list[torch.Tensor]) -> torch.Tensor:
    total = empty_sum(gradients[0].numel())
    for gradient in gradients:
        total.add([(0, gradient)])
    return result(total)


def test_any_order_gives_the_same_bits():
    gradients = terms(12, 1000)
    expected = summed(gradients)
    floats = {tuple(sum(p).tolist()) for p in itertools.islice(itertools.permutations(gradients), 0, 40000, 4000)}
    assert len(floats) > 1, "these terms would not show a difference"
    for seed in range(20):
        shuffled = random.Random(seed).sample(gradients, len(gradients))
        assert torch.equal(summed(shuffled), expected)


def test_partial_sums_of_workers_add_up_to_the_same_bits():
    gradients = terms(12, 500)
    for split in (1, 5, 6):
        first, second = empty_sum(500), empty_sum(500)
        for gradient in gradients[:split]:
            first.add([(0, gradient)])
        for gradient in gradients[split:]:
            second.add([(0, gradient)])
        assert torch.equal(result(first, second), summed(gradients))
        assert torch.equal(result(second, first), summed(gradients))


def test_it_is_the_sum():
    gradients = terms(12, 2000)
    expected = torch.stack(gradients).double().sum(0)
    # 12 truncations of at most 2^-48 and one rounding to fp32
    assert (
        float((summed(gradients).double() - expected).abs().max())
        < 12 * 2**-48 + float(expected.abs().max()) * 2**-24
    )


def test_pieces_larger_than_a_chunk_and_at_offsets():
    total = empty_sum(3 * CHUNK + 5)
    piece = torch.randn(2 * CHUNK + 1).view(-1, 1)
    total.add([(7, piece), (0, torch.ones(7))])
    total.add([(7, piece)])
    out = result(total)
    torch.testing.assert_close(out[7 : 7 + piece.numel()], 2 * piece.flatten(), rtol=1e-6, atol=1e-12)
    assert torch.equal(out[:7], torch.ones(7))
    assert not out[7 + piece.numel() :].any()
    total.clear()
    assert not result(total).any()


def test_the_largest_gradient_does_not_overflow():
    total = empty_sum(1)
    for _ in range(144):
        total.add([(0, torch.tensor([LARGEST_NORM]))])
    assert float(result(total)) == 144 * LARGEST_NORM


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("compiled", [True, False])
def test_the_norm_sees_every_element(compiled, dtype, monkeypatch):
    if not compiled:
        monkeypatch.setattr(exact_sum.library, "usable", lambda _: None)
    pieces = [torch.full((5,), 2.0, dtype=dtype), torch.full((3, 4), -1.0, dtype=dtype)]
    placed = [(0, pieces[0]), (5, pieces[1])]
    assert empty_sum(17).add(placed) == pytest.approx((5 * 4 + 12) ** 0.5, rel=1e-12)
    for bad in (float("nan"), float("inf"), float("-inf"), 1e30):
        pieces[1][2, 3] = bad
        assert not empty_sum(17).add(placed) <= LARGEST_NORM


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_compiled_sum_and_the_other_are_the_same(dtype, monkeypatch):
    gradients = [
        *terms(5, 9001),
        torch.tensor([1e-15, -1e-15, 3.6e-15, 0.0, -0.0, 100.0, -100.0]).repeat(1286)[:9001],
    ]
    gradients = [gradient.to(dtype) for gradient in gradients]
    compiled = summed(gradients)
    norms = [empty_sum(9001).add([(0, gradient)]) for gradient in gradients]
    monkeypatch.setattr(exact_sum.library, "usable", lambda _: None)
    assert torch.equal(summed(gradients), compiled)
    assert [empty_sum(9001).add([(0, gradient)]) for gradient in gradients] == pytest.approx(norms, rel=1e-6)


@pytest.mark.parametrize("size", [1, 511, 512, 513, CHUNK + 7])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_combining_compiled_and_not_is_the_same(size, count, monkeypatch):
    """Also where the sum of the sums has more digits than fp32, and of any size."""
    sums = []
    for gradient in terms(count, size):
        sums.append(empty_sum(size))
        sums[-1].add([(0, gradient)])
    totals, compiled, plain = [s.total for s in sums], torch.empty(size), torch.empty(size)
    squares = combine(totals, compiled)
    assert squares == pytest.approx(float(compiled.double().square().sum()), rel=1e-12)
    assert combine(totals[::-1], plain) == squares, "the order of the sums does not matter"
    monkeypatch.setattr(exact_sum.library, "usable", lambda _: None)
    assert combine(totals, plain) == pytest.approx(squares, rel=1e-12)
    assert torch.equal(compiled, plain)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scale", [2.0**16, 2.0**4])
def test_what_a_gradient_is_too_large_by_is_taken_away_exactly(dtype, scale):
    gradient = (torch.randn(1000, generator=torch.Generator().manual_seed(5)) * 2.0**-8).to(dtype)
    plain, scaled = (ExactSum(torch.zeros(1000, dtype=torch.int64)) for _ in range(2))
    norm = plain.add([(0, gradient)])
    assert scaled.add([(0, gradient * scale)], scale) == norm
    assert torch.equal(scaled.total, plain.total)
    assert plain.total.count_nonzero() > 990


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_rows_of_a_table_that_were_looked_up(compiled, dtype, monkeypatch):
    """As the same gradient with zeros in all other rows; a row that was looked up twice counts twice."""
    if not compiled:
        monkeypatch.setattr("crystalline.model.library.library", lambda: None)
    rows = torch.randn(5, 7, generator=torch.Generator().manual_seed(2)).to(dtype)
    piece = torch.sparse_coo_tensor(torch.tensor([[9, 0, 4, 9, 12]]), rows, (13, 7), check_invariants=True)
    sparse, dense = empty_sum(100), empty_sum(100)
    norm = sparse.add([(3, piece)])
    assert norm == pytest.approx(dense.add([(3, piece.to_dense())]), rel=1e-6)
    assert torch.equal(sparse.total, dense.total)
    assert (sparse.total != 0).sum() == 4 * 7


def test_a_lookup_costs_only_its_rows():
    table = torch.nn.Parameter(torch.randn(1000, 4))
    operations.look_up(torch.tensor([[3, 5], [3, 999]]), table).sum().backward()
    assert table.grad.is_sparse
    assert table.grad.coalesce().indices().tolist() == [[3, 5, 999]]
