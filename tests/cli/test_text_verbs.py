"""clean, trace, forget, tokenize, vocab: what they print, keep, and refuse."""

import io
import json
import sys

import pytest

from crystalline.errors import EXIT_FAILED, EXIT_OK, EXIT_USAGE
from crystalline.tokens.tokenizer import Tokenizer

PAGE = "The harbour was silent that morning, and nobody had seen the ships leave. " * 3


@pytest.fixture
def folder(tmp_path):
    """A folder with a little of everything that cleaning does something about."""
    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "a.txt").write_text(f"{PAGE}\nanna@web.de\n")
    (folder / "b.txt").write_text(f"{PAGE}\nanna@web.de\n\n\n")
    (folder / "c.txt").write_text(
        f"Only the captain's brother kept the old light. {PAGE[:40]}\nbob@web.de or +49 30 901820 today\n"
    )
    (folder / "empty.txt").touch()
    (folder / "repeated.txt").write_text("all work and no play makes a dull boy\n" * 30)
    (folder / "song.mp3").write_bytes(b"ID3\x04")
    return folder


def test_clean_shows_what_it_would_do_and_makes_nothing(folder, cllm, tmp_path):
    code, out, err = cllm("clean", folder)
    assert (code, err) == (EXIT_OK, "")
    lines = [line.split() for line in out.splitlines()]
    assert lines[1][:5] == ["in,", "from", "5", "files", "5"]
    assert ["-", "duplicate", "1"] in [line[:3] for line in lines]
    assert ["-", "empty", "1"] in [line[:3] for line in lines]
    assert ["-", "repetition", "1"] in [line[:3] for line in lines]
    assert ["kept", "2"] in [line[:2] for line in lines]
    assert f"skipped 1 files (binary), such as {folder / 'song.mp3'}" in out
    assert "masked 3 email, 1 phone" in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["documents"]
    code, out, _ = cllm("clean", folder, "--report")
    assert "languages of the prose: en" in out
    assert "repetition, such as\n  all work and no play" in out
    assert f"{folder / 'repeated.txt'}: 1.14 kB in, cleaning 1 B, repetition 1.14 kB" in out


def test_clean_as_json_adds_up(folder, cllm):
    told = json.loads(cllm("clean", folder, "--json", "--report")[1])
    for what in ("documents", "bytes"):
        assert told[what]["in"] == told[what]["kept"] + sum(told[what]["removed"].values())
        assert told[what]["in"] == sum(source[what]["in"] for source in told["sources"])
    assert [source["masked"] for source in told["sources"]][2] == {"email": 1, "phone": 1}


def test_clean_lists_what_was_removed_for_a_reason(folder, cllm):
    code, out, _ = cllm("clean", folder, "--show-removed", "duplicate")
    assert code == EXIT_OK
    assert out.startswith(f"{folder / 'b.txt'}, bytes 0 to ")
    assert f"as in {folder / 'a.txt'}, byte 0 (likeness 1.00)" in out
    told = json.loads(cllm("clean", folder, "--show-removed", "repetition", "--json")[1])
    assert [entry["source"] for entry in told] == [str(folder / "repeated.txt")]
    code, _, err = cllm("clean", folder, "--show-removed", "duplicates")
    assert code == EXIT_FAILED
    assert "did you mean 'duplicate'?" in err


def test_clean_takes_settings_and_several_paths(folder, cllm):
    code, out, _ = cllm("clean", folder / "a.txt", folder / "c.txt", "--set", "clean.mask=[]")
    assert code == EXIT_OK
    assert "masked" not in out
    code, _, err = cllm("clean", folder, "--set", "clean.masks=[]")
    assert (code, "did you mean 'mask'?" in err) == (EXIT_USAGE, True)
    code, _, err = cllm("clean", folder / "nothing")
    assert (code, "no such file or folder" in err) == (EXIT_FAILED, True)


def test_clean_reads_the_text_of_a_run_and_only_that(new_run, cllm):
    code, out, _ = cllm("clean", new_run, "--quiet")
    assert (code, "in, from 4 files" in out) == (EXIT_OK, True)
    assert (new_run / "corpus" / "report.json").exists()
    assert not (new_run / "tokenizer").exists()
    before = (new_run / "corpus" / "report.json").stat().st_mtime_ns
    cllm("clean", new_run)
    assert (new_run / "corpus" / "report.json").stat().st_mtime_ns == before, "it is not read again"
    assert cllm("clean", new_run, new_run)[0] == EXIT_USAGE


def test_clean_of_a_trained_run_changes_nothing(run, tiny_text, cllm):
    before = (run / "corpus" / "report.json").stat().st_mtime_ns
    cllm("forget", run, tiny_text / "heapq.py")
    code, _, err = cllm("clean", run)
    assert (code, "has changed since this run began" in err) == (EXIT_OK, True)
    assert (run / "corpus" / "report.json").stat().st_mtime_ns == before


def test_trace_names_the_source(run, tiny_text, cllm, monkeypatch):
    code, out, _ = cllm("trace", run, "Heap queue algorithm")
    assert (code, out.startswith(f"{tiny_text / 'heapq.py'}, byte ")) == (EXIT_OK, True)
    assert "[Heap queue algorithm]" in out
    monkeypatch.setattr(sys, "stdin", io.StringIO("Heap  QUEUE algorithm\n"))
    told = json.loads(cllm("trace", run, "-", "--json", "-n", "1")[1])
    assert [(passage["source"], passage["how"]) for passage in told] == [
        (str(tiny_text / "heapq.py"), "but for case and spaces")
    ]
    code, out, _ = cllm("trace", run, "quantum chromodynamics quarkonia")
    assert (code, out) == (EXIT_FAILED, "the text of this run has nothing like it\n")


