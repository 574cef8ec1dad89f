"""Choosing tokens: each setting does what its definition says."""

import numpy as np
import pytest

from crystalline.model.sampling import (
    Sampling,
    candidates,
    choose,
    distribution,
    log_probabilities,
    most_likely,
    penalize,
)

LOGITS = np.array([2.0, 1.0, 0.0, -1.0, 0.5], np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits.astype(np.float64) - logits.max())
    return e / e.sum()


def chosen(how: Sampling) -> list[int]:
    return distribution(LOGITS, [], how).nonzero()[0].tolist()


def test_plain_is_softmax():
    for temperature in (1.0, 0.5, 1e-3):
        p = distribution(LOGITS, [], Sampling(temperature=temperature))
        np.testing.assert_allclose(p, softmax(LOGITS / temperature), rtol=1e-5, atol=1e-30)


def test_top_k():
    assert chosen(Sampling(top_k=2)) == [0, 1]
    assert chosen(Sampling(top_k=99)) == [0, 1, 2, 3, 4]


def test_top_p_keeps_the_smallest_set_that_reaches_it():
    p = np.sort(softmax(LOGITS))[::-1]
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
    np.testing.assert_allclose(kept[:2], softmax(LOGITS[:2]), rtol=1e-6)


def test_repetition_penalty_pushes_down_on_both_sides_of_zero():
    out = penalize(LOGITS, [0, 3, 3], 2.0)
    assert out.tolist() == [1.0, 1.0, 0.0, -2.0, 0.5]


def test_temperature_zero_is_the_most_likely():
    generator = Sampling().generator()
    assert choose(LOGITS, [], Sampling(temperature=0), generator) == 0
    assert choose(LOGITS, [0], Sampling(temperature=0, repetition_penalty=4.0), generator) == 1
    assert choose(np.array([1.0, 3.0, 3.0], np.float32), [], Sampling(temperature=0), generator) == 1


def test_frequencies_follow_the_distribution():
    how = Sampling(temperature=1.0)
    generator = how.generator()
    counts = np.bincount([choose(LOGITS, [], how, generator) for _ in range(4000)], minlength=5)
    assert counts / 4000 == pytest.approx(softmax(LOGITS), abs=0.03)


def test_tokens_that_must_not_come_never_do():
    logits = np.array([0.0, -np.inf, 1.0, -np.inf], np.float32)
    for how in (Sampling(), Sampling(top_k=4), Sampling(top_p=0.999999, temperature=10.0), Sampling(top_k=3)):
        assert set(candidates(logits, [], how)[0].tolist()) <= {0, 2}


def test_equally_likely_tokens_come_in_the_order_of_their_numbers():
    logits = np.zeros(50, np.float32)
    assert candidates(logits, [], Sampling(top_k=3))[0].tolist() == [0, 1, 2]
    assert candidates(logits, [], Sampling(top_p=0.1))[0].tolist() == [0, 1, 2, 3, 4]


def cut_by_definition(logits: np.ndarray, how: Sampling) -> set[int]:
    """Everything sorted, then one cut after the other."""
    p = softmax(logits.astype(np.float64) / how.temperature)
    order = np.argsort(-p, kind="stable")
    keep = np.ones(len(p), bool)
    if how.top_k:
        keep[how.top_k :] = False
    if how.top_p < 1:
        keep &= p[order].cumsum() - p[order] < how.top_p
    keep &= p[order] >= how.min_p * p[order[0]]
    return set(order[keep].tolist())


@pytest.mark.parametrize("seed", range(8))
def test_the_cuts_are_those_of_the_definitions(seed):
    """No token is lost because only part of them is sorted."""
    random = np.random.default_rng(seed)
    logits = (random.standard_normal(3000) * random.choice([0.1, 1, 4])).astype(np.float32)
    for how in (
        Sampling(top_p=0.95), Sampling(top_p=0.5, temperature=2.0), Sampling(top_k=2999),
        Sampling(min_p=0.05), Sampling(top_k=40, top_p=0.9), Sampling(top_k=100, min_p=0.2),
        Sampling(top_p=0.999, min_p=0.01),
    ):  # fmt: skip
        ids, p = candidates(logits, [], how)
        wanted = cut_by_definition(logits, how)
        # Which side of the line the last token falls on may hang on rounding.
        assert len(wanted ^ set(ids.tolist())) <= 1
        assert p.sum() == pytest.approx(1.0)
        np.testing.assert_allclose(p, softmax(logits[ids] / np.float32(how.temperature)), rtol=1e-4)


def test_log_probabilities_are_those_of_the_raw_logits():
    logs = log_probabilities(LOGITS)
    np.testing.assert_allclose(logs, np.log(softmax(LOGITS)), rtol=1e-9)
    best = most_likely(logs, 2)
    assert [token for token, _ in best] == [0, 1]
    assert best[0][1] == logs[0]
    assert most_likely(np.zeros(4), 2) == [(0, 0.0), (1, 0.0)]
    assert len(most_likely(logs, 99)) == 5
    assert most_likely(logs, 0) == []


def test_the_same_seed_draws_the_same_tokens():
    def drawn(seed: int) -> list[int]:
        how = Sampling(seed=seed, temperature=3.0)
        generator = how.generator()
        return [choose(LOGITS, [], how, generator) for _ in range(50)]

    assert drawn(1) == drawn(1) != drawn(2)
