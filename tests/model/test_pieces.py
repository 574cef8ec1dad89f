"""Tokens become text in whole characters, up to a stop string."""

import pytest

import crystalline
from crystalline.model.pieces import Pieces, possible_start


@pytest.fixture(scope="module")
def tokenizer(tiny_run):
    return crystalline.load(tiny_run).tokenizer


def in_pieces(tokenizer, data, stop=(), ended=True):
    """What comes when every byte is a token of its own, and whether it was stopped."""
    pieces, given = Pieces(tokenizer, stop), []
    for byte in data:
        given.append(pieces.add(*tokenizer.encode_bytes(bytes([byte]))))
        if pieces.stopped:
            break
    return [*filter(None, [*given, pieces.rest(ended)])], pieces.stopped


def test_a_piece_has_whole_characters(tokenizer):
    assert in_pieces(tokenizer, "aé😀b".encode()) == (["a", "é", "😀", "b"], False)


def test_a_broken_character_is_shown_only_when_the_text_has_ended(tokenizer):
    assert in_pieces(tokenizer, "a😀".encode()[:-1]) == (["a", "�"], False)
    assert in_pieces(tokenizer, "a😀".encode()[:-1], ended=False) == (["a"], False)


@pytest.mark.parametrize(
    ("stop", "pieces", "stopped"),
    [
        (["END"], ["o", "n", "e", " "], True),
        (["ENX"], ["o", "n", "e", " ", "END", " ", "t"], False),
        (["D t", "E"], ["o", "n", "e", " "], True),
        (["one"], [], True),
        (["D tx"], ["o", "n", "e", " ", "E", "N", "D t"], False),
    ],
)
def test_what_may_begin_a_stop_string_is_held_back(tokenizer, stop, pieces, stopped):
    assert in_pieces(tokenizer, b"one END t", stop) == (pieces, stopped)


def test_a_stop_string_in_many_bytes(tokenizer):
    assert in_pieces(tokenizer, "ab😀c".encode(), ["b😀"]) == (["a"], True)


def test_possible_start_of_a_stop_string():
    assert possible_start("abc", ["cde", "bcd"]) == 2
    assert possible_start("abc", ["x"]) == 0
    assert possible_start("", ["x"]) == 0
