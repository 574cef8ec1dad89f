"""Masking, measured on both sides: what is missed, and what is masked though it is nobody's."""

import json
import random
import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from personal_data import HARMLESS, REAL

from crystalline.corpus.clean.personal import IN_CODE, KINDS, find_places, luhn, masked


@pytest.mark.parametrize(("kind", "text"), REAL)
def test_personal_data_is_masked(kind, text):
    counts = Counter()
    assert masked(re.sub("[«»]", "", text), KINDS, counts) == re.sub("«.*?»", f"<{kind}>", text)
    assert counts == {kind: 1}


@pytest.mark.parametrize("text", HARMLESS)
def test_what_only_looks_like_it_stays(text):
    assert masked(text, KINDS) == text


def test_only_the_kinds_that_are_asked_for():
    text = "anna.schmidt@web.de, +49 30 901820"
    assert masked(text, ["email"]) == "<email>, +49 30 901820"
    assert masked(text, ["phone"]) == "anna.schmidt@web.de, <phone>"
    assert masked(text, []) is text


@pytest.mark.parametrize(("kind", "text"), REAL)
def test_masking_masked_text_changes_nothing(kind, text):
    once = masked(re.sub("[«»]", "", text), KINDS)
    assert masked(once, KINDS) == once


@given(st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("@.+-0123456789 :/abc"), max_size=200))
def test_any_text_can_be_masked_and_again(text):
    once = masked(text, KINDS)
    assert masked(once, KINDS) == once or re.search("<(" + "|".join(KINDS) + ")>", once)


def test_private_key_blocks_go_whole():
    block = (
        "-----BEGIN RSA PRIVATE KEY-----\n" + "MIICXwIBAAKBgQC8ddrhm+LutBvj/=\n" * 4 + "-----END RSA PRIVATE KEY-----"
    )
    assert masked(f"before\n{block}\nafter", IN_CODE) == "before\n<key>\nafter"
    assert masked(block.replace("PRIVATE", "PUBLIC"), IN_CODE) == block.replace("PRIVATE", "PUBLIC")


# What begins a key, and the fewest characters that make it one: it is looked for only where so many stand together.
SHORTEST_KEYS = {
    "AKIA": 16, "ASIA": 16, "ghp_": 36, "gho_": 36, "ghs_": 36, "github_pat_": 50, "glpat-": 20, "xoxb-": 20,
    "sk-": 32, "sk_live_": 16, "rk_live_": 16, "AIza": 35, "hf_": 30,
}  # fmt: skip


@pytest.mark.parametrize(("start", "length"), SHORTEST_KEYS.items())
@pytest.mark.parametrize("around", ["«»", "Ключ: «».", "„«»“ 日本", "x-«» \n"])
def test_the_shortest_keys(start, length, around):
    before, after = around.split("«»")
    key = start + ("A1B2C3D4E5" * 5)[:length]
    assert masked(before + key + after, IN_CODE) == f"{before}<key>{after}"
    assert masked(before + key[:-1] + after, IN_CODE) == before + key[:-1] + after


def test_the_shortest_web_token():
    token = ".".join(["eyJ" + "a1B2c" * 3, "eyJ" + "a1B2c" * 3, "a1B2c" * 3])
    assert masked(f"é {token} é", IN_CODE) == "é <key> é"
    assert masked(token[1:], IN_CODE) == token[1:]


@pytest.mark.parametrize("length", [12, 128])
@pytest.mark.parametrize("digits", [slice(0, 3), slice(-3, None)])
def test_passwords_of_any_length_with_their_digits_anywhere(length, digits):
    value = list(("abcdEFGHijkl" * 11)[:length])
    value[digits] = "123"
    value = "".join(value)
    assert masked(f'日本 Password" : "{value}", x', IN_CODE) == '日本 Password" : "<key>", x'
    assert masked(f"secret={value}\n", IN_CODE) == "secret=<key>\n"
    assert masked(f"colour={value}\n", IN_CODE) == f"colour={value}\n"


@given(
    st.lists(
        st.text(st.sampled_from("aZ09 ()./-_+=\n\u00a0é日😀"), max_size=60) | st.sampled_from([t for _, t in REAL])
    )
)
def test_many_texts_have_the_places_of_each(texts):
    assert find_places(texts) == [find_places([text])[0] for text in texts]
    for text, places in zip(texts, find_places(texts), strict=True):
        # Numbers and keys are looked for nowhere else.
        assert [m.start() for m in re.finditer(r"(?=[0-9][0-9 ()./\u00a0-]{6})", text)] == [
            place for place in places.numbers if text[place] in "0123456789"
        ]
        assert places.keys == [m.start() for m in re.finditer(r"(?=[A-Za-z0-9_-]{16})", text)]


def test_luhn():
    assert luhn("4111111111111111")
    assert luhn("79927398713")
    assert [digit for digit in range(10) if luhn(f"7992739871{digit}")] == [3]


def test_numbers_at_random_are_rarely_masked():
    """Columns of numbers as in tables and logs: false alarms are below one in a thousand numbers."""
    source = random.Random(5)
    forms = ["{:d}", "{:,d}", "{:.4f}", "{:e}", "{:08d}", "{:d}.{:d}", "{:d}-{:d}", "{:d}/{:d}", "{:d} {:d}", "{:x}"]
    numbers = 20_000
    counts = Counter()
    for _ in range(numbers // 10):
        line = []
        for _ in range(10):
            form = source.choice(forms)
            values = [source.randrange(10 ** source.randrange(1, 13)) for _ in range(2)]
            line.append(form.format(*(values if "x" in form or "d" in form else map(float, values))))
        masked(source.choice([" ", "\t", ", ", "; "]).join(line), KINDS, counts)
    assert sum(counts.values()) < numbers / 1000, json.dumps(counts)
