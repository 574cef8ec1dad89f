"""Help: instant, complete, and with an example for each verb."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from crystalline import errors
from crystalline.cli.main import VERBS
from crystalline.errors import EXIT_OK, EXIT_USAGE

HEAVY = ["torch", "numpy", "pydantic", "tokenizers", "safetensors", "flint", "charset_normalizer", "scrapy", "lxml"]
HEAVY += ["ftfy", "rensa", "fastapi", "starlette", "uvicorn", "prometheus_client"]
LOADED = """
import json, sys
from crystalline.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
print(json.dumps([name for name in {heavy} if name in sys.modules]))
"""


def command():
    """The installed `cllm`."""
    return shutil.which("cllm", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")


def test_help_is_instant():
    times = []
    for _ in range(5):
        began = time.perf_counter()
        done = subprocess.run([command(), "--help"], capture_output=True, text=True)
        times.append(time.perf_counter() - began)
    assert done.returncode == EXIT_OK
    assert done.stderr == ""
    assert all(f"\n  {verb} " in done.stdout for verb in VERBS)
    assert min(times) < 0.3


@pytest.mark.parametrize("words", [["--help"], ["--version"], *([verb, "--help"] for verb in VERBS)], ids=" ".join)
def test_help_loads_nothing_heavy(words):
    done = subprocess.run(
        [sys.executable, "-c", LOADED.format(heavy=HEAVY), *words], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout.splitlines()[-1]) == []


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_explained_with_an_example(verb, cllm):
    code, out, err = cllm(verb, "--help")
    assert (code, err) == (EXIT_OK, "")
    assert out.startswith(f"usage: cllm {verb}")
    assert f"  cllm {verb}" in out.split("\nexample", 1)[1]
    assert "exit codes:" in out


@pytest.mark.parametrize("verb", VERBS)
def test_the_examples_of_a_verb_are_understood(verb, cllm):
    """Every line of an example that starts with `cllm` has only flags that the verb knows."""
    _, out, _ = cllm(verb, "--help")
    flags = set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", out.split("example", 1)[0]))
    for line in re.findall(r"^  cllm .*", out.split("example", 1)[1], re.MULTILINE):
        used = re.findall(r"(?<= )--?[a-z][\w-]*", re.split(r"  +(?=\w)", line.strip())[0])
        if line.split()[1] == verb and verb != "lattice":  # whose actions have flags of their own
            assert set(used) <= flags, line


def test_nothing_typed_shows_the_overview(cllm):
    assert cllm() == cllm("--help") == cllm("help")


def test_the_exit_codes_in_the_help_are_those_of_the_code(cllm):
    _, out, _ = cllm("--help")
    told = {int(number) for number in re.findall(r"(\d+) [a-z]", out.split("exit codes:")[1])}
    assert told == {value for name, value in vars(errors).items() if name.startswith("EXIT_")}


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["trian", "x"], "did you mean 'train'?"),
        (["generat"], "did you mean 'generate'?"),
        (["xyzzy"], "use one of: chat, checkpoint, "),
        (["run", "x", "--minuts", "3"], "did you mean '--minutes'?"),
        (["run", "x", "--sed=3"], "did you mean '--seed'?"),
        (["eval", "x", "--jsn"], "did you mean '--json'?"),
        (["run"], "cllm run --help"),
        (["run", "x", "y"], "cllm run --help"),
        (["run", "x", "--steps", "many"], "cllm run --help"),
        (["new", "x"], "--from"),
        (["hash", "x", "--js"], "did you mean '--json'?"),  # no abbreviations: a new flag would break them
        (["generate", "x", "-n", "0"], "from 1 up"),
        (["generate", "x", "-n", "-5"], "from 1 up"),
        (["generate", "x", "--seed", "99999999999999999999"], "from 0 up"),
        (["generate", "x", "--top-k", "²"], "from 0 up"),
        (["generate", "x", "--stop", ""], "everywhere"),
        (["chat", "x", "-n", "1.5"], "from 1 up"),
    ],
    ids=" ".join,
)
def test_what_is_mistyped_is_told_with_the_nearest_name(words, hint, cllm):
    code, out, err = cllm(*words)
    assert (code, out) == (EXIT_USAGE, "")
    assert re.match(r"cllm: .+\n  why: .+\n  fix: .+", err)
    assert hint in err


def test_an_unknown_log_level_is_told(cllm, monkeypatch):
    monkeypatch.setenv("CLLM_LOG_LEVEL", "LOUD")
    code, _, err = cllm("models")
    assert code == EXIT_USAGE
    assert "use one of: DEBUG, ERROR, INFO, WARNING" in err


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["models", "--json"]], ids=" ".join)
def test_a_reader_that_goes_away_is_no_error(words, tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([command(), *words], stdout=writing, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    os.close(writing)
    assert done.returncode == 141  # as the shell calls it: 128 + SIGPIPE
    assert done.stderr == ""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_output_that_cannot_be_written_is_told(tmp_path):
    with open("/dev/full", "w") as full:
        done = subprocess.run([command(), "--help"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == errors.EXIT_SYSTEM
    assert re.match(r"cllm: .+\n  why: No space left on device\n  fix: free some disk space.*\n$", done.stderr)


def test_a_closed_output_is_no_error(tmp_path):
    done = subprocess.run(f"{command()} --help >&-", shell=True, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (EXIT_OK, "")


def test_what_the_output_cannot_hold_is_escaped(tmp_path):
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([command(), "hash", "größe"], env=environment, capture_output=True, text=True)
    assert done.returncode == errors.EXIT_FAILED
    assert r"gr\xf6\xdfe" in done.stderr