def test_forget_is_kept_listed_and_taken_back(new_run, tiny_text, cllm):
    cllm("clean", new_run)
    code, out, _ = cllm("forget", new_run, tiny_text / "heapq.py")
    assert code == EXIT_OK
    assert "will be left out the next time the text is read" in out
    assert "documents of it, from 1 sources" in out
    assert "still knows" not in out
    assert str(tiny_text / "heapq.py") in cllm("forget", new_run, "--list")[1]
    assert "in, from 3 files" in cllm("clean", new_run)[1]
    assert "is used again" in cllm("forget", new_run, tiny_text / "heapq.py", "--undo")[1]
    assert cllm("forget", new_run, "--list")[1] == "nothing is forgotten\n"
    assert "in, from 4 files" in cllm("clean", new_run)[1]
    assert cllm("forget", new_run, "/other", "--undo")[0] == EXIT_FAILED
    assert cllm("forget", new_run)[0] == EXIT_USAGE
    assert cllm("forget", new_run, "x", "--list")[0] == EXIT_USAGE


def test_forget_says_that_a_trained_model_still_knows(run, tiny_text, cllm):
    code, out, _ = cllm("forget", run, tiny_text / "heapq.py")
    assert code == EXIT_OK
    assert f"the model in {run} has been trained already and still knows what it has learned from it" in out
    assert json.loads(cllm("forget", run, "--list", "--json")[1])[0]["source"] == str(tiny_text / "heapq.py")


def test_tokenize_and_back(run, cllm, monkeypatch):
    text = 'return "é 漢"'
    told = json.loads(cllm("tokenize", run, text, "--json")[1])
    tokenizer = Tokenizer.load(run / "tokenizer")
    assert told["ids"] == tokenizer.encode(text)
    code, out, _ = cllm("tokenize", run, text)
    assert code == EXIT_OK
    ids, pieces, rate = out.splitlines()
    assert list(map(int, ids.split())) == told["ids"]
    assert pieces == "·".join(told["pieces"])
    assert rate.startswith(f"{len(told['ids'])} tokens, {len(text.encode())} bytes: ")
    assert cllm("tokenize", run, "--decode", *told["ids"])[1].splitlines()[0] == text
    assert cllm("tokenize", run / "tokenizer" / "tokenizer.json", text)[1] == out
    assert cllm("tokenize", run / "checkpoints" / "step-00000006", text)[1] == out
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff<|eos|>\x00")))
    told = json.loads(cllm("tokenize", run, "-", "--json")[1])
    assert told["bytes"] == 9
    assert "<|eos|>" not in told["pieces"]
    assert '"\\xff"' in told["pieces"]
    assert cllm("tokenize", run, "--decode", "x")[0] == EXIT_USAGE
    assert cllm("tokenize", run, "--decode", "99999")[0] == EXIT_FAILED
    assert cllm("tokenize", run / "nothing", "x")[0] == EXIT_FAILED


def test_vocab_tells_and_writes(run, cllm, tmp_path):
    code, out, _ = cllm("vocab", run, "-k", "3")
    assert code == EXIT_OK
    assert out.startswith("400 tokens, 8 special; on average ")
    assert "bytes per token: " in out
    told = json.loads(cllm("vocab", run, "-k", "5", "--json")[1])
    assert [len(told[name]) for name in ("longest", "frequent")] == [5, 5]
    counts = [entry["count"] for entry in told["frequent"]]
    assert counts == sorted(counts, reverse=True)
    for name in ("v.tsv", "v.json"):
        assert cllm("vocab", run, "--to", tmp_path / name)[0] == EXIT_OK
    rows = [line.split("\t") for line in (tmp_path / "v.tsv").read_text().splitlines()]
    assert len(rows) == 400
    assert sum(int(count) == 0 for _, count, _ in rows[8:]) == told["unused"]["count"]
    written = json.loads((tmp_path / "v.json").read_text())
    assert written["<|eos|>"] == 3
    assert len(written) == 400
    code, _, err = cllm("vocab", tmp_path)
    assert (code, "could not find a tokenizer" in err) == (EXIT_FAILED, True)


def test_vocab_learns_and_compares(run, tiny_text, cllm, tmp_path):
    code, out, _ = cllm("vocab", tmp_path / "own", "--train", tiny_text, "--size", "600")
    assert (code, out.startswith("600 tokens")) == (EXIT_OK, True)
    told = json.loads(cllm("vocab", run, "--compare", tmp_path / "own", "--json")[1])["compared"]
    assert told["tokens"] == 600
    assert told["its_bytes_per_token"] > told["bytes_per_token"] > 1
    assert 256 <= told["shared"] <= 392
    assert not told["same"]
    assert "bytes per token, this one" in cllm("vocab", run, "--compare", tmp_path / "own")[1]
    assert json.loads(cllm("vocab", run, "--compare", run, "--json")[1])["compared"]["same"]
    assert cllm("vocab", tmp_path / "own", "--train", tiny_text)[0] == EXIT_USAGE, "nothing is overwritten"
    assert cllm("vocab", tmp_path / "own", "--compare", run)[0] == EXIT_FAILED
    assert cllm("vocab", run, "--size", "600")[0] == EXIT_USAGE
