import json
import os
import random
import shutil
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import pytest
from corpus_texts import prose, settings_for

from crystalline.corpus import decoding, portions, stage
from crystalline.corpus.clean.mending import normal as clean
from crystalline.corpus.documents import original
from crystalline.corpus.extract import extraction
from crystalline.corpus.split import fraction
from crystalline.errors import EXIT_DAMAGED, UserError
from crystalline.run_folder import RunFolder, damage
from crystalline.settings import Extract


def both(run):
    return list(stage.iterate(run, "train")), list(stage.iterate(run, "held_out"))


def check(report, run):
    """What must hold for every corpus."""
    train, held_out = both(run)
    assert damage(run.corpus) == ""
    assert not list(run.root.glob(".*"))
    assert sorted(os.listdir(run.corpus)) == [
        "SHA256SUMS", "held_out.jsonl", "removed.jsonl", "report.json", "skipped.jsonl", "sources.jsonl",
        "train.jsonl"
    ]  # fmt: skip
    assert not run.corpus_work.exists()
    assert json.loads((run.corpus / "report.json").read_text()) == report
    for kind, size in (("documents", lambda d: 1), ("bytes", lambda d: len(d.text.encode()))):
        counts = report[kind]
        assert counts["in"] == counts["kept"] + sum(counts["removed"].values())
        assert counts["kept"] == counts["train"] + counts["held_out"]
        assert counts["train"] == sum(map(size, train)) > 0
        assert counts["held_out"] == sum(map(size, held_out)) > 0
    sources, removed = list(stage.records(run, "sources")), list(stage.records(run, "removed"))
    for kind in ("documents", "bytes"):
        for source in sources:
            assert source[kind]["in"] == source[kind]["kept"] + sum(source[kind]["removed"].values())
        for part in ("in", "kept"):
            assert sum(source[kind][part] for source in sources) == report[kind][part]
        by_reason = Counter()
        for source in sources:
            by_reason.update(source[kind]["removed"])
        assert {k: v for k, v in by_reason.items() if v} == report[kind]["removed"]
    assert Counter(entry["reason"] for entry in removed) == report["documents"]["removed"]
    files = report["files"]
    assert files["seen"] == files["read"] + sum(reason["count"] for reason in files["skipped"].values())
    assert files["read"] == sum(files["formats"].values())
    hashes = [d.hash for d in held_out + train]
    assert hashes == sorted(set(hashes))
    assert report["bytes"]["held_out"] >= 300
    return train, held_out


def test_mixed_folder_adds_up_and_everything_is_accounted_for(tmp_path, texts, run):
    (texts / "dos.txt").write_bytes(b"\xef\xbb\xbf" + prose(2000, 100).replace("\n", "\r\n").encode())
    (texts / "latin.c").write_bytes("/* für größere Bäume, über Flüsse */\n".encode("cp1252") * 30)
    (texts / "copy.md").write_bytes((texts / "part1" / "text1.md").read_bytes() + b"\n\n  \n")
    (texts / "empty.txt").touch()
    (texts / "blank.txt").write_text(" \n\t\n")
    (texts / "data").write_bytes(bytes(1000))
    (texts / "song.mp3").write_bytes(b"not looked at")
    (texts / "page.html").write_text(f"<html><body><article><p>{prose(900, 101)}</p></article></body></html>")
    (texts / "broken.pdf").write_bytes(b"%PDF-1.7 and nothing more")
    (texts / ".git").mkdir()
    (texts / "broken.txt").write_bytes(b"\xff\xfe\x00\xd8\x41\x00")
    (html,) = extraction.extract(extraction.Raw("", texts / "page.html"), Extract())
    page = "".join(html.text)
    settings = settings_for(texts)
    report = stage.build(settings, run)
    check(report, run)
    assert report["files"]["read"] == 36
    assert report["files"]["encodings"] == {"utf-8": 34, "cp1250": 1}
    skipped = {reason: entry["count"] for reason, entry in report["files"]["skipped"].items()}
    assert skipped == {"binary": 2, "broken": 1, "undecodable": 1}
    assert report["files"]["skipped"]["undecodable"]["names"] == [str(texts / "broken.txt")]
    assert report["folders_skipped"] == {"not entered": {"count": 1, "names": [str(texts / ".git")]}}
    assert report["documents"]["removed"] == {"duplicate": 1, "empty": 2}
    assert report["bytes"]["removed"]["empty"] == 4
    assert report["bytes"]["removed"]["cleaning"] > 0
    assert report["bytes"]["in"] == sum(
        len("".join(decoding.pieces(path, decoding.encoding_of(path))).encode())
        for path in texts.rglob("*")
        if path.is_file() and path.name not in ("data", "song.mp3", "page.html", "broken.txt", "broken.pdf")
    ) + len(page.encode())
    lines = [json.loads(line) for line in (run.corpus / "skipped.jsonl").read_text().splitlines()]
    assert [Path(line["source"]).name for line in lines] == [
        ".git", "broken.pdf", "broken.txt", "data", "song.mp3"
    ]  # fmt: skip
    assert report["fingerprint"] == stage.fingerprint(settings, run)


