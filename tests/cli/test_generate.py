"""`cllm generate`: one text or many, drawn or searched for, to a person or a script."""

import io
import json
import math

import pytest

from crystalline.errors import EXIT_FAILED, EXIT_OK, EXIT_SYSTEM, EXIT_USAGE


@pytest.fixture
def generate(tiny_run, cllm):
    """Runs `cllm generate` with 12 tokens and gives what it prints; it must succeed."""

    def call(*flags):
        code, out, err = cllm("generate", tiny_run, "-n", "12", *flags)
        assert (code, err) == (EXIT_OK, ""), err
        return out

    return call


@pytest.fixture
def prompts(tmp_path):
    """Writes a file of prompts and gives its path."""

    def write(text, name="prompts.txt"):
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return tmp_path / name

    return write


def alone(generate, prompt, *flags):
    return json.loads(generate("-p", prompt, "--json", *flags))["text"]


def test_samples_are_the_texts_of_the_next_seeds(generate):
    told = json.loads(generate("-p", "def ", "--samples", "3", "--seed", "5", "--json"))
    assert [each["seed"] for each in told] == [5, 6, 7]
    assert [each["text"] for each in told] == [alone(generate, "def ", "--seed", seed) for seed in (5, 6, 7)]
    out = generate("-p", "def ", "--samples", "3", "--seed", "5")
    assert out == "".join(f"--- seed {each['seed']} ---\n{each['text']}\n" for each in told)


def test_prompts_of_a_file_are_continued_in_order_each_as_alone(generate, prompts, tmp_path):
    """More than there are slots, with two seeds each."""
    texts = [f"line {number} of " for number in range(11)]
    file = prompts("\r\n".join(texts) + "\n\n")
    told = json.loads(generate("--prompts", file, "--samples", "2", "--json"))
    assert [(each["prompt"], each["seed"]) for each in told] == [(text, seed) for text in texts for seed in (0, 1)]
    for each in told[::5]:
        assert each["text"] == alone(generate, each["prompt"], "--seed", each["seed"])
    assert generate("--prompts", file, "--samples", "2", "--out", tmp_path / "answers.jsonl") == ""
    lines = (tmp_path / "answers.jsonl").read_text().splitlines()
    assert [json.loads(line)["text"] for line in lines] == [each["text"] for each in told]


def test_prompts_may_be_json_lines_with_any_text(generate, prompts):
    texts = ["two\nlines\u2028 and more", "", "größe 😀"]
    lines = "\n".join(json.dumps({"id": 1, "prompt": text}) for text in texts)
    for name in ("prompts.jsonl", "prompts.txt"):
        told = json.loads(generate("--prompts", prompts(lines, name), "--json"))
        assert [each["prompt"] for each in told] == texts


def test_prompts_from_standard_input(generate, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("a\nb\n"))
    assert [each["prompt"] for each in json.loads(generate("--prompts", "-", "--json"))] == ["a", "b"]


def test_greedy_is_temperature_0(generate):
    assert generate("-p", "def ", "--greedy") == generate("-p", "def ", "--temperature", "0")
    assert generate("-p", "def ", "--greedy") != generate("-p", "def ", "--temperature", "1.5")


def test_the_prompt_can_be_shown(generate):
    text = alone(generate, "def ")
    assert generate("-p", "def ") == f"{text}\n"
    assert generate("-p", "def ", "--echo") == f"def {text}\n"
    assert f"\ndef {text}\n" in generate("-p", "def ", "--echo", "--samples", "2")


def test_out_is_what_would_have_been_printed(generate, tmp_path):
    file = tmp_path / "text"
    for flags in (["-p", "def "], ["-p", "def ", "--samples", "2"], ["-p", "def ", "--beams", "2"]):
        assert generate(*flags, "--out", file) == ""
        assert file.read_text() == generate(*flags)
    generate("-p", "def ", "--json", "--out", file)
    assert json.loads(file.read_text())["text"] == alone(generate, "def ")


def test_log_probabilities(generate):
    told = json.loads(generate("-p", "def ", "--greedy", "--json", "--logprobs", "3"))
    assert len(told["logprobs"]) == told["tokens"] == 12
    assert "".join(each["token"] for each in told["logprobs"]) == told["text"]
    for each in told["logprobs"]:
        best = each["top"]
        assert {"token": each["token"], "id": each["id"], "logprob": each["logprob"]} == best[0]  # it was greedy
        assert len(best) == 3
        assert 0 >= best[0]["logprob"] >= best[1]["logprob"] >= best[2]["logprob"]
        assert sum(math.exp(likely["logprob"]) for likely in best) <= 1


def test_beams_are_told_with_their_scores(generate):
    told = json.loads(generate("-p", "def ", "--beams", "4", "--samples", "3", "--json"))
    scores = [each["score"] for each in told]
    assert scores == sorted(scores, reverse=True)
    assert len({each["text"] for each in told}) == 3
    greedy = json.loads(generate("-p", "def ", "--greedy", "--json", "--logprobs", "0"))
    if greedy["reason"] == "length":
        assert told[0]["log_probability"] >= sum(each["logprob"] for each in greedy["logprobs"]) - 1e-6
    assert generate("-p", "def ", "--beams", "4", "--samples", "3").count("--- beam ") == 3
    assert generate("-p", "def ", "--beams", "4") == told[0]["text"] + "\n"
    without = json.loads(generate("-p", "def ", "--beams", "4", "--length-penalty", "0", "--json"))
    assert without["score"] == without["log_probability"]


