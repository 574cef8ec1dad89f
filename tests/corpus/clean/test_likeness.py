"""Near duplicates: the exact index, and what is found of a constructed set, whatever the order and the processes."""

import hashlib
import random
import re

import pytest

from crystalline.corpus.clean.likeness import BANDS, SHINGLE, jaccard, shingles, signatures
from crystalline.corpus.documents import Document, from_line
from crystalline.corpus.portions import make_known
from crystalline.corpus.split import KNOWN, NEAR, SAME, Merger

VOCABULARY = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in ("n", "r", "st", "l", "m", "")]


def words(source, count):
    return [source.choice(VOCABULARY) for _ in range(count)]


def exact(a, b):
    """The Jaccard index of two texts' runs of five words, by the definition."""
    runs = []
    for text in (a, b):
        found = re.findall(r"\w+", text.lower())
        runs.append({tuple(found[i : i + SHINGLE]) for i in range(max(1, len(found) - SHINGLE + 1))})
    return len(runs[0] & runs[1]) / len(runs[0] | runs[1])


def altered(source, text, share):
    """The text with about this share of its words changed, moved, added or left out."""
    found = text.split()
    for _ in range(int(share * len(found))):
        place = source.randrange(len(found))
        kind = source.randrange(4)
        if kind == 0:
            found[place] = source.choice(VOCABULARY)
        elif kind == 1:
            del found[place]
        elif kind == 2:
            found.insert(place, source.choice(VOCABULARY))
        else:
            found[place] = found[place].upper()
    return " ".join(found)


def pairs(count, seed):
    """(text, a variant of it, their index), from hardly alike to nearly equal."""
    source = random.Random(seed)
    for _ in range(count):
        text = " ".join(words(source, source.randrange(60, 900)))
        kind = source.randrange(3)
        if kind == 0:
            other = altered(source, text, source.choice([0.004, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2]))
        elif kind == 1:  # another end, as of two pages with the same article
            keep = source.uniform(0.3, 1)
            found = text.split()
            other = " ".join(found[: int(keep * len(found))] + words(source, int((1 - keep) * len(found))))
        else:  # a part of it
            found = text.split()
            other = " ".join(found[: int(source.uniform(0.4, 1) * len(found)) + 5])
        if other != text:
            yield text, other, exact(text, other)


def document(text, source):
    return Document(hashlib.sha256(text.encode()).hexdigest(), source, 0, len(text.encode()), text)


def merged(folder, documents, portions=1, threshold=0.75, known=()):
    """(texts that stay, those that go: text -> (reason, kept text, likeness))"""
    folder.mkdir()
    places = [folder / str(number) for number in range(portions)]
    for number, place in enumerate(places):
        make_known(documents[number::portions], place, True)
    others = []
    if known:
        make_known(known, folder / "known", True)
        others = [folder / "known"]
    with Merger(places, others) as merger:
        merger.drop_near(threshold)
        gone = {
            merger.at(d.portion, d.row).text: (d.reason, merger.at(*d.of).text, d.likeness) for d in merger.duplicates
        }
        return [from_line(line).text for line in merger.lines()], gone


@pytest.mark.parametrize("seed", range(3))
def test_the_index_is_the_exact_one(seed):
    for text, other, index in pairs(40, seed):
        assert jaccard(shingles(text.encode()), shingles(other.encode())) == pytest.approx(index, abs=1e-12)
    assert jaccard(shingles(b""), shingles(b"")) == 1
    assert jaccard(shingles(b"a b c"), shingles(b"A, b. C!")) == 1
    assert jaccard(shingles(b"a b c"), shingles(b"a b d")) == 0


def test_signatures_of_a_batch_are_those_of_its_texts():
    texts = [" ".join(words(random.Random(seed), 1 + 7 * seed)).encode() for seed in range(9)] + [b"", b"one"]
    together = signatures(texts)
    assert together.shape == (len(texts), BANDS)
    for row, text in zip(together, texts, strict=True):
        assert row.tolist() == signatures([text])[0].tolist()


