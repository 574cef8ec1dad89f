import unicodedata
from itertools import pairwise

import pytest
from corpus_texts import prose
from hypothesis import given
from hypothesis import strategies as st

from crystalline.corpus.clean.mending import normal as clean
from crystalline.corpus.documents import original, sections

# Dense in what can go wrong at a cut: line ends of all kinds, accents, characters of 1 to 4 bytes.
tricky = st.text(st.sampled_from("ab \t\n\r\u0301\u0327é漢\U0001f600\x00\x0c\x85\ufeff\u0958"), max_size=300)
any_text = tricky | st.text(st.characters(exclude_categories=["Cs"]), max_size=300)


@given(any_text, st.integers(8, 60), st.integers(1, 50))
def test_sections_join_to_the_text_and_keep_the_limit(text, limit, piece):
    data = text.encode()
    whole = list(sections([text], limit))
    assert b"".join(whole) == data
    assert all(len(section) <= limit for section in whole)
    assert all(whole) or whole == [b""]
    for section in whole:
        section.decode()  # no character is cut through
    for left, right in pairwise(whole):
        assert not (left.endswith(b"\r") and right.startswith(b"\n"))
    assert list(sections([text[i : i + piece] for i in range(0, len(text), piece)], limit)) == whole


@given(any_text)
def test_cleaning_is_idempotent_and_does_what_it_says(text):
    cleaned = clean(text)
    assert clean(cleaned) == cleaned
    assert unicodedata.is_normalized("NFC", cleaned)
    assert cleaned == cleaned.rstrip()
    assert not cleaned.startswith("\ufeff")
    assert all(unicodedata.category(c) != "Cc" or c in "\t\n" for c in cleaned)


@given(tricky, st.integers(8, 40))
def test_sectioning_loses_no_line_end(text, limit):
    joined = b"".join(sections([text], limit)).decode()
    pieces = [section.decode().replace("\r\n", "\n").replace("\r", "\n") for section in sections([text], limit)]
    assert "".join(pieces) == joined.replace("\r\n", "\n").replace("\r", "\n")


def test_cleaning_by_example():
    assert clean("\ufeffa\r\nb\rc\td\x00\x0c\x9f  \n\n") == "a\nb\nc\td"
    assert clean("e\u0301") == "é"
    assert clean("  indented\n") == "  indented"
    assert clean(" \n\t") == ""


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("one\ntwo three\n\nfour\nfive six " + "x" * 30, "one\ntwo three\n\n"),
        ("one two thr\r\n\r\nfour\r\nfive " + "x" * 40, "one two thr\r\n\r\n"),
        ("one two three\nfour five " + "x" * 40, "one two three\n"),
        ("one\ntwo three four five " + "x" * 40, "one\ntwo three four "),  # the line end is too far back
        ("x" * 50, "x" * 20),
        ("漢" * 20, "漢" * 6),
        ("x" * 19 + "e\u0301" * 20, "x" * 19),  # the accent stays with its letter
        ("x" * 19 + "\r\n" + "y" * 30, "x" * 19),
    ],
    ids=["blank line", "dos blank line", "line", "word", "anywhere", "character", "accent", "inside a line end"],
)
def test_the_best_boundary_is_taken(text, first):
    assert next(sections([text], 20)).decode() == first


def test_no_crumb_at_the_end():
    sizes = [len(section) for section in sections(["word " * 2020], 5000)]
    assert sizes[0] == 5000
    assert len(sizes) == 3
    assert min(sizes) > 2000


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_the_original_of_a_document_is_found_again(tmp_path, monkeypatch, encoding):
    monkeypatch.setattr("crystalline.corpus.decoding.PIECE", 1000)
    path = tmp_path / "file"
    text = prose(9_000, 6).replace("\n", "\r\n")
    path.write_bytes(text.encode(encoding))
    offset = 0
    for section in sections([text], 1024):
        assert original(path, offset, len(section)).encode() == section
        offset += len(section)
    assert offset == len(text.encode())
