"""What the verbs print: for a person, and as JSON for a script."""

import io
import json
import re

import pytest

from crystalline.cli.output import count, duration, size
from crystalline.errors import EXIT_OK


@pytest.mark.parametrize(
    "words",
    [
        ["plan", "RUN"],
        ["eval", "RUN"],
        ["hash", "RUN"],
        ["status", "RUN"],
        ["spheres", "RUN"],
        ["spheres"],
        ["models", "RUN"],
        ["doctor"],
        ["generate", "RUN", "-p", "def", "-n", "3"],
        ["lattice", "token", " the", "--run", "RUN"],
    ],
    ids=" ".join,
)
def test_json_is_one_document_without_nan(run, cllm, words):
    code, out, err = cllm(*[run if word == "RUN" else word for word in words], "--json")
    assert code in (EXIT_OK, 1 if words == ["doctor"] else EXIT_OK), err

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    assert json.loads(out, parse_constant=refuse)


def test_new_tells_what_to_do_next(cllm, tmp_path, tiny_text):
    code, out, _ = cllm("new", tmp_path / "run", "--from", tiny_text, "--exclude", "*.log", "--set", "model.size=1M")
    assert code == EXIT_OK
    assert f"next: cllm run {tmp_path / 'run'}" in out
    written = (tmp_path / "run" / "crystalline.toml").read_text()
    assert f'source = ["{tiny_text.resolve()}"]' in written
    assert 'exclude = ["*.log"]' in written
    assert 'size = "1M"' in written
    code, _, err = cllm("new", tmp_path / "run", "--from", tiny_text)
    assert code == 1
    assert f"cllm run {tmp_path / 'run'}" in err


def test_plan_shows_what_the_run_will_take(new_run, cllm):
    code, out, _ = cllm("plan", new_run, "--steps", "50")
    assert code == EXIT_OK
    for words in ("text ", "model ", "training    50 steps of 384 tokens", "time ", "memory ", "expected ", "seed 0"):
        assert words in out
    code, out, _ = cllm("plan", new_run, "--steps", "50", "--json")
    told = json.loads(out)
    assert (told["steps"], told["tokens"]) == (50, 50 * 12 * 32)
    assert not (new_run / "checkpoints").exists()


def test_plan_says_when_other_programs_cannot_read_the_model(new_run, cllm):
    assert "other programs" not in cllm("plan", new_run, "--steps", "50")[1]
    _, out, _ = cllm("plan", new_run, "--steps", "50", "--set", "model.ngram_rows=100")
    assert "other programs cannot read this model, because of model.ngram_rows" in out


def test_run_speaks_of_plan_progress_and_the_next_command(new_run, cllm):
    code, out, err = cllm("run", new_run)
    assert code == EXIT_OK
    assert re.search(r"^plan\n  text ", err, re.MULTILINE)
    assert re.search(r"^step 1/6  loss 5\.\d+  .* tokens/s  .* left$", err, re.MULTILINE)
    assert re.search(r"^step 6/6  loss 5\.\d+ ", err, re.MULTILINE)
    assert "bits per byte" in err
    assert "sample: " in err
    assert out == f"{new_run} is trained to step 6\nnext: cllm chat {new_run}\n"


def test_quiet_and_verbose(new_run, cllm):
    assert cllm("plan", new_run, "--verbose")[2].count("corpus: ") > 0
    assert cllm("run", new_run, "--quiet") == (EXIT_OK, "", "")


def test_flags_and_set_reach_the_recipe(new_run, cllm):
    flags = ["--seed", "5", "--steps", "2", "--set", "optimizer.name=adamw", "--set", "training.accumulation=2"]
    assert cllm("train", new_run, *flags)[0] == EXIT_OK
    settings = json.loads((new_run / "recipe.json").read_text())["settings"]
    assert (settings["training"]["seed"], settings["training"]["steps"]) == (5, 2)
    assert (settings["optimizer"]["name"], settings["training"]["accumulation"]) == ("adamw", 2)


def test_a_length_in_tokens_or_epochs_wins_over_the_file_and_can_grow(new_run, cllm):
    """The file says 6 steps; a step has 12 windows of 32 tokens."""

    def steps(*flags):
        code, out, err = cllm("run", new_run, *flags)
        assert code == EXIT_OK, err
        assert "trained to step" in out
        return json.loads((new_run / "recipe.json").read_text())["settings"]["training"]["steps"]

    assert steps("--tokens", "768") == 2
    assert steps("--tokens", "768") == 2
    assert steps("--tokens", "1152") == 3
    tokens = json.loads((new_run / "shards" / "index.json").read_text())["splits"]["train"]["tokens"]
    epochs = 4.2 * 384 / tokens
    assert steps("--epochs", str(epochs)) == 4
    assert cllm("run", new_run, "--tokens", "384")[0] == 2, "it is at step 4 already"


def test_a_run_that_ended_early_says_so(new_run, cllm, monkeypatch):
    from crystalline.model.scoring import Score
    from crystalline.training.scribe import Scribe

    monkeypatch.setattr(Scribe, "evaluation", lambda self: Score(float(self.job.step), 1, 1))  # worse and worse
    flags = ["--steps", "30", "--set", "training.patience=2", "--set", "training.evaluate_every=1"]
    code, out, err = cllm("run", new_run, *flags)
    assert code == EXIT_OK
    assert "training ends at step 4 of 30: 2 evaluations in a row were no better" in err
    assert f"{new_run} is trained to step 4 of 30, where it was ended early" in out
    code, out, _ = cllm("run", new_run, *flags)
    assert (code, f"{new_run} is done already: trained to step 4 of 30" in out) == (EXIT_OK, True)
    assert "training.patience=0" in out
    out = cllm("status", new_run)[1]
    assert f"{new_run}: done" in out
    assert "ended early" in out
    assert re.search(r"best +\d\.\d+ bits per byte at step 1", out)
    assert cllm("hash", new_run / "checkpoints" / "best")[1] == cllm("hash", new_run / "checkpoints/step-00000001")[1]
    assert cllm("generate", new_run / "checkpoints" / "best", "-p", "def", "-n", "3")[0] == EXIT_OK


