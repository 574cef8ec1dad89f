"""The tokenizer gives back every text and every byte, is the same everywhere, and is a textbook BPE."""

import json
import os
import random
import re
import subprocess
import sys
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crystalline.errors import EXIT_DAMAGED, EXIT_USAGE, UserError
from crystalline.tokens.tokenizer import (
    BYTE_OF_SYMBOL,
    SMALLEST_VOCABULARY,
    SPECIAL_TOKENS,
    Tokenizer,
    choose_vocabulary_size,
)

HARD_TEXTS = [
    "", " ", "  \n \r\n\t\v\x00", "\x00" * 5, "don't I'LL they’ve", "1234567 3.14 ½ ٣٤٥",
    "👩‍👩‍👧‍👦 🇫🇮 🏳️‍🌈", "e\u0301\u0327 n\u0303", "नमस्ते  สวัสดี  שָׁלוֹם  Ελλάδα", "中文 日本語 한국어",
    "\ufeffbom", "\u202eright to left\u202c", "a\u00a0b\u2003c\u2028d", "\U0010ffff\ufffe", "ＦＵＬＬ ﬁ ſ \u212a",
    "def f(self, _x__y):\n\treturn {'a': [1, 2]}  # <- ok?\r\n\r\n", "\ufffd", "\\x80\\udc80",
]  # fmt: skip


