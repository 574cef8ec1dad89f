"""What goes wrong for real people, typed at the command line: a clear message or a correct run, and nothing lost."""

import json
import os
import random
import shutil

import pytest

from crystalline.errors import EXIT_DAMAGED, EXIT_FAILED, EXIT_OK, EXIT_USAGE
from crystalline.events import read
from crystalline.run_folder import SEAL, RunFolder, damage


def told(err):
    """Checks that a message has its three parts and returns it."""
    assert all(part in err for part in ("cllm: ", "\n  why: ", "\n  fix: ")), err
    assert "Traceback" not in err
    return err


def no_nan(run):
    """Every number of the run's history is one."""
    text = (run / "events.jsonl").read_text("utf-8")
    assert "NaN" not in text
    assert "Infinity" not in text
    steps = list(read(run / "events.jsonl", "training.step"))
    assert steps
    assert all(isinstance(step[key], float) for step in steps for key in ("loss", "gradient_norm"))
    return steps


@pytest.fixture
def made(tmp_path, cllm, tiny_settings):
    """Makes a run for a folder with given files: name -> bytes."""

    def make(files, **settings):
        source = tmp_path / "source"
        for name, content in files.items():
            path = source / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        source.mkdir(exist_ok=True)
        flags = [f"--set={name}={value}" for name, value in {**tiny_settings, **settings}.items()]
        assert cllm("new", tmp_path / "run", "--from", source, *flags)[0] == EXIT_OK
        return tmp_path / "run"

    return make


# --- text -------------------------------------------------------------------------------------------------

WORDS = b"the small boat went out to sea and came back with fish stories for old men who sat in harbour inns".split()


def sentence(number):
    """A sentence of its own for each number: cleaning takes out what says the same again and again."""
    return b"%d: %s." % (number, b" ".join(random.Random(number).choices(WORDS, k=14)))


def sentences(count):
    return b"\n".join(map(sentence, range(count)))


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, ["no text"]),
        ({"a.txt": b""}, ["no text"]),
        ({"a.txt": b"Hello."}, ["at least 2,000 bytes"]),
        ({"a.mp3": b"ID3\x04", "b": bytes(range(256)) * 20}, ["no text", "2 files skipped (binary)", "a.mp3"]),
        ({f"{n}.txt": sentences(5) for n in range(20)}, ["duplicate"]),
    ],
    ids=["empty folder", "empty file", "one tiny document", "only binary", "duplicates only"],
)
@pytest.mark.parametrize("verb", ["run", "plan"])
def test_too_little_text_is_told(made, cllm, files, words, verb):
    run = made(files)
    code, out, err = cllm(verb, run)
    assert (code, out) == (EXIT_FAILED, "")
    assert all(word in told(err) for word in ["too little text", *words])
    # Nothing half-made is left, and with more text the same command works.
    assert sorted(path.name for path in run.iterdir() if path.is_dir()) == []
    (run.parent / "source" / "more.txt").write_bytes(sentences(60))
    assert cllm("plan", run)[0] == EXIT_OK


def test_a_missing_path_is_told_before_anything_is_made(cllm, tmp_path):
    code, _, err = cllm("new", tmp_path / "run", "--from", tmp_path / "gone")
    assert code == EXIT_FAILED
    assert str(tmp_path / "gone") in told(err)
    assert not (tmp_path / "run").exists()


def test_a_source_that_went_away_is_told(made, cllm):
    run = made({"a.txt": sentences(100)})
    shutil.rmtree(run.parent / "source")
    code, _, err = cllm("run", run)
    assert code == EXIT_FAILED
    assert "source" in told(err)


def test_an_unreadable_file_is_passed_over_and_counted(made, cllm):
    run = made({"a.txt": sentences(100), "secret.txt": sentences(50)})
    secret = run.parent / "source" / "secret.txt"
    secret.chmod(0)
    if os.access(secret, os.R_OK):
        pytest.skip("this user may read everything")
    code, _, err = cllm("plan", run)
    assert code == EXIT_OK
    assert "1 files skipped (unreadable)" in err


