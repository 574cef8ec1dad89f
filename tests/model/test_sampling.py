"""Choosing tokens: each setting does what its definition says."""

import pytest
import torch

from crystalline.model.sampling import Sampling, choose, distribution, penalize

LOGITS = torch.tensor([2.0, 1.0, 0.0, -1.0, 0.5])


def chosen(how: Sampling) -> list[int]:
    return distribution(LOGITS, [], how).nonzero().flatten().tolist()


def test_plain_is_softmax():
    torch.testing.assert_close(distribution(LOGITS, [], Sampling(temperature=1.0)), LOGITS.softmax(0))
    torch.testing.assert_close(distribution(LOGITS, [], Sampling(temperature=0.5)), (LOGITS / 0.5).softmax(0))


def test_top_k():
    assert chosen(Sampling(top_k=2)) == [0, 1]
    assert chosen(Sampling(top_k=99)) == [0, 1, 2, 3, 4]


def test_top_p_keeps_the_smallest_set_that_reaches_it():
    p = LOGITS.softmax(0).sort(descending=True).values
    just_under, just_over = float(p[:2].sum()) - 1e-4, float(p[:2].sum()) + 1e-4
    assert chosen(Sampling(temperature=1.0, top_p=just_under)) == [0, 1]
    assert chosen(Sampling(temperature=1.0, top_p=just_over)) == [0, 1, 4]
    assert chosen(Sampling(temperature=1.0, top_p=1e-9)) == [0]


def test_min_p_is_relative_to_the_best():
    # exp(0.5 - 2) = 0.223 of the best, exp(1 - 2) = 0.368
    assert chosen(Sampling(temperature=1.0, min_p=0.3)) == [0, 1]
    assert chosen(Sampling(temperature=1.0, min_p=0.2)) == [0, 1, 4]
    assert chosen(Sampling(temperature=1.0, min_p=1.0)) == [0]


def test_probabilities_are_scaled_up_to_one():
    kept = distribution(LOGITS, [], Sampling(temperature=1.0, top_k=2))
    torch.testing.assert_close(kept[:2], LOGITS[:2].softmax(0))


def test_repetition_penalty_pushes_down_on_both_sides_of_zero():
    out = penalize(LOGITS, [0, 3, 3], 2.0)
    assert out.tolist() == [1.0, 1.0, 0.0, -2.0, 0.5]


def test_temperature_zero_is_the_most_likely():
    generator = torch.Generator()
    assert choose(LOGITS, [], Sampling(temperature=0), generator) == 0
    assert choose(LOGITS, [0], Sampling(temperature=0, repetition_penalty=4.0), generator) == 1


def test_frequencies_follow_the_distribution():
    how, generator = Sampling(temperature=1.0), torch.Generator().manual_seed(0)
    counts = torch.bincount(torch.tensor([choose(LOGITS, [], how, generator) for _ in range(4000)]), minlength=5)
    assert counts / 4000 == pytest.approx(LOGITS.softmax(0).tolist(), abs=0.03)