def test_every_document_is_traced_to_its_place(texts, run):
    (texts / "wide.txt").write_bytes(prose(5000, 200).replace("\n", "\r\n").encode("utf-16"))
    stage.build(settings_for(texts, section_bytes=1024), run)
    train, held_out = both(run)
    assert len(train) > 100
    for document in train + held_out:
        assert clean(original(Path(document.source), document.offset, document.length)) == document.text


def test_same_documents_whatever_the_names_and_the_order(tmp_path, texts, run):
    stage.build(settings_for(texts), run)
    shuffled = tmp_path / "shuffled"
    paths = sorted(texts.rglob("*.md"))
    random.Random(3).shuffle(paths)
    for number, path in enumerate(paths):
        target = shuffled / f"x{number % 3}" / f"{number}.txt"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    other = RunFolder(tmp_path / "other")
    stage.build(settings_for(shuffled / "x2", shuffled / "x0", shuffled / "x1"), other)
    for one, two in zip(both(run), both(other), strict=True):
        assert [(d.hash, d.text) for d in one] == [(d.hash, d.text) for d in two]


@pytest.mark.parametrize(("workers", "portion"), [(1, 8 << 20), (3, 20_000), (2, 1)])
def test_duplicates_and_near_duplicates_go_alike_in_any_order_and_number_of_processes(
    tmp_path, texts, run, workers, portion, monkeypatch
):
    source = random.Random(4)
    contents = [path.read_text("utf-8") for path in sorted(texts.rglob("*.md"))]
    for text in contents[10:25]:
        contents.append(text)
        for _ in range(3):
            words = text.split(" ")
            words[source.randrange(len(words))] = f"changed{len(contents)}"
            contents.append(" ".join(words))
    results = []
    for number in range(2):
        folder = tmp_path / f"order{number}"
        folder.mkdir()
        for name, text in enumerate(contents):
            (folder / f"{name:03}.md").write_text(text, encoding="utf-8")
        place = RunFolder(tmp_path / f"run{number}")
        monkeypatch.setattr(portions, "PORTION_BYTES", portion if number else 8 << 20)
        report = stage.build(settings_for(folder, clean={"workers": workers if number else 1}), place)
        train, held_out = check(report, place)
        results.append(([(d.hash, d.text) for d in train + held_out], report["documents"], report["bytes"]))
        assert report["documents"]["removed"]["duplicate"] >= 15
        assert report["documents"]["removed"]["near duplicate"] >= 15
        source.shuffle(contents)
    assert results[0] == results[1]


def test_the_same_sources_give_the_same_bytes(tmp_path, texts, run):
    stage.build(settings_for(texts / "part0", texts), run)
    other = RunFolder(tmp_path / "other")
    stage.build(settings_for(texts, texts / "part0"), other)
    for name in ("train.jsonl", "held_out.jsonl", "skipped.jsonl", "report.json"):
        one, two = (folder.corpus / name for folder in (run, other))
        assert one.read_bytes() == two.read_bytes() or name == "skipped.jsonl"


def test_of_equal_texts_the_first_path_is_kept(tmp_path, texts, run):
    for name in ("z.txt", "b/c.txt", "b.txt"):
        path = tmp_path / "more" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("the very same text\n" * 9)
    stage.build(settings_for(texts, tmp_path / "more"), run)
    train, held_out = both(run)
    (kept,) = (d for d in train + held_out if d.text.startswith("the very same"))
    assert kept.source == str(tmp_path / "more" / "b" / "c.txt")


def test_held_out_documents_are_those_with_small_hashes(tmp_path, run):
    for seed in range(300):
        (tmp_path / f"{seed}.txt").write_text(prose(500, seed))
    train, held_out = check(stage.build(settings_for(tmp_path, held_out=0.1), run), run)
    assert all(fraction(bytes.fromhex(d.hash)) < 0.1 for d in held_out)
    assert all(fraction(bytes.fromhex(d.hash)) >= 0.1 for d in train)
    assert 10 < len(held_out) < 60


