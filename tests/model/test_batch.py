"""Texts that are continued together are those that each would be alone."""

import math

import pytest
import torch

import crystalline
from crystalline.model.batch import Request, continue_all
from crystalline.model.generation import Generated
from crystalline.model.sampling import Sampling


@pytest.fixture(scope="module")
def model(tiny_run):
    return crystalline.load(tiny_run)


def requests():
    """Of different lengths and settings, some far beyond the context of 32 tokens; more than there are slots."""
    prompts = ["def ", "import os, ", "", "class A:\n" * 30, "x = ", "é😀", "return", "for i in"]
    for number, prompt in enumerate(prompts):
        how = Sampling(temperature=0.3 * number, top_p=0.9, lattice=number % 3 * 5, seed=number)
        yield Request(prompt, how, limit=5 + 11 * number, stop=["e", "\n\n"][: number % 3])


@pytest.mark.parametrize("slots", [1, 3, 16])
def test_together_as_alone(model, slots):
    results = dict(continue_all(model, list(requests()), slots))
    assert sorted(results) == list(range(8))
    for number, request in enumerate(requests()):
        alone = Generated([], "")
        text = "".join(model.stream(request.prompt, request.how, request.limit, request.stop, alone))
        result = results[number]
        assert (result.text, result.tokens, result.reason) == (text, alone.tokens, alone.reason)


def test_nothing_to_do_is_done(model):
    assert list(continue_all(model, [])) == []


def test_log_probabilities_are_the_networks(model):
    t = model.tokenizer
    request = Request("def ", Sampling(temperature=1.5, top_k=20, seed=2), limit=12, best=3)
    ((_, result),) = continue_all(model, [request])
    assert len(result.likelihoods) == len(result.tokens) == 12
    text = [t.bos, *t.encode("def ")]
    for token, likelihood in zip(result.tokens, result.likelihoods, strict=True):
        logits = model.model(torch.tensor([text]))[0, -1].double()
        logits[model._hidden] = -torch.inf
        logs = logits.log_softmax(0)
        assert likelihood.token == token
        assert likelihood.log_probability == pytest.approx(float(logs[token]), abs=1e-4)
        best = logs.topk(3)
        assert [id_ for id_, _ in likelihood.best] == best.indices.tolist()
        assert [log for _, log in likelihood.best] == pytest.approx(best.values.tolist(), abs=1e-4)
        text.append(token)


def test_impossible_tokens_are_not_among_the_most_likely(model):
    ((_, result),) = continue_all(model, [Request("x", Sampling(), limit=1, best=10_000)])
    best = result.likelihoods[0].best
    assert len(best) == model.tokenizer.vocabulary_size - 7  # all but what is structure
    assert all(math.isfinite(log) for _, log in best)