def test_a_seed_makes_a_model(new_run, run, tmp_path, cllm):
    assert cllm("run", new_run, "--seed", "1")[0] == EXIT_OK
    other, same = cllm("hash", new_run)[1], cllm("hash", run)[1]
    assert re.fullmatch(r"[0-9a-f]{64}\n", same)
    assert other != same


def test_eval_measures_the_newest_model_on_all_held_out_text(run, cllm):
    _, out, _ = cllm("eval", run, "--json")
    told = json.loads(out)
    held_out = json.loads((run / "corpus" / "report.json").read_text())["bytes"]["held_out"]
    assert (told["step"], told["checkpoint"]) == (6, "step-00000006")
    assert 0.95 * held_out <= told["bytes"] <= held_out
    assert 3 < told["bits_per_byte"] < 8
    assert json.loads((run / "evaluation" / "step-00000006.json").read_text()) == told
    assert f"bits per byte  {told['bits_per_byte']:.4f}" in cllm("eval", run)[1]


def test_hash_of_a_run_is_that_of_its_newest_checkpoint(run, cllm):
    hashes = {step: cllm("hash", run / "checkpoints" / f"step-0000000{step}")[1] for step in (2, 4, 6)}
    assert len(set(hashes.values())) == 3
    assert cllm("hash", run)[1] == hashes[6]
    assert json.loads(cllm("hash", run, "--json")[1]) == {"sha256": hashes[6].strip(), "checkpoint": "step-00000006"}


def test_generate_is_repeatable_and_greedy_needs_no_seed(tiny_run, cllm):
    def text(*flags):
        code, out, err = cllm("generate", tiny_run, "-p", "def ", "-n", "20", *flags)
        assert (code, err) == (EXIT_OK, "")
        return out

    assert text("--seed", "1") == text("--seed", "1") != text("--seed", "2")
    assert text("--temperature", "0", "--seed", "1") == text("--temperature", "0", "--seed", "2")
    told = json.loads(cllm("generate", tiny_run, "-p", "def ", "-n", "20", "--seed", "1", "--json")[1])
    assert told["text"] + "\n" == text("--seed", "1")
    assert (told["tokens"], told["reason"]) == (20, "length")


def test_generate_reads_the_prompt_from_standard_input(tiny_run, cllm, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("The sea"))
    told = json.loads(cllm("generate", tiny_run, "-n", "3", "--json")[1])
    assert told["prompt"] == "The sea"


def test_models_lists_what_is_below(tmp_path, run, cllm):
    assert "no models below" in cllm("models", run / "corpus")[1]
    code, out, _ = cllm("models", tmp_path)
    assert code == EXIT_OK
    assert re.match(rf"{run} +\S+ k parameters  step 6 of 6  \d\.\d\d\d bits per byte\n", out)


def chat(cllm, monkeypatch, run, text, *flags):
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    return cllm("chat", run, "-n", "8", *flags)


def test_chat_keeps_its_conversation(run, cllm, monkeypatch):
    file = run / "chats" / "default.jsonl"
    assert chat(cllm, monkeypatch, run, "hello\n\nagain\n")[0] == EXIT_OK
    assert [json.loads(line)["user"] for line in file.read_text().splitlines()] == ["hello", "again"]
    code, out, _ = chat(cllm, monkeypatch, run, "/undo\n/help\nthird\n/quit\nnever\n")
    assert code == EXIT_OK
    assert "going on with conversation 'default' (2 turns)" in out
    assert "took the last turn back" in out
    assert "/new" in out
    assert [json.loads(line)["user"] for line in file.read_text().splitlines()] == ["hello", "third"]
    chat(cllm, monkeypatch, run, "/new\n/undo\n")
    assert file.read_text() == ""


def test_conversations_have_names(run, cllm, monkeypatch):
    chat(cllm, monkeypatch, run, "a\n", "--name", "ideas")
    assert (run / "chats" / "ideas.jsonl").exists()
    for name in ("../x", "", ".x", "a/b"):
        code, _, err = chat(cllm, monkeypatch, run, "a\n", "--name", name)
        assert code == 2
        assert "\n  fix: " in err


def test_ctrl_c_stops_an_answer_and_keeps_it(run, cllm, monkeypatch):
    from crystalline.pipeline.conversation import Conversation

    def answer(*_):
        yield "half an "
        raise KeyboardInterrupt

    monkeypatch.setattr(Conversation, "answer", answer)
    assert chat(cllm, monkeypatch, run, "hello\n/quit\n")[0] == EXIT_OK
    (line,) = (run / "chats" / "default.jsonl").read_text().splitlines()
    assert json.loads(line) == {"user": "hello", "model": "half an "}


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (count(0), "0"),
        (count(999), "999"),
        (count(1_234_567), "1.23 M"),
        (count(12_345), "12.3 k"),
        (count(2e9), "2 G"),
        (size(999), "999 B"),
        (size(1_234_567), "1.23 MB"),
        (duration(0.4), "0 s"),
        (duration(59.6), "1 min 00 s"),
        (duration(75), "1 min 15 s"),
        (duration(3599.7), "1 h 00 min"),
        (duration(7500), "2 h 05 min"),
    ],
)
def test_numbers_for_people(shown, expected):
    assert shown == expected
