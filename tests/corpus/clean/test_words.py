"""Words as numbers: the same as cutting a text word by word, however it lies in a batch."""

import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from crystalline.corpus.clean import words
from crystalline.corpus.clean.words import Words, runs

texts = st.lists(st.text("abAB 1.\n-é漢字カ한\U0001f600ß", max_size=40), min_size=1, max_size=6)


def naive(text):
    """The words of a text as bytes: what is no ASCII letter or digit, nor above ASCII, cuts; some stand alone."""
    folded = "".join(c.lower() if c.isascii() else c for c in text)
    found = []
    for part in re.findall(r"[a-z0-9\u0080-\U0010ffff]+", folded):
        found += re.findall(r"[\u3000-\udfff][^\u3000-\udfff]*|[^\u3000-\udfff]+", part)
    return [word.encode() for word in found]


@given(texts)
def test_words_are_those_of_a_plain_loop(batch):
    found = Words.of([text.encode() for text in batch])
    expected = [naive(text) for text in batch]
    assert np.diff(found.first).tolist() == list(map(len, expected))
    assert found.lengths.tolist() == [len(word) for document in expected for word in document]
    names = [word for document in expected for word in document]
    numbers = dict(zip(names, found.hashes.tolist(), strict=True))
    assert found.hashes.tolist() == [numbers[name] for name in names], "equal words have equal numbers"
    assert len(set(numbers.values())) == len(numbers), "different words have different ones"


@given(texts, st.integers(1, 6))
def test_runs_stay_within_a_document(batch, n):
    found, borders = Words.of([text.encode() for text in batch]).runs(n)
    assert borders[-1] == len(found)
    for i, text in enumerate(batch):
        alone = Words.of([text.encode()]).hashes
        mine = found[borders[i] : borders[i + 1]].tolist()
        assert mine == runs(alone, min(n, max(1, len(alone)))).tolist()


def test_a_long_text_is_cut_where_no_word_is(monkeypatch):
    text = " ".join(f"word{i} naïve漢字" for i in range(2000)).encode()
    whole = Words.of([text, b"end"])
    monkeypatch.setattr(words, "_SLICE", 1000)
    parts = Words.of([text, b"end"])
    for name in ("hashes", "lengths", "first"):
        assert np.array_equal(getattr(whole, name), getattr(parts, name))


def test_numbers_are_the_same_on_every_machine():
    assert Words.of([b"The quick brown fox"]).hashes.tolist() == Words.of([b"the QUICK, brown fox!"]).hashes.tolist()
    assert runs(Words.of([b"the quick brown fox"]).hashes, 4).tolist() == [14342231241582590123]
