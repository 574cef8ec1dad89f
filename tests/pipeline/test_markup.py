"""Whatever stands in a text, in a page it is only text."""

from html import unescape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crystalline.pipeline.markup import clean


@pytest.mark.parametrize("text", ["<script>", "a & b", "\"'", "größe 字 🙂\n\ttab", "</pre><img src=x onerror=y>"])
def test_what_can_be_shown_comes_back(text):
    assert unescape(clean(text)) == text
    assert not set(clean(text)) & set("<>\"'")


@pytest.mark.parametrize("text", ["\0", "\x1b[2J", "\ud800", "\r", "\u202e", "\ufffe", "\x85"])
def test_what_cannot_be_shown_is_marked(text):
    assert "�" in clean(text)


@given(st.text(st.characters()))
def test_nothing_is_left_that_means_something(text):
    made = clean(text)
    assert not set(made) & set("<>\"'\0\x1b")
    made.encode("utf-8")
    assert len(unescape(made)) == len(text)
