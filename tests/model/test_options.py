"""What the network can have beyond the plain form: neutral at first, causal, and the same in parts as in one."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from crystalline.model.shape import Shape, table_sizes
from crystalline.model.transformer import KVCache, Transformer

SHAPE = Shape(vocabulary=61, layers=3, width=48, heads=6, kv_heads=2, head_width=10, hidden=56, context=24, factors=5)
BAGS = (np.array([0, 1, 1, 4, 2, 3], np.int64), np.array([0, 2, 3, 3, 5] + [6] * 57, np.int64))


def tokens(batch: int = 2, time: int = 24) -> torch.Tensor:
    return torch.randint(0, SHAPE.vocabulary, (batch, time), generator=torch.Generator().manual_seed(5))


ANGLES = np.linspace(0, 20, SHAPE.vocabulary)
OPTIONS = {
    "values": {"value_embeddings": True},
    "ngrams": {"ngram_rows": 200},
    "phases": {"phases": ("lattice", "golden", "clock")},
    "golden": {"rotary": "golden"},
    "clock": {"rotary": "clock"},
    "no norms": {"qk_norm": False},
    "all": {"value_embeddings": True, "ngram_rows": 200, "phases": ("lattice", "clock"), "rotary": "golden"},
}


def network(option: str, dtype: torch.dtype = torch.float32, random: bool = True) -> Transformer:
    model = Transformer(replace(SHAPE, **OPTIONS[option]), BAGS, dtype, ANGLES)
    model.initialize(0)
    if random:
        generator = torch.Generator().manual_seed(1)
        for weight in model.parameters():
            weight.data.normal_(0.0, 0.3, generator=generator)
    return model


@pytest.mark.parametrize("option", ["values", "ngrams", "phases"])
def test_starts_as_the_plain_network(option: str) -> None:
    plain = Transformer(SHAPE, BAGS)
    plain.initialize(0)
    assert torch.allclose(network(option, random=False)(tokens()), plain(tokens()), atol=1e-6)


@pytest.mark.parametrize("option", OPTIONS)
def test_every_part_takes_part_and_learns(option: str) -> None:
    model = network(option)
    model.loss(tokens(), tokens()).backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in model.parameters())
    changed = model.shape.parameters - SHAPE.parameters
    assert sum(weight.numel() for weight in model.parameters()) == SHAPE.parameters + changed


@pytest.mark.parametrize("option", OPTIONS)
def test_no_token_sees_a_later_one(option: str) -> None:
    model, text = network(option), tokens()
    other = text.clone()
    other[:, 15:] = (other[:, 15:] + 7) % SHAPE.vocabulary
    before, after = model(text), model(other)
    assert torch.equal(before[:, :15], after[:, :15])
    assert not torch.equal(before[:, 15], after[:, 15])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("option", OPTIONS)
def test_the_cache_changes_nothing(option: str, dtype: torch.dtype) -> None:
    model, text = network(option, dtype), tokens(batch=1)
    with torch.no_grad():
        whole = model(text)
        cache = KVCache(model.shape, 1, dtype)
        parts = [model(text[:, :9], cache)] + [model(text[:, i : i + 1], cache) for i in range(9, 24)]
    tolerance = 1e-4 if dtype == torch.float32 else 0.5
    assert torch.allclose(torch.cat(parts, dim=1), whole, atol=tolerance)


@pytest.mark.parametrize("option", OPTIONS)
def test_less_memory_gives_the_same_bits(option: str) -> None:
    gradients = []
    for frugal in (False, True):
        model = network(option)
        model.loss(tokens(), tokens(), frugal).backward()
        gradients.append([weight.grad.to_dense() for weight in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_a_phase_adds_its_cosine_to_the_scores() -> None:
    """One head, no scores but the phase's: the output is the softmax of the scale times the cosine."""
    shape = Shape(
        vocabulary=11, layers=1, width=8, heads=1, kv_heads=1, head_width=4, hidden=8, context=6, phases=("lattice",)
    )
    angles = np.linspace(0, 3, 11)
    model = Transformer(shape, None, angles=angles)
    model.initialize(0)
    text = torch.tensor([[3, 9, 1, 4, 0, 7]])
    attention, place = model.blocks[0].attention, model._place(text, None)
    with torch.no_grad():
        attention.qkv[:8].zero_()  # no queries, no keys
        attention.output.normal_()
        attention.phase_scales.fill_(1.5)
        x = torch.randn(1, 6, 8, generator=torch.Generator().manual_seed(0))
        out = attention(x, place, None)
    angle = torch.from_numpy(angles)[text[0]]
    bias = 1.5 * torch.cos(angle[:, None] - angle[None, :]).float()
    shares = bias.masked_fill(torch.ones(6, 6).triu(1).bool(), -torch.inf).softmax(1)
    expected = shares @ (x[0] @ attention.qkv[8:].T) @ attention.output.T
    assert torch.allclose(out[0], expected, atol=1e-5)


def test_table_sizes_are_different_primes() -> None:
    assert table_sizes(0) == ()
    assert table_sizes(20_000) == (10_007, 10_009)


def test_what_cannot_be_written_as_a_plain_network_says_so() -> None:
    assert SHAPE.beyond_plain == []
    assert network("all").shape.beyond_plain == [
        "model.rotary",
        "model.phases",
        "model.value_embeddings",
        "model.ngram_rows",
    ]


def test_the_lattice_phase_needs_angles() -> None:
    with pytest.raises(ValueError, match="angles"):
        Transformer(replace(SHAPE, phases=("lattice",)), BAGS)