def test_recall_and_false_removal_on_a_constructed_set(tmp_path):
    """Recall is at least 0.95 from an index of 0.8 up, false removal at most 0.5 % up to 0.5 (here: 1 and 0)."""
    made = list(pairs(1500, 7))
    texts = [text for pair in made for text in pair[:2]]
    random.Random(1).shuffle(texts)
    stay, gone = merged(tmp_path / "x", [document(text, str(i)) for i, text in enumerate(texts)], 3)
    assert len(stay) + len(gone) == len(set(texts))
    alike = [pair for pair in made if pair[2] >= 0.8]
    different = [pair for pair in made if pair[2] <= 0.5]
    assert len(alike) > 300
    assert len(different) > 300
    found = sum(a in gone or b in gone for a, b, _ in alike)
    false = sum(a in gone or b in gone for a, b, _ in different)
    assert found >= 0.99 * len(alike)
    assert false == 0
    for text, (reason, kept, likeness) in gone.items():
        assert reason == NEAR
        assert kept in stay
        assert likeness == pytest.approx(exact(text, kept), abs=1e-4)
        assert len(kept) >= len(text)


def test_the_result_depends_on_nothing_but_the_texts(tmp_path):
    texts = [text for pair in pairs(150, 3) for text in pair[:2]]
    source = random.Random(2)
    for text in texts[:40]:  # clusters of more than two, chains among them
        for _ in range(3):
            texts.append(altered(source, texts[-1] if source.random() < 0.5 else text, 0.02))
    results = []
    for trial, portions in enumerate((1, 2, 5, 11)):
        random.Random(trial).shuffle(texts)
        found = [document(text, f"{trial}-{i}") for i, text in enumerate(texts)]
        results.append(merged(tmp_path / str(trial), found, portions))
    assert all(result == results[0] for result in results)
    assert len(results[0][1]) > 100


def test_a_crowd_of_near_duplicates_leaves_one(tmp_path):
    source = random.Random(4)
    base = " ".join(words(source, 400))
    crowd = [altered(source, base, 0.005) for _ in range(400)]
    stay, gone = merged(tmp_path / "x", [document(text, str(i)) for i, text in enumerate(crowd)])
    assert len(stay) <= 3
    assert len(stay) + len(gone) == len(set(crowd))


def test_pages_that_share_a_part_stay(tmp_path):
    """Many pages with the same long introduction, hence in the same groups, and texts of their own."""
    source = random.Random(5)
    same = " ".join(words(source, 100))
    pages = [f"{same} {' '.join(words(source, 150))}" for _ in range(200)]
    twins = [altered(source, page, 0.01) for page in pages[:50]]
    stay, gone = merged(tmp_path / "x", [document(text, str(i)) for i, text in enumerate(pages + twins)])
    assert len(gone) == sum(exact(a, b) >= 0.75 for a, b in zip(pages, twins, strict=False))
    assert len(stay) >= 200


def test_what_another_corpus_has_goes_and_is_no_part_of_this_one(tmp_path):
    source = random.Random(6)
    known = [" ".join(words(source, 200)) for _ in range(20)]
    near = [altered(source, text, 0.005) for text in known[:10]]
    longer = [
        text + " and some more words" for text in known[10:15]
    ]  # longer than what is known: it goes all the same
    new = [" ".join(words(source, 200)) for _ in range(5)]
    mine = [document(text, "mine") for text in [*known[15:], *near, *longer, *new, new[0]]]
    stay, gone = merged(tmp_path / "x", mine, 2, known=[document(text, "theirs") for text in known])
    assert sorted(stay) == sorted(new)
    reasons = [gone[text][0] for text in [*known[15:], *near, *longer]]
    assert reasons == [KNOWN] * len(reasons)
    assert gone[new[0]][0] == SAME


def test_texts_without_words_are_alike_only_if_equal(tmp_path):
    texts = ["{}", "[]", "+-+-+", "| |\n+-+", "[{}]", "ok", "a = {", "a = [", "漢字", "一 二 三"]
    stay, gone = merged(tmp_path / "x", [document(text, "s") for text in [*texts, "{}"]])
    assert sorted(stay) == sorted(texts)
    assert list(gone) == ["{}"]