def test_a_path_that_is_no_text_is_told(cllm, tmp_path):
    source = tmp_path / os.fsdecode(b"caf\xe9")
    try:
        source.mkdir()
    except OSError:
        pytest.skip("this file system has names in UTF-8 only")
    code, _, err = cllm("new", tmp_path / "run", "--from", source)
    assert code == EXIT_FAILED
    assert r"caf\udce9" in told(err)
    assert not (tmp_path / "run").exists()


def test_documents_shorter_than_the_context_are_trained_on(made, cllm):
    run = made({f"{n}.txt": sentence(n) for n in range(60)}, **{"model.context": 1024})
    code, _, err = cllm("run", run)
    assert code == EXIT_OK, err
    losses = [step["loss"] for step in no_nan(run)]
    assert losses[-1] < losses[0]
    code, out, _ = cllm("eval", run, "--json")
    assert code == EXIT_OK
    assert 0 < json.loads(out)["bits_per_byte"] < 8


def test_text_shorter_than_one_context_is_trained_on(made, cllm):
    """The whole text does not fill one window: most positions of a step see padding or the same window."""
    run = made({"a.txt": sentences(40)}, **{"model.context": 2048})
    code, _, err = cllm("run", run, "--steps", "2")
    assert code == EXIT_OK, err
    no_nan(run)


def test_a_vocabulary_that_the_text_does_not_support_becomes_smaller(made, cllm):
    run = made({"a.txt": sentences(60)}, **{"tokenizer.vocabulary_size": 50_000})
    code, _, err = cllm("run", run)
    assert code == EXIT_OK
    assert "not the 50000 asked for" in err
    no_nan(run)


# --- settings ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["run", "train", "plan"])
def test_wrong_settings_are_all_told_and_nothing_is_done(new_run, cllm, monkeypatch, verb):
    monkeypatch.setenv("CLLM_MODEL_WIDHT", "64")
    before = sorted(new_run.iterdir())
    flags = ["--steps", "0", "--seed", "-1", "--size", "4M", "--set", "training.sed=1", "--set", "optimizer.beta1=2"]
    code, out, err = cllm(verb, new_run, *flags)
    assert (code, out) == (EXIT_USAGE, "")
    for words in ("CLLM_MODEL_WIDHT", "did you mean 'width'", "training.steps = 0", "training.seed = -1",
                  "did you mean 'seed'", "optimizer.beta1 = 2"):  # fmt: skip
        assert words in told(err)
    assert sorted(new_run.iterdir()) == before


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("model.size=5M", "did you mean"),
        ("model.heads=3", "fix"),
        ("model.kv_heads=3", "use one of: 1, 2"),
        ("model.head_width=9", "even"),
    ],
)
def test_numbers_that_do_not_fit_each_other_are_told(new_run, cllm, setting, words):
    code, _, err = cllm("run", new_run, "--set", setting)
    if setting == "model.heads=3":  # 32 / 3: heads of width 10 are possible
        assert code == EXIT_OK
    else:
        assert code == EXIT_USAGE
        assert words in told(err)


def test_a_settings_file_that_is_no_toml_is_told(new_run, cllm):
    (new_run / "crystalline.toml").write_text("[training\nseed = 1\n")
    code, _, err = cllm("run", new_run)
    assert code == EXIT_USAGE
    assert "line 1" in told(err)


# --- run folders ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["run", "train", "plan", "eval", "hash", "chat"])
def test_a_folder_without_a_run_is_told(cllm, tmp_path, verb):
    for path in (tmp_path, tmp_path / "gone"):
        code, out, err = cllm(verb, path)
        assert (code, out) == (EXIT_FAILED, "")
        assert "cllm new" in told(err)


@pytest.mark.parametrize("verb", ["eval", "hash", "chat", "generate"])
def test_an_untrained_run_is_told(cllm, new_run, verb):
    code, _, err = cllm(verb, new_run, *(["-p", "x"] if verb == "generate" else []))
    assert code == EXIT_FAILED
    assert f"cllm run {new_run}" in told(err)


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("harm", [flip, cut, os.unlink], ids=["bit flipped", "truncated", "missing"])
@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json", "tokenizer.json", SEAL])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_used(run, tiny_run, cllm, name, harm):
    folders = sorted((run / "checkpoints").iterdir())
    good = cllm("hash", run)[1]
    harm(folders[-1] / name)
    code, out, err = cllm("hash", run)
    assert code == EXIT_OK
    assert out != good
    assert folders[-1].name in err
    assert name in err or name == SEAL  # whose bit may look like a fault of the file in that line
    # The same command trains again what was lost, to the same weights.
    code, _, err = cllm("run", run)
    assert code == EXIT_OK
    assert folders[-1].name in err
    assert cllm("hash", run)[:2] == (EXIT_OK, good)
    assert damage(folders[-1]) == ""


