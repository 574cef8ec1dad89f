"""The engine: many texts at once, each as if it was alone."""

import codecs
import itertools
import time

import numpy as np
import pytest
from asked import EOS, Asked, alone

import crystalline
from crystalline.model.generation import Generated
from crystalline.model.sampling import Sampling, log_probabilities
from crystalline.serving.engine import PIECE, Engine, Expired, Full
from crystalline.serving.metrics import Metrics


@pytest.fixture(scope="module")
def model(tiny_run):
    return crystalline.load(tiny_run)


@pytest.fixture
def engine(model):
    made = Engine(model, 8, 16, Metrics().model("tiny"))
    yield made
    made.close()
    assert made.join(30)


def test_a_text_is_the_same_alone_and_among_eight(model, engine):
    """Begun at different times, of different lengths, far beyond the context of 32 tokens."""
    prompts = ["def ", "import os", "", "class A:\n    def f", "for i in", "x", "return self.", "    "]
    asked = [Asked(model, p, seed=s, max_tokens=60 + 7 * s) for s, p in enumerate(prompts)]
    for each in asked:
        engine.submit([each.job])
        time.sleep(0.003)
    for seed, (prompt, each) in enumerate(zip(prompts, asked, strict=True)):
        result = Generated([], "")
        text = model.generate(prompt, Sampling(seed=seed), max_tokens=60 + 7 * seed, result=result)
        assert each.texts() == [text]
        assert each.pieces[-1].reason == result.reason
        assert each.pieces[-1].tokens == len(result.tokens)


def test_many_texts_of_one_prompt_have_the_seeds_that_follow(model, engine):
    asked = Asked(model, "import os, sys, re", n=5, seed=11)
    engine.submit([asked.job])
    assert asked.texts() == [alone(model, "import os, sys, re", 11 + i) for i in range(5)]


def test_the_prompt_of_many_texts_is_read_once(model, engine, monkeypatch):
    read = []
    decoder = engine._decoder
    real = type(decoder).read
    monkeypatch.setattr(type(decoder), "read", lambda self, *a: (read.append(len(a[1])), real(self, *a))[1])
    asked = Asked(model, "import os, sys, re", n=6, max_tokens=4)
    engine.submit([asked.job])
    asked.wait()
    assert sum(read) == len(asked.job.prompt) + 1


def test_a_long_prompt_is_read_in_pieces_while_others_go_on(small_model):
    """Between two pieces of the long one, texts that are being written get their tokens."""
    engine = Engine(small_model, 2, 2, Metrics().model("small"))
    writing = Asked(small_model, "a", max_tokens=400, bias={EOS: -100})
    engine.submit([writing.job])
    writing.came.get(timeout=30)
    vocabulary = small_model.tokenizer.vocabulary_size
    tokens = [int(t) for t in np.random.default_rng(0).integers(8, vocabulary, 10 * PIECE)]
    long = Asked(small_model, tokens, max_tokens=4, how=Sampling(temperature=0))
    before = writing.came.qsize()
    engine.submit([long.job])
    long.wait()
    assert writing.came.qsize() - before >= 9
    expected = itertools.islice(small_model.next_tokens(tokens, Sampling(temperature=0)), 4)
    assert "".join(p.text for p in long.pieces) == small_model.tokenizer.decode(expected)
    engine.close()


def test_stop_strings_end_a_text(model, engine):
    whole = alone(model, "def ", max_tokens=60)
    stop = whole[10:13]
    asked = Asked(model, "def ", max_tokens=60, stop=[stop], alternatives=0)
    engine.submit([asked.job])
    assert asked.texts() == [whole[: whole.index(stop)]]
    assert asked.pieces[-1].reason == "stop"
    assert all(fact.offset < whole.index(stop) for fact in asked.facts())


def test_what_is_told_of_tokens_is_what_the_network_says(model, engine):
    prompt = model.tokenizer.encode("import os, re")
    asked = Asked(model, prompt, max_tokens=6, echo=True, alternatives=3, n=2)
    engine.submit([asked.job])
    for index in range(2):
        text = asked.texts()[index]
        assert text.startswith("import os, re")
        facts = asked.facts(index)
        tokens = [model.tokenizer.bos, *(fact.token for fact in facts)]
        assert tokens[1 : 1 + len(prompt)] == prompt
        logits = model.decoder.fresh().read(0, tokens, every=True)
        for place, fact in enumerate(facts):
            said = log_probabilities(logits[place])
            assert fact.log_probability == said[fact.token]
            assert [token for token, _ in fact.alternatives] == list(np.argsort(-said, kind="stable")[:3])
            before = model.tokenizer.decode_bytes(tokens[: place + 1])
            whole = codecs.getincrementaldecoder("utf-8")("replace").decode(before)
            assert whole == text[: fact.offset]