@pytest.mark.parametrize("text", HARD_TEXTS)
def test_hard_texts_come_back(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode_bytes(ids) == text.encode()
    assert tokenizer.encode_bytes(text.encode()) == ids


@settings(max_examples=300, deadline=None)
@given(text=st.text())
def test_every_text_comes_back(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.encode_bytes(text.encode()) == ids


@settings(max_examples=300, deadline=None)
@given(data=st.binary() | st.text().map(lambda text: text.encode("utf-16")))
def test_all_bytes_come_back(tokenizer, data):
    assert tokenizer.decode_bytes(tokenizer.encode_bytes(data)) == data


def test_ten_thousand_random_byte_strings_come_back(tokenizer):
    draw = random.Random(12)
    pieces = [b"\xed\xa0\x80", b"\xc0\x80", b"\xf8\x88", b"\xe2\x82", "é🙂".encode(), b" the", b"\xff"]
    for _ in range(10_000):
        data = draw.randbytes(draw.randrange(24)) + draw.choice(pieces) + draw.randbytes(draw.randrange(4))
        assert tokenizer.decode_bytes(tokenizer.encode_bytes(data)) == data


@pytest.mark.parametrize("character", ["a", " ", "\n", "'", "\u0301"])
def test_a_megabyte_of_one_character(tokenizer, character):
    text = character * 1_000_000
    start = time.monotonic()
    ids = tokenizer.encode(text)
    assert time.monotonic() - start < 20  # a quadratic cut would take hours
    assert tokenizer.decode(ids) == text


def test_names_of_special_tokens_in_text_are_plain_text(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    for each in (tokenizer, Tokenizer.load(tmp_path)):
        for name in SPECIAL_TOKENS:
            for text in (name, f"{name}{name}", f"a {name}b\n"):
                ids = each.encode(text)
                assert not any(each.is_special(id_) for id_ in ids)
                assert each.decode(ids) == text
                assert each.encode_bytes(text.encode()) == ids


def test_special_tokens(tokenizer):
    t = tokenizer
    assert [t.pad, t.unk, t.bos, t.eos, t.system, t.user, t.assistant, t.end] == list(range(8))
    assert [id_ for id_ in range(t.vocabulary_size) if t.is_special(id_)] == list(range(8))
    assert t.decode([t.bos, *t.encode("x y"), t.end]) == "x y"
    # Even trained on a text full of them they stay out of what text can become.
    trained = Tokenizer.train(["<|end|> <|user|>" * 500], 600)
    assert not any(trained.is_special(id_) for id_ in trained.encode("<|end|> <|user|>"))


def test_half_a_surrogate_pair_is_a_clear_error(tokenizer):
    for call in (lambda: tokenizer.encode("ab\ud800"), lambda: Tokenizer.train(["ab\ud800"], 300)):
        with pytest.raises(UserError, match="surrogate pair at character 2"):
            call()


def test_batches_equal_single_texts(tokenizer):
    assert tokenizer.encode_batch(HARD_TEXTS) == [tokenizer.encode(text) for text in HARD_TEXTS]
    assert tokenizer.encode_batch([]) == []


def test_token_bytes_are_the_tokens(tokenizer):
    assert sorted(tokenizer.encode_bytes(bytes([b]))[0] for b in range(256)) == sorted(
        id_ for id_ in range(tokenizer.vocabulary_size) if len(tokenizer.token_bytes(id_)) == 1
    )
    for id_ in (-1, tokenizer.vocabulary_size):
        with pytest.raises(UserError):
            tokenizer.token_bytes(id_)


def test_words_do_not_run_over_their_borders(tokenizer):
    for id_ in range(8, tokenizer.vocabulary_size):
        text = tokenizer.token_bytes(id_).decode("utf-8", errors="replace")
        assert not re.search(r"[0-9]{4}|[A-Za-z][^A-Za-z]|\S ", text.replace("\ufffd", "")), text


def test_small_texts_give_small_vocabularies():
    assert Tokenizer.train([], 5000).vocabulary_size == SMALLEST_VOCABULARY
    few = Tokenizer.train(["to be or not to be"], 5000)
    assert SMALLEST_VOCABULARY < few.vocabulary_size < 280
    assert few.decode(few.encode("日本")) == "日本"
    with pytest.raises(UserError) as error:
        Tokenizer.train(["x"], SMALLEST_VOCABULARY - 1)
    assert error.value.exit_code == EXIT_USAGE
    assert Tokenizer.train(["x" * 99], SMALLEST_VOCABULARY).vocabulary_size == SMALLEST_VOCABULARY


def test_texts_are_read_as_a_stream_and_only_once(tokenizer):
    texts = iter(["the cat sat. " * 50, "the dog sat. " * 50])
    once = Tokenizer.train(texts, 300)
    assert next(texts, None) is None
    assert once.fingerprint == Tokenizer.train(["the cat sat. " * 50, "the dog sat. " * 50], 300).fingerprint
    assert once.fingerprint != tokenizer.fingerprint


TRAIN_IN_A_PROCESS = """
import sys
sys.path.insert(0, sys.argv[1])
from conftest import library_texts
from crystalline.tokens.tokenizer import Tokenizer
print(Tokenizer.train(library_texts(300_000), 1000).fingerprint)
"""


def test_the_number_of_threads_changes_nothing():
    def train(threads, parallel):
        environment = {**os.environ, "RAYON_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": parallel}
        command = [sys.executable, "-c", TRAIN_IN_A_PROCESS, str(Path(__file__).parent)]
        return subprocess.run(command, env=environment, check=True, capture_output=True).stdout

    assert len({train("1", "false"), train("2", "true"), train("5", "true")}) == 1


def naive_merges(texts, count, min_frequency):
    """Byte-pair encoding as the textbook has it, for ASCII: recount every pair, join the most frequent."""
    split = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\nA-Za-z0-9]?[A-Za-z]+|[0-9]{1,3}| ?[^\sA-Za-z0-9]+[\r\n]*"
    split += r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    symbol_of_byte = {byte: symbol for symbol, byte in BYTE_OF_SYMBOL.items()}
    found = [word for text in texts for word in re.findall(split, text)]
    words = Counter(tuple(symbol_of_byte[b] for b in word.encode()) for word in found)
    id_of = {symbol: i for i, symbol in enumerate([*SPECIAL_TOKENS, *sorted(BYTE_OF_SYMBOL)])}
    merges = []
    while len(merges) < count:
        pairs = Counter()
        for word, times in words.items():
            for pair in pairwise(word):
                pairs[pair] += times
        # Equally frequent pairs: the one of the older tokens.
        best = min(pairs, key=lambda pair: (-pairs[pair], id_of[pair[0]], id_of[pair[1]]))
        if pairs[best] < min_frequency:
            break
        merges.append(list(best))
        id_of.setdefault("".join(best), len(id_of))
        words = Counter({join(word, best): times for word, times in words.items()})
    return merges


def join(word, pair):
    joined, i = [], 0
    while i < len(word):
        both = word[i : i + 2] == pair
        joined.append("".join(pair) if both else word[i])
        i += 2 if both else 1
    return tuple(joined)


def test_merges_equal_a_textbook_implementation(tmp_path):
    texts = [Path(json.__file__).read_text(encoding="ascii"), "ab ab abab bab\n" * 40]
    Tokenizer.train(texts, SMALLEST_VOCABULARY + 250, min_frequency=3).save(tmp_path)
    merges = json.loads((tmp_path / "tokenizer.json").read_text())["model"]["merges"]
    assert len(merges) == 250
    assert merges == naive_merges(texts, 250, 3)


def test_saved_and_loaded(tokenizer, tmp_path):
    folder = tmp_path / "made" / "on demand"
    tokenizer.save(folder)
    loaded = Tokenizer.load(folder)
    assert loaded.fingerprint == tokenizer.fingerprint
    assert loaded.vocabulary_size == tokenizer.vocabulary_size
    assert loaded.encode_batch(HARD_TEXTS) == tokenizer.encode_batch(HARD_TEXTS)
    assert [p.name for p in folder.iterdir()] == ["tokenizer.json"]


@pytest.mark.parametrize("damage", ["", "{}", '{"version": "1.0"', "cut", "no specials"])
def test_damaged_files_are_told(tokenizer, tmp_path, damage):
    tokenizer.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    whole = path.read_text()
    spoiled = {"cut": whole[:-50], "no specials": whole.replace("<|pad|>", "<|pat|>")}
    path.write_text(spoiled.get(damage, damage))
    with pytest.raises(UserError) as error:
        Tokenizer.load(tmp_path)
    assert error.value.exit_code == EXIT_DAMAGED
    with pytest.raises(UserError, match=r"no tokenizer\.json"):
        Tokenizer.load(tmp_path / "nowhere")


def test_transformers_reads_the_file(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    transformers = pytest.importorskip("transformers")
    tokenizer.save(tmp_path)
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    assert len(theirs) == tokenizer.vocabulary_size
    for text in HARD_TEXTS:
        ids = theirs.encode(text, add_special_tokens=False)
        assert ids == tokenizer.encode(text)
        assert theirs.decode(ids, clean_up_tokenization_spaces=False) == text
    assert theirs.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == list(range(8))


@pytest.mark.parametrize(
    ("size", "expected"),
    [(0, 512), (199_999, 512), (200_000, 1024), (10**6, 2048), (8 * 10**6, 4096), (64 * 10**6, 8192),
     (512 * 10**6, 16384), (4 * 10**9, 32768), (10**13, 32768)],
)  # fmt: skip
def test_chosen_vocabulary_sizes(size, expected):
    assert choose_vocabulary_size(size) == expected
