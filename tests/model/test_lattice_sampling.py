"""Lattice sampling draws only beside the most likely token, as the network weighs it; so does a lattice beam."""

import itertools
import shutil
from dataclasses import replace

import numpy as np
import pytest

import crystalline
from crystalline.errors import UserError
from crystalline.model.generation import advance
from crystalline.model.lattice_sampling import Neighbourhood
from crystalline.model.sampling import Sampling, candidates, penalize
from crystalline.tokens.codes import TokenCodes
from crystalline.tokens.similarity import Similarity, Weights

PLAIN = Sampling(temperature=1.3, seed=3)


@pytest.fixture(scope="module")
def model(tiny_run):
    return crystalline.load(tiny_run)


@pytest.fixture(scope="module")
def similarity(tiny_run):
    return Similarity(TokenCodes.load(tiny_run / "tokenizer"))


def everyone(model):
    return model.tokenizer.vocabulary_size


@pytest.mark.parametrize("k", [1, 5, 30])
def test_neighbours_are_the_most_similar_tokens(model, similarity, k):
    t = model.tokenizer
    neighbours = model.neighbours(replace(PLAIN, lattice=k))
    text = [id_ for id_ in range(everyone(model)) if not t.is_special(id_)]
    for token in text[::37]:
        others = [id_ for id_ in text if id_ != token]
        alike = dict(zip(others, similarity.pairs([token] * len(others), others).tolist(), strict=True))
        nearest = sorted(others, key=lambda id_: (-alike[id_], id_))[:k]
        assert neighbours.of(token).tolist() == sorted({token, t.eos, *nearest})


def test_the_weights_of_similarity_can_be_others(model, tiny_run):
    how = replace(PLAIN, lattice=10, lattice_weights=(0.0, 1.0, 0.0))
    only_shared = Similarity(TokenCodes.load(tiny_run / "tokenizer"), weights=Weights(0, 1, 0))
    token = model.tokenizer.encode(" return")[0]
    assert (
        model.neighbours(how).of(token).tolist() == Neighbourhood(only_shared, 10, range(8), [3]).of(token).tolist()
    )
    assert not np.array_equal(model.neighbours(how).of(token), model.neighbours(replace(PLAIN, lattice=10)).of(token))
    with pytest.raises(UserError, match="weigh"):
        model.neighbours(replace(how, lattice_weights=(0.0, 0.0, 0.0)))


def drawn(model, how, count=60):
    """(token, logits before it with hidden ones at -inf, tokens before it), one after the other."""
    text, decoder = model.continuation(model.tokenizer.encode("def "), how), model.decoder.fresh()
    for _ in range(count):
        logits, seen = advance(decoder, {0: text})[0], list(text.tokens)
        token = text.choose(logits)
        if token is None:
            return
        yield token, logits, seen


@pytest.mark.parametrize("penalty", [1.0, 1.5])
def test_every_token_is_a_neighbour_of_the_most_likely_one(model, penalty):
    how = replace(PLAIN, lattice=6, repetition_penalty=penalty)
    neighbours, others = model.neighbours(how), 0
    for token, logits, seen in drawn(model, how):
        best = int(penalize(logits, seen, penalty).argmax())
        assert token in neighbours.of(best)
        others += token != best
    assert others > 10


def test_among_them_the_network_decides(model):
    """What may come has the network's own probabilities, relative to each other; the rest has none."""
    logits = np.random.default_rng(0).normal(0, 2, everyone(model)).astype(np.float32)
    neighbours = model.neighbours(replace(PLAIN, lattice=9))
    ids, probabilities = candidates(neighbours.keep(logits, int(logits.argmax())), [], Sampling(temperature=1.0))
    assert ids.tolist() == neighbours.of(int(logits.argmax())).tolist()
    wanted = np.exp(logits[ids].astype(np.float64))
    assert np.allclose(probabilities, wanted / wanted.sum(), rtol=1e-5)


def tokens(model, how, count=60):
    return list(itertools.islice(model.next_tokens(model.tokenizer.encode("def "), how), count))


def test_none_and_all_neighbours_are_plain_sampling(model):
    plain = tokens(model, PLAIN)
    assert tokens(model, replace(PLAIN, lattice=0)) == plain
    assert tokens(model, replace(PLAIN, lattice=everyone(model))) == plain
    assert tokens(model, replace(PLAIN, lattice=3)) != plain


def test_the_most_likely_token_is_among_them(model):
    greedy = Sampling(temperature=0)
    assert tokens(model, replace(greedy, lattice=4)) == tokens(model, greedy)


def test_a_lattice_beam_with_all_neighbours_is_a_plain_one(model):
    plain = model.beams("def ", 4, best=3, max_tokens=40)
    assert model.beams("def ", 4, best=3, max_tokens=40, how=replace(PLAIN, lattice=everyone(model))) == plain


def test_a_lattice_beam_goes_on_with_neighbours_only(model):
    how = replace(PLAIN, lattice=3)
    found = model.beams("def ", 4, best=4, max_tokens=20, how=how)
    assert len({tuple(h.tokens) for h in found}) == 4
    neighbours, t, decoder = model.neighbours(how), model.tokenizer, model.decoder.fresh()
    for hypothesis in found:
        decoder.cut(0, 0)
        text = [t.bos, *t.encode("def "), *hypothesis.tokens]
        rows = decoder.read(0, text, every=True)[-len(hypothesis.tokens) - 1 : -1]
        rows[:, model._hidden] = -np.inf
        for row, token in zip(rows, hypothesis.tokens, strict=True):
            assert token in neighbours.of(int(row.argmax()))


def test_a_model_without_codes_is_told(tiny_run, tmp_path):
    folder = shutil.copytree(tiny_run / "checkpoints" / "step-00000006", tmp_path / "model")
    model = crystalline.load(folder)
    (folder / "codes.json").unlink()
    with pytest.raises(UserError, match="no prime codes"):
        tokens(model, replace(PLAIN, lattice=2))