def test_nothing_but_the_prompt_is_told_of_when_no_tokens_are_wanted(model, engine):
    asked = Asked(model, "import os", max_tokens=0, echo=True, alternatives=1)
    engine.submit([asked.job])
    assert asked.texts() == ["import os"]
    assert [fact.token for fact in asked.facts()] == model.tokenizer.encode("import os")
    assert asked.pieces[-1].reason == "length"
    assert asked.pieces[-1].tokens == 0


def test_penalties_and_bias_change_the_logits(model, engine):
    greedy = Sampling(temperature=0)
    once = Asked(model, "a", max_tokens=30, how=greedy, bias={EOS: -100, 40: 100}, alternatives=0)
    never_again = Asked(
        model, "a", max_tokens=30, how=greedy, bias={EOS: -100, 40: 100}, presence=200.0, alternatives=0
    )
    twice = Asked(model, "a", max_tokens=30, how=greedy, bias={EOS: -100, 40: 100}, frequency=60.0, alternatives=0)
    for asked in (once, never_again, twice):
        engine.submit([asked.job])
    counts = [[fact.token for fact in asked.facts()].count(40) for asked in (once, never_again, twice)]
    assert counts == [30, 1, 2]


def test_a_cancelled_text_frees_its_slot(model, engine):
    asked = [Asked(model, "a", max_tokens=10**9, bias={EOS: -100}) for _ in range(8)]
    engine.submit([each.job for each in asked])
    for each in asked:
        each.came.get(timeout=30)
    assert engine.running == 8
    for each in asked[:3]:
        each.job.cancelled = True
    end = time.monotonic() + 1
    while engine.running != 5:
        assert time.monotonic() < end
        time.sleep(0.001)


def test_a_text_ends_when_its_time_is_over(model, engine):
    asked = Asked(model, "a", max_tokens=10**9, bias={EOS: -100}, deadline=time.monotonic() + 0.3)
    engine.submit([asked.job])
    assert asked.wait()[-1].reason == "length"
    assert asked.pieces[-1].tokens > 1
    assert engine.running == 0


def test_who_waits_too_long_is_told(model, engine):
    endless = [Asked(model, "a", max_tokens=10**9, bias={EOS: -100}) for _ in range(8)]
    engine.submit([each.job for each in endless])
    late = Asked(model, "a", deadline=time.monotonic() + 0.2)
    engine.submit([late.job])
    with pytest.raises(Expired):
        late.wait()
    assert engine.waiting == 0


def test_what_does_not_fit_is_refused_as_a_whole(model, engine):
    endless = [Asked(model, "a", max_tokens=10**9, bias={EOS: -100}) for _ in range(20)]
    engine.submit([each.job for each in endless])
    with pytest.raises(Full):
        engine.submit([Asked(model, "b").job for _ in range(5)])
    assert engine.running + engine.waiting == 20
    engine.submit([Asked(model, "b").job for _ in range(4)])
    with pytest.raises(ValueError, match="at most 8"):
        engine.submit([Asked(model, "b", n=9).job])


def test_many_texts_of_one_prompt_are_not_overtaken_for_ever(model, engine):
    """Eight slots are needed at once; small jobs that come later wait."""
    small = [Asked(model, "a", max_tokens=20, bias={EOS: -100}) for _ in range(4)]
    engine.submit([each.job for each in small])
    large, later = Asked(model, "b", n=8, max_tokens=3), Asked(model, "c", max_tokens=3)
    engine.submit([large.job])
    engine.submit([later.job])
    large.wait()
    later.wait()
    assert engine.waiting == 0


def test_a_retired_engine_finishes_what_it_has(model):
    engine = Engine(model, 2, 8, Metrics().model("tiny"))
    asked = [Asked(model, "def ", seed=seed) for seed in range(6)]
    engine.submit([each.job for each in asked])
    engine.retire()
    assert [each.texts() for each in asked] == [[alone(model, "def ", seed)] for seed in range(6)]
    assert engine.join(10)
    with pytest.raises(RuntimeError, match="no more"):
        engine.submit([asked[0].job])


def test_a_failure_is_told_and_others_are_served_afterwards(model, engine, monkeypatch):
    def broken(*_):
        raise ArithmeticError("broken")

    with monkeypatch.context() as broken_model:
        broken_model.setattr(type(engine._decoder), "read", broken)
        asked = Asked(model, "import os")
        engine.submit([asked.job])
        with pytest.raises(ArithmeticError):
            asked.wait()
    again = Asked(model, "import os")
    engine.submit([again.job])
    assert again.texts() == [alone(model, "import os")]
    assert engine.running == 0