@pytest.mark.parametrize("size", [2_100, 10_000, 60_000, 400_000])
@pytest.mark.parametrize("share", [0.05, 0.3])
def test_a_single_file_is_divided(tmp_path, run, size, share):
    (tmp_path / "book.txt").write_text(prose(size, 1), encoding="utf-8")
    report = stage.build(settings_for(tmp_path / "book.txt", held_out=share), run)
    check(report, run)
    held_out = report["bytes"]["held_out"] / report["bytes"]["kept"]
    assert share / 5 < held_out < share + 0.2
    assert report["section_bytes"] >= 256


def test_one_large_among_small_files_is_divided(tmp_path, run):
    (tmp_path / "large.txt").write_text(prose(50_000, 1))
    for seed in range(2, 5):
        (tmp_path / f"{seed}.txt").write_text(prose(120, seed))
    report = stage.build(settings_for(tmp_path), run)
    check(report, run)
    assert report["bytes"]["train"] > 0.75 * report["bytes"]["kept"]


def test_small_notes_are_not_cut(tmp_path, run):
    for seed in range(20):
        (tmp_path / f"{seed}.txt").write_text(prose(400, seed))
    report = stage.build(settings_for(tmp_path), run)
    check(report, run)
    assert report["documents"]["kept"] == 20


# --- what can be wrong with the input ----------------------------------------------------------------


def failure(settings, run) -> UserError:
    with pytest.raises(UserError) as caught:
        stage.build(settings, run)
    assert not run.corpus.exists()
    assert not list(run.root.iterdir())
    return caught.value


def test_an_empty_folder(tmp_path, run):
    (tmp_path / "empty").mkdir()
    error = failure(settings_for(tmp_path / "empty"), run)
    assert f"{tmp_path / 'empty'}: no text in 0 files" in error.why
    assert "2,000 bytes" in error.why


def test_only_binary_files_are_named(tmp_path, run):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in "abcde":
        (folder / f"{name}.mp3").touch()
    (folder / "noise").write_bytes(bytes(99))
    error = failure(settings_for(folder), run)
    assert f"6 files skipped (binary): {folder / 'a.mp3'}, {folder / 'b.mp3'}" in error.why


def test_too_little_text_says_how_much_there_is(tmp_path, run):
    (tmp_path / "a.txt").write_text("x" * 1500)
    (tmp_path / "b.txt").write_text("x" * 1500)
    (tmp_path / "c.txt").write_text("\n")
    error = failure(settings_for(tmp_path / "a.txt", tmp_path / "b.txt", tmp_path / "c.txt"), run)
    assert "only 1,500 bytes of different text in 3 files" in error.why
    assert "1 document removed (duplicate, 1,500 bytes)" in error.why
    assert "1 document removed (empty)" in error.why


def test_the_same_line_over_and_over_is_too_little(tmp_path, run):
    (tmp_path / "a.txt").write_text("all work and no play makes a dull boy\n" * 1000)
    assert "removed (repetition" in failure(settings_for(tmp_path / "a.txt"), run).why


def test_a_missing_path(tmp_path, run):
    assert str(tmp_path / "gone") in failure(settings_for(tmp_path / "gone"), run).why


def test_a_file_that_may_not_be_read_is_named_and_the_rest_goes_on(texts, run, monkeypatch):
    secret = texts / "part0" / "text4.md"

    def refusing(path, *mode):
        if path == secret:
            raise PermissionError(13, "Permission denied", str(path))
        return open(path, *mode)

    monkeypatch.setattr(decoding, "open", refusing, raising=False)
    report = stage.build(settings_for(texts), run)
    check(report, run)
    assert report["files"]["skipped"] == {"unreadable": {"count": 1, "names": [str(secret)]}}
    assert '"detail": "Permission denied"' in (run.corpus / "skipped.jsonl").read_text()


