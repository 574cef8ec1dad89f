"""Masking, measured on both sides: what is missed, and what is masked though it is nobody's."""

import json
import random
import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from personal_data import HARMLESS, REAL

from crystalline.corpus.clean.personal import IN_CODE, KINDS, luhn, masked


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
