import hashlib
import json
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crystalline.corpus.documents import Document, from_line, to_line
from crystalline.corpus.portions import make_known
from crystalline.corpus.split import MINIMUM_HELD_OUT, Merger, Split, fraction

NUMBERS = count()


def document(text: str, source: str = "s") -> Document:
    return Document(hashlib.sha256(text.encode()).hexdigest(), source, 0, len(text.encode()), text)


def sort(folder, documents, share, portions=1, near=0.0):
    """(the split, the documents that stay, those that go) of documents that were dealt into portions."""
    folders = [folder / f"portion{next(NUMBERS)}" for _ in range(portions)]
    size = -(-len(documents) // portions) if documents else 1
    for number, place in enumerate(folders):
        make_known(documents[number * size : (number + 1) * size], place, near > 0)
    with Merger(folders) as merger:
        if near:
            merger.drop_near(near)
        gone = [(merger.at(d.portion, d.row), d.reason, merger.at(*d.of), d.likeness) for d in merger.duplicates]
        return merger.split(share), [from_line(line) for line in merger.lines()], gone


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.text('aé\n"\\', min_size=1, max_size=4), max_size=40), st.integers(1, 4))
def test_sorted_by_hash_each_text_once_the_first_added_kept(tmp_path, texts, portions):
    added = [document(text, f"file{i}") for i, text in enumerate(texts)]
    first = {}
    for item in added:
        first.setdefault(item.hash, item)
    split, found, gone = sort(tmp_path, added, 0.5, portions)
    assert found == sorted(first.values(), key=lambda d: d.hash)
    assert split.documents == len(first)
    assert split.bytes == sum(len(d.text.encode()) for d in first.values())
    assert sorted(d.source for d, *_ in gone) == sorted({d.source for d in added} - {d.source for d in found})
    assert all((reason, of) == ("duplicate", first[d.hash]) for d, reason, of, _ in gone)


def test_many_documents_are_divided_by_their_hash_alone(tmp_path):
    added = [document(f"text {i} " + "x" * 1000) for i in range(400)]
    split, found, _ = sort(tmp_path, added, 0.1)
    below = [d for d in found if fraction(bytes.fromhex(d.hash)) < 0.1]
    assert found[: split.held_out] == below
    assert 15 < split.held_out < 80
    assert split.held_out_bytes == sum(len(d.text) for d in below)
    # Those held out stay so when others come.
    more = added + [document(f"more {i} " + "x" * 1000) for i in range(400)]
    grown, found, _ = sort(tmp_path, more, 0.1)
    assert {d.hash for d in below} <= {d.hash for d in found[: grown.held_out]}


@pytest.mark.parametrize("count", range(2, 12))
@pytest.mark.parametrize("share", [0.001, 0.05, 0.5])
def test_both_sides_get_something_when_there_are_few(tmp_path, count, share):
    split, _, _ = sort(tmp_path, [document(f"{i} " * 500) for i in range(count)], share)
    assert 1 <= split.held_out < count
    assert split.held_out_bytes >= MINIMUM_HELD_OUT


def test_few_small_documents_are_held_out_until_they_are_enough(tmp_path):
    split, found, _ = sort(tmp_path, [document(f"note {i} " + "x" * 92) for i in range(30)], 0.01)
    held = found[: split.held_out]
    assert MINIMUM_HELD_OUT <= sum(len(d.text) for d in held) < MINIMUM_HELD_OUT + 100
    assert split.sensible(0.01)


def test_what_is_not_sensible():
    assert Split(10, 2, 10_000, 1_000).sensible(0.05)
    assert Split(10, 2, 10_000, 2_500).sensible(0.05)
    assert not Split(10, 2, 10_000, 2_501).sensible(0.05)  # far more than asked for
    assert not Split(2, 1, 10_000, 100).sensible(0.05)  # too little to measure on
    assert not Split(1, 0, 10_000, 0).sensible(0.05)
    assert Split(10, 5, 10_000, 5_000).sensible(0.5)


def test_fraction_is_in_the_unit_interval():
    assert fraction(bytes(32)) == 0
    assert 0.9999999 < fraction(b"\xff" * 32) < 1
    assert fraction(b"\x80" + bytes(31)) == 0.5


def test_a_line_holds_any_text():
    item = document('quote " backslash \\ line\nend \u2028 漢 \U0001f600')
    line = to_line(item)
    assert line.count(b"\n") == 1
    assert "漢".encode() in line  # as it is, for people who search the file
    assert from_line(line) == item
    assert list(json.loads(line)) == ["hash", "source", "offset", "length", "text"]