def test_a_beam_ends_before_a_stop_string(generate):
    found = json.loads(generate("-p", "def ", "--beams", "3", "--samples", "3", "--json"))
    stop = max((each["text"] for each in found), key=len)[-1]
    told = json.loads(generate("-p", "def ", "--beams", "3", "--samples", "3", "--stop", stop, "--json"))
    assert all(stop not in each["text"] for each in told)
    assert any(each["reason"] == "stop" for each in told)
    assert all(each["reason"] == "stop" or each["tokens"] == 12 for each in told)


def test_lattice_sampling(generate):
    flags = ("-p", "def ", "--temperature", "1.5")
    assert generate(*flags, "--lattice", "3") != generate(*flags)
    assert generate(*flags, "--lattice", "0") == generate(*flags) == generate(*flags, "--lattice", "5000")
    assert generate(*flags, "--lattice", "9", "--lattice-weights", "0", "0", "1") != generate(
        *flags, "--lattice", "9"
    )
    plain = generate("-p", "def ", "--beams", "3")
    assert generate("-p", "def ", "--beams", "3", "--lattice", "5000") == plain


def test_speed_is_told_to_who_asks(tiny_run, cllm):
    for flags in ([], ["--samples", "2"], ["--beams", "2"]):
        code, _, err = cllm("generate", tiny_run, "-p", "def ", "-n", "4", "-v", *flags)
        assert code == EXIT_OK
        assert " tokens/s" in err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--prompts", "FILE", "-p", "x"], "both given"),
        (["-p", "x", "--logprobs", "2"], "--json"),
        (["-p", "x", "--greedy", "--temperature", "0.5"], "--greedy"),
        (["-p", "x", "--beams", "2", "--temperature", "0.5", "--seed", "1"], "--temperature, --seed"),
        (["-p", "x", "--beams", "2", "--greedy"], "--greedy"),
        (["-p", "x", "--beams", "2", "--top-k", "0"], "--top-k"),
        (["-p", "x", "--beams", "2", "--samples", "3"], "--beams 3"),
        (["-p", "x", "--beams", "2", "--json", "--logprobs", "1"], "--logprobs"),
        (["-p", "x", "--length-penalty", "1"], "--beams"),
        (["-p", "x", "--beams", "2", "--length-penalty", "-1"], "number from 0 up"),
        (["-p", "x", "--beams", "0"], "from 1 up"),
        (["-p", "x", "--samples", "0"], "from 1 up"),
        (["-p", "x", "--lattice", "-1"], "from 0 up"),
        (["-p", "x", "--lattice", "2", "--lattice-weights", "0", "0", "0"], "weights are numbers"),
        (["-p", "x", "--top-p", "2"], "top_p"),
        (["-p", "x", "--stop", ""], "empty"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_flags_that_make_no_sense_are_told(tiny_run, cllm, prompts, flags, words):
    file = prompts("x\n")
    code, out, err = cllm("generate", tiny_run, *[file if flag == "FILE" else flag for flag in flags])
    assert (code, out) == (EXIT_USAGE, "")
    assert words in err
    assert "\n  fix: " in err


@pytest.mark.parametrize(
    ("content", "name", "words"),
    [
        ("\n \n", "p.txt", "all of its lines are empty"),
        (b"caf\xe9\n", "p.txt", "UTF-8"),
        ('{"prompt": "a"}\n\n{"prompt": 5}\n', "p.txt", "line 3"),
        ('{"prompt": "a"\n', "p.jsonl", "line 1"),
        ('{"text": "a"}\n', "p.jsonl", "line 1"),
        ('{"prompt": "a"}\n{"prompt": "a \\ud800"}\n', "p.jsonl", "line 2"),
    ],
)
def test_a_file_that_holds_no_prompts_is_told(tiny_run, cllm, prompts, content, name, words):
    code, out, err = cllm("generate", tiny_run, "--prompts", prompts(content, name))
    assert (code, out) == (EXIT_FAILED, "")
    assert words in err
    assert "\n  fix: " in err


def test_files_that_cannot_be_read_or_written_are_told(tiny_run, cllm, tmp_path):
    code, _, err = cllm("generate", tiny_run, "--prompts", tmp_path / "none.txt")
    assert code == EXIT_SYSTEM
    assert "none.txt" in err
    code, _, err = cllm("generate", tiny_run, "-p", "x", "-n", "2", "--out", tmp_path / "none" / "out.txt")
    assert code == EXIT_SYSTEM
    assert "out.txt" in err


def test_the_precisions_of_the_flag_are_those_of_the_decoder():
    from crystalline.cli import common
    from crystalline.model import decoder

    assert common.PRECISIONS == decoder.PRECISIONS