def test_when_every_checkpoint_is_damaged_nothing_is_overwritten(run, cllm):
    folders = sorted((run / "checkpoints").iterdir())
    for folder in folders:
        flip(folder / "model.safetensors")
    before = {path: path.read_bytes() for folder in folders for path in folder.iterdir()}
    for verb in ("run", "hash", "eval", "chat"):
        code, _, err = cllm(verb, run)
        assert code == EXIT_DAMAGED
        assert all(str(folder / "model.safetensors") in told(err) for folder in folders)
    assert {path: path.read_bytes() for path in before} == before


def test_a_damaged_checkpoint_given_by_its_path_is_told(run, cllm):
    folder = run / "checkpoints" / "step-00000004"
    assert cllm("hash", folder)[0] == EXIT_OK
    cut(folder / "optimizer.safetensors")
    code, _, err = cllm("hash", folder)
    assert code == EXIT_DAMAGED
    assert "optimizer.safetensors" in told(err)


@pytest.mark.parametrize("name", ["manifest.json", "recipe.json"])
def test_a_damaged_file_of_the_run_is_told(run, cllm, name):
    (run / name).write_text("{")
    code, _, err = cllm("run", run)
    assert code == EXIT_DAMAGED
    assert name in told(err)


# --- text for the model -----------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", ["", "x" * 3000, "\0\x1b[2J", "größe 字", os.fsdecode(b"\xff\xfe"), "<|eos|>"])
def test_any_prompt_is_continued(tiny_run, cllm, prompt):
    code, out, err = cllm("generate", tiny_run, "-p", prompt, "-n", 3, "--json")
    assert code == EXIT_OK, err
    assert json.loads(out)["tokens"] <= 3


def test_a_prompt_from_a_pipe_may_be_any_bytes(tiny_run, tmp_path, start):
    (tmp_path / "prompt").write_bytes(b"caf\xe9 \xff")

    with start("generate", tiny_run, "-n", "3", "--json", before=FromFile(tmp_path / "prompt")) as command:
        result = command.wait()
    assert result.code == EXIT_OK, result.err
    assert result.json()["prompt"] == "caf� �"


class FromFile:
    """Makes a file the standard input of a command."""

    def __init__(self, path):
        self.path = path

    def __call__(self):
        import sys

        sys.stdin = open(self.path, encoding="utf-8")  # as strict as a terminal's


def test_a_stop_text_may_be_any_text(tiny_run, cllm):
    for stop in ("é", "\\", "字", "a\\nb"):
        code, _, err = cllm("generate", tiny_run, "-p", "x", "-n", 3, "--stop", stop)
        assert code == EXIT_OK, err


def test_a_stop_text_ends_the_answer(tiny_run, cllm):
    _, out, _ = cllm("generate", tiny_run, "-p", "def ", "-n", 30, "--temperature", 0, "--json")
    text = json.loads(out)["text"]
    stop = text[len(text) // 2 :][:2]
    _, out, _ = cllm("generate", tiny_run, "-p", "def ", "-n", 30, "--temperature", 0, "--json", "--stop", stop)
    answer = json.loads(out)
    assert answer["text"] == text[: text.index(stop)]
    assert answer["reason"] == "stop"


@pytest.mark.parametrize(
    "flags",
    ["--temperature=-1", "--temperature=nan", "--top-p=0", "--top-p=1.5", "--min-p=2", "--repetition-penalty=0"],
)
def test_sampling_flags_out_of_range_are_told(tiny_run, cllm, flags):
    code, _, err = cllm("generate", tiny_run, "-p", "x", flags)
    assert code == EXIT_USAGE
    told(err)


def test_the_run_is_the_same_after_all_these_readers(tiny_run):
    assert all(damage(folder) == "" for folder in (tiny_run / "checkpoints").iterdir())
    assert RunFolder.open(tiny_run)