def test_a_file_that_changes_while_it_is_read(texts, run, monkeypatch):
    changing = texts / "part0" / "text4.md"
    changing.write_text(prose(20_000, 4))  # a small one would be read at once
    real, make = extraction.encoding_of, portions.make

    def judge_then_change(content, declared):
        encoding = real(content, declared)
        if content == changing:
            changing.write_bytes(b"\xff\xff\xff")
        return encoding

    monkeypatch.setattr(extraction, "encoding_of", judge_then_change)
    monkeypatch.setattr(portions, "PORTION_BYTES", 20_000)
    alone = settings_for(texts, clean={"workers": 1})
    with pytest.raises(UserError) as caught:
        stage.build(alone, run)
    assert f"{changing} changed while it was being read" in caught.value.why
    finished = {path for path in run.corpus_work.iterdir() if not path.name.startswith(".")}
    assert finished, "what was read before is kept"
    monkeypatch.setattr(extraction, "encoding_of", real)
    made = []
    monkeypatch.setattr(
        portions, "make", lambda portion, folder, *rest: (made.append(folder), make(portion, folder, *rest))
    )
    check(stage.build(alone, run), run)
    assert made
    assert finished.isdisjoint(made)


def test_names_are_limited_in_the_report_only(texts, run):
    for number in range(70):
        (texts / f"{number}.mp3").touch()
    report = stage.build(settings_for(texts), run)
    entry = report["files"]["skipped"]["binary"]
    assert (entry["count"], len(entry["names"])) == (70, 50)
    assert (run.corpus / "skipped.jsonl").read_text().count("\n") == 70


# --- interruption and damage ---------------------------------------------------------------------------


def test_a_failure_keeps_the_corpus_that_was_there(texts, run):
    stage.build(settings_for(texts), run)
    before = (run.corpus / "SHA256SUMS").read_bytes()
    (texts / "new.txt").write_text(prose(500, 77))

    def stop(message):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stage.build(settings_for(texts), run, stop)
    assert (run.corpus / "SHA256SUMS").read_bytes() == before
    assert sorted(os.listdir(run.root)) == ["corpus", "corpus-work"]
    stage.build(settings_for(texts), run)
    assert os.listdir(run.root) == ["corpus"]


def python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=1800)


KILLED = """
    import os, signal, sys
    from crystalline.corpus import parallel, portions, stage
    from crystalline.run_folder import RunFolder
    from crystalline.settings import Clean, Corpus, Settings

    def stop(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    source, root, when, workers = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    portions.PORTION_BYTES = 20_000
    settings = Settings(corpus=Corpus(source=[source]), clean=Clean(workers=workers))
    done = 0
    if when.isdigit():  # after so many portions
        real = stage._tally
        def count(folder):
            global done
            done += 1
            return stop() if done > int(when) else real(folder)
        stage._tally = count
    elif when in ("merging", "writing"):
        setattr(stage, {"merging": "Merger", "writing": "_write"}[when], stop)
    elif when == "seal":  # of the corpus folder, which is as good as finished
        stage.write_json = stop
    stage.build(settings, RunFolder(root), lambda _: None)
"""


@pytest.mark.parametrize("when", ["0", "1", "3", "merging", "writing", "seal"])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_kill_at_any_moment_and_the_same_command_again_give_the_same_bytes(
    tmp_path, texts, run, when, workers, monkeypatch
):
    monkeypatch.setattr(portions, "PORTION_BYTES", 20_000)
    killed = python(KILLED, texts, run.root, when, workers)
    assert killed.returncode == -9, killed.stderr
    assert not run.corpus.exists()
    finished = {path for path in run.corpus_work.iterdir() if not path.name.startswith(".")}
    made = []
    real = portions.make
    monkeypatch.setattr(
        portions, "make", lambda portion, folder, *rest: (made.append(folder), real(portion, folder, *rest))
    )
    report = stage.build(settings_for(texts, clean={"workers": 1}), run)
    check(report, run)
    assert finished.isdisjoint(made), "finished portions are kept"
    if when != "0":
        assert finished
    whole = RunFolder(tmp_path / "whole")
    stage.build(settings_for(texts, clean={"workers": 3}), whole)
    assert (run.corpus / "SHA256SUMS").read_bytes() == (whole.corpus / "SHA256SUMS").read_bytes()


def test_a_damaged_portion_is_made_again(texts, run, tmp_path, monkeypatch):
    monkeypatch.setattr(portions, "PORTION_BYTES", 20_000)
    python(KILLED, texts, run.root, "merging", 1)
    victim = sorted(run.corpus_work.iterdir())[0] / "documents.jsonl"
    victim.write_bytes(victim.read_bytes()[:-5] + b"oops\n")
    stage.build(settings_for(texts), run)
    whole = RunFolder(tmp_path / "whole")
    stage.build(settings_for(texts), whole)
    assert (run.corpus / "SHA256SUMS").read_bytes() == (whole.corpus / "SHA256SUMS").read_bytes()


