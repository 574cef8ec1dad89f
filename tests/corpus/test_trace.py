"""A passage of the text leads to its source: exactly, but for case and spaces, or the most similar one."""

import random

import pytest
from corpus_texts import prose, settings_for

from crystalline.corpus import stage, trace
from crystalline.corpus.documents import original
from crystalline.corpus.forgotten import forget, forgotten, take_back
from crystalline.errors import UserError

LETTER = (
    "The harbour was silent that morning.\nNobody had seen the ships leave, and nobody spoke of the “reasons” "
    "for it.\n"
    "Only the captain's brother, who kept the old lighthouse, wrote a letter that he never sent.\n"
)


@pytest.fixture
def corpus(texts, run, monkeypatch):
    """Thirty texts, a letter among them, in blocks far smaller than the corpus."""
    monkeypatch.setattr(trace, "BLOCK", 5_000)
    (texts / "letter.txt").write_text(prose(3_000, 77) + "\n" + LETTER + prose(3_000, 78), encoding="utf-8")
    (texts / "copy.txt").write_text(prose(3_000, 77) + "\n" + LETTER + prose(3_000, 78) + "\n\n", encoding="utf-8")
    stage.build(settings_for(texts), run)
    return run.corpus


@pytest.mark.parametrize(
    ("text", "how"),
    [
        ("Nobody had seen the ships leave", "exact"),
        ('nobody spoke of the “reasons” for it.\nOnly the captain\'s', "exact"),
        ("NOBODY  had seen\nthe ships leave", "but for case and spaces"),
        ("spoke of the “Reasons” for it. only", "but for case and spaces"),
        ("“REASONS”", "but for case and spaces"),
        ("the captain's brother, who kept an old lighthouse, wrote many letters that he never sent", "similar"),
    ],
)  # fmt: skip
def test_a_passage_leads_to_its_file_and_place(corpus, texts, text, how):
    first = trace.trace(corpus, text)[0]
    assert first.source == str(texts / "copy.txt")
    assert first.also == [str(texts / "letter.txt")]
    assert first.how == how
    assert (first.likeness == 1) == (how != "similar")
    whole = (texts / "copy.txt").read_bytes()
    assert abs(whole[first.place :].decode("utf-8", "ignore").find(first.found[:10])) <= (
        0 if how != "similar" else 50
    )
    section = original(texts / "copy.txt", first.offset, first.length)
    assert first.found.split()[0] in section
    assert first.before + first.found + first.after in section


def test_every_line_of_every_text_is_found(corpus, texts):
    source = random.Random(1)
    paths = sorted(texts.rglob("*.md"))
    for _ in range(60):
        path = source.choice(paths)
        text = path.read_text("utf-8")
        start = source.randrange(max(1, len(text) - 120))
        passage = text[start : start + source.randrange(40, 120)].strip()
        found = trace.trace(corpus, passage, 50)
        assert str(path) in {p.source for p in found}
        assert {p.how for p in found} == {"exact"}


def test_what_is_not_there_is_not_found(corpus):
    assert trace.trace(corpus, "quantum chromodynamics of heavy quarkonia at finite temperature") == []


def test_at_most_so_many(corpus):
    assert len(trace.trace(corpus, "the cat", 3)) <= 3
    assert len(trace.trace(corpus, "cat", 7)) == 7


def test_nothing_to_trace(corpus):
    with pytest.raises(UserError, match="it is empty"):
        trace.trace(corpus, " \n")


def test_signs_that_json_escapes(texts, run):
    (texts / "odd.txt").write_text(
        prose(500, 5) + '\nback\\slash "quoted"\ttab \u2028 [a-z]+ (x)\n', encoding="utf-8"
    )
    stage.build(settings_for(texts), run)
    for text in ('\\slash "quoted"', '"quoted"\ttab', 'BACK\\slash   "quoted" tab', "[A-Z]+ (X)"):
        assert trace.trace(run.corpus, text)[0].source == str(texts / "odd.txt")


# --- forgetting -------------------------------------------------------------------------------------------


def test_a_forgotten_source_is_left_out_of_the_next_text(texts, run):
    settings = settings_for(texts)
    before = stage.fingerprint(settings, run)
    stage.build(settings, run)
    whole = (run.corpus / "train.jsonl").read_bytes()
    forget(run, str(texts / "part1"))
    forget(run, str(texts / "part0" / "text4.md"))
    forget(run, str(texts / "part1"))  # twice is once
    assert [entry["source"] for entry in forgotten(run)] == [str(texts / "part1"), str(texts / "part0" / "text4.md")]
    assert stage.fingerprint(settings, run) != before
    report = stage.build(settings, run)
    assert report["files"]["skipped"]["forgotten"]["count"] == 9
    sources = {document.source for side in ("train", "held_out") for document in stage.iterate(run, side)}
    assert not any("part1" in source or source.endswith("text4.md") for source in sources)
    assert len(sources) == 21
    take_back(run, str(texts / "part1"))
    take_back(run, str(texts / "part0" / "text4.md"))
    assert stage.fingerprint(settings, run) == before
    stage.build(settings, run)
    assert (run.corpus / "train.jsonl").read_bytes() == whole


def test_what_is_not_forgotten_cannot_be_taken_back(run):
    forget(run, "/a")
    with pytest.raises(UserError, match=r"\(/a is\)"):
        take_back(run, "/b")


@pytest.mark.parametrize(
    ("entry", "source", "covered"),
    [
        ("/a/b", "/a/b", True), ("/a/b", "/a/b/c", True), ("/a/b/", "/a/b/c", True), ("/a/b", "/a/bc", False),
        ("/a/x.zip", "/a/x.zip!inner/b.txt", True), ("https://e.org", "https://e.org/page", True),
        ("https://e.org/page", "https://e.org/page2", False), ("/a/b", "/a", False),
    ],
)  # fmt: skip
def test_what_it_means_to_forget(entry, source, covered):
    from crystalline.corpus.forgotten import covers

    assert covers(entry, source) == covered
