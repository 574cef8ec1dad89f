"""Matrices as people and programs write them, and what is wrong with a line told by its number."""

import json
import time
from fractions import Fraction

import pytest

from crystalline.errors import UserError
from crystalline.lattice.matrix_text import parse_matrix, parse_vector

WANTED = [[1, -2], [Fraction(1, 2), 1000]]


@pytest.mark.parametrize(
    "text",
    [
        "1 -2\n1/2 1000",
        "1,-2\n0.5,1e3\n",
        "# a remark\n\n 1;\t-2 # another\r\n.5 ; 1000\n\n",
        "[[1 -2]\n[1/2 1000]]\n",
        "[[1 -2][0.5 1000]]",
        json.dumps([[1, -2], ["1/2", 1000.0]]),
        json.dumps([[1, -2], [0.5, 1e3]], indent=1),
    ],
)
def test_all_forms_are_read_exactly(text):
    assert parse_matrix(text) == WANTED


@pytest.mark.parametrize("text", ["1 -2 1/3", "1, -2, 1/3", "[1, -2, 1/3]", '[1, -2, "1/3"]', "[1 -2 1/3]\n"])
def test_vectors(text):
    assert parse_vector(text) == [1, -2, Fraction(1, 3)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no number"),
        ("# nothing\n\n", "no number"),
        ("[[]]", "no number"),
        ("[]", "no number"),
        ("1 2\n3 4 5", "line 2: row 2 has length 3, the first row 2"),
        ("\n1 2\n\n3 x", "line 4: 'x' is no"),
        ("1 nan", "line 1: 'nan'"),
        ("1 1/0", "divides by zero"),
        ("1 1e999999999", "exponent"),
        ("[[1, 2],\n[3]]", "line 2: row 2 has length 1"),
        ("[[1, 2],\n[3, 4]", "line 2: a bracket is not closed"),
        ("[[1, 2], [3, 4]]\n5", "line 2: '5' does not belong here"),
        ("[1, 2]", "line 1: '1' stands outside of a row"),
        ("[[[1]]]", "line 1: '[' does not belong here"),
        ("]", "does not belong"),
        ("1 2\n" * 401, "line 401: there are more than 400"),
        ("1 " * 401, "line 1: there are more than 400"),
        ("1" * 5_000_000, "longer than"),
        ("1" * 100_001, "too long"),
        ("{}", "line 1: '{}' is no"),
    ],
)
def test_what_is_no_matrix_is_told_with_its_line(text, words):
    began = time.perf_counter()
    with pytest.raises(UserError) as error:
        parse_matrix(text, "basis.txt")
    assert time.perf_counter() - began < 10
    assert "basis.txt" in error.value.what
    assert words in error.value.why
    assert len(str(error.value)) < 400


def test_a_matrix_is_no_vector():
    with pytest.raises(UserError):
        parse_vector("1 2\n3 4")