def test_portions_of_other_settings_are_not_used(texts, run, tmp_path):
    python(KILLED, texts, run.root, "merging", 1)
    stage.build(settings_for(texts, section_bytes=1024), run)
    whole = RunFolder(tmp_path / "whole")
    stage.build(settings_for(texts, section_bytes=1024), whole)
    assert (run.corpus / "SHA256SUMS").read_bytes() == (whole.corpus / "SHA256SUMS").read_bytes()


def test_damage_is_reported_with_its_line(texts, run):
    stage.build(settings_for(texts), run)
    path = run.corpus / "train.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], lines[2][:40], b"\n", *lines[3:]]))
    with pytest.raises(UserError, match="line 3 is damaged") as caught:
        list(stage.iterate(run, "train"))
    assert caught.value.exit_code == EXIT_DAMAGED
    path.unlink()
    with pytest.raises(UserError, match="could not read the corpus"):
        list(stage.iterate(run.corpus, "train"))


# --- memory ----------------------------------------------------------------------------------------------

PEAK = """
    import resource, sys
    from crystalline.corpus import stage
    from crystalline.run_folder import RunFolder
    from crystalline.settings import Corpus, Settings
    report = stage.build(Settings(corpus=Corpus(source=[sys.argv[1]])), RunFolder(sys.argv[2]))
    for split in ("train", "held_out"):
        assert sum(1 for _ in stage.iterate(RunFolder(sys.argv[2]), split)) == report["documents"][split]
    print(report["bytes"]["in"], int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) * 1024)
"""


def peak_memory(source: Path, run: RunFolder) -> tuple[int, int]:
    """(bytes of text read, most memory taken in bytes), in a process of its own"""
    done = python(PEAK, source, run.root)
    assert done.returncode == 0, done.stderr
    text, memory = map(int, done.stdout.split())
    return text, memory


def write_large(path: Path, size: int) -> None:
    blocks = [prose(5_000, seed).encode() for seed in range(100)]
    with open(path, "wb") as file:
        number = 0
        while file.tell() < size:
            file.write(b"%d\n" % number + blocks[number % 100])
            number += 1


def test_memory_does_not_grow_with_a_single_file(tmp_path, run):
    write_large(tmp_path / "large.txt", 40_000_000)
    _, small = peak_memory(write_and_name(tmp_path / "small.txt", 400_000), run)
    text, large = peak_memory(tmp_path / "large.txt", run)
    assert text >= 40_000_000
    assert large - small < 25_000_000


def write_and_name(path: Path, size: int) -> Path:
    write_large(path, size)
    return path


@pytest.mark.slow
def test_a_file_of_300_megabytes_takes_less_than_100_of_memory(tmp_path, run):
    text, memory = peak_memory(write_and_name(tmp_path / "large.txt", 300_000_000), run)
    assert text >= 300_000_000
    assert memory < 100_000_000


GIGABYTE = """
    import resource, sys
    from crystalline.corpus import stage
    from crystalline.run_folder import RunFolder
    from crystalline.settings import Clean, Corpus, Settings
    settings = Settings(corpus=Corpus(source=[sys.argv[1]], section_bytes=4096), clean=Clean(workers=2))
    report = stage.build(settings, RunFolder(sys.argv[2]))
    mine = int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
    theirs = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(report["bytes"]["in"], report["documents"]["kept"], (mine + 2 * theirs) * 1024)
"""


@pytest.mark.slow
def test_a_gigabyte_in_documents_as_of_pages_takes_less_than_500_megabytes(tmp_path, run):
    """All processes together, what they share counted again for each; near duplicates looked for among 300,000."""
    source = random.Random(1)
    words = [
        source.choice("bdfglmnrst") + source.choice("aeiou") + source.choice("nrstl") + str(i) for i in range(9000)
    ]
    sentences = [" ".join(source.choices(words, k=14)) + "." for _ in range(30_000)]
    folder = tmp_path / "large"
    folder.mkdir()
    for number in range(250):
        (folder / f"{number}.txt").write_text("\n".join(source.choices(sentences, k=40_000)))
    done = python(GIGABYTE, folder, run.root)
    assert done.returncode == 0, done.stderr
    text, kept, memory = map(int, done.stdout.split())
    assert text >= 1_000_000_000
    assert kept > 200_000
    assert memory <= 500_000_000
