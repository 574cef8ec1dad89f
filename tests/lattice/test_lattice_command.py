"""`cllm lattice` as a person and as a script meet it."""

import json

import pytest

from crystalline.cli.main import main
from crystalline.errors import EXIT_DAMAGED, EXIT_FAILED, EXIT_OK, EXIT_USAGE
from crystalline.run_folder import RunFolder, new_folder
from crystalline.tokens.codes import TokenCodes
from crystalline.tokens.tokenizer import Tokenizer

TEXT = "\nrun run runs Running running é walks" * 50


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run with a vocabulary, in the folder that is the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CLLM_RUN", raising=False)
    run = RunFolder.create("my-model", "")
    tokenizer = Tokenizer.train([TEXT], 400)
    with new_folder(run.tokenizer) as folder:
        tokenizer.save(folder)
        TokenCodes.build(tokenizer).save(folder)
    return run


def cllm(capsys, *words):
    code = main(["lattice", *words])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_token_in_words(run, capsys):
    code, out, err = cllm(capsys, "token", " Running")
    assert (code, err) == (EXIT_OK, "")
    assert out.startswith('" Running" is token ')
    for piece in ("space before", "Title case", "-ing", 'root "run"', '" runs"', "The family of"):
        assert piece in out
    shown = int(out.split("its code ")[1].split(" = ")[0])
    _, factored, _ = cllm(capsys, "factor", str(shown))
    assert factored.strip() == f"{shown} = {out.split(' = ')[1].splitlines()[0]}"


def test_token_as_json(run, capsys):
    _, out, _ = cllm(capsys, "token", " Running", "--json", "--run", "my-model")
    (token,) = json.loads(out)["tokens"]
    product = 1
    for factor in token["factors"]:
        product *= factor["prime"]
    assert product == token["code"]
    assert {factor["kind"] for factor in token["factors"]} == {"root", "space", "title", "suffix"}
    assert {"text": " runs", "id": token["id"]}.keys() <= token["family"][0].keys()
    assert " runs" in [member["text"] for member in token["family"]]


def test_a_text_of_several_tokens_shows_each(run, capsys):
    code, out, _ = cllm(capsys, "token", " run runs\u0007ü")
    assert code == EXIT_OK
    assert '" run runs\\x07ü" is 5 tokens: " run"  " runs"  "\\x07"  "\\xc3"  "\\xbc"' in out
    assert out.count("is token") == 5


def test_family(run, capsys):
    _, out, _ = cllm(capsys, "family", "run")
    assert 'The family of "run"' in out
    _, spaced, _ = cllm(capsys, "family", "walks", "--json")  # is a token only with a space before it
    assert [member["text"] for member in json.loads(spaced)["family"]]
    code, _, err = cllm(capsys, "family", "unheard-of")
    assert code == EXIT_FAILED
    assert "fix: " in err


@pytest.mark.parametrize(
    ("number", "line"),
    [
        ("144001", "144001 = 11 × 13 × 19 × 53"),
        ("143999", "143999 is prime, in class 11 of 12"),
        ("72", "72 = 2^3 × 3^2"),
        ("1", "1 is the empty product: it has no prime factors"),
    ],
)
def test_factor(capsys, number, line):
    assert cllm(capsys, "factor", number)[1].strip() == line
    _, out, _ = cllm(capsys, "factor", number, "--json")
    product = 1
    for factor in json.loads(out)["factors"]:
        product *= factor["prime"] ** factor["exponent"]
    assert product == int(number)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], EXIT_USAGE),
        (["fctor", "7"], EXIT_USAGE),
        (["factor", "seven"], EXIT_USAGE),
        (["factor", "0"], EXIT_FAILED),
        (["factor", "-6"], EXIT_FAILED),
        (["factor", str((2**107 - 1) * (2**127 - 1))], EXIT_FAILED),
        (["token", ""], EXIT_FAILED),
        (["token", "x", "--run", "nowhere"], EXIT_FAILED),
        (["token", "x", "--rum", "my-model"], EXIT_USAGE),
    ],
)
def test_mistakes_are_told_with_their_fix(run, capsys, words, expected):
    code, _, err = cllm(capsys, *words)
    assert code == expected
    assert "why: " in err
    assert "fix: " in err


def test_which_run_is_meant(run, capsys, monkeypatch):
    RunFolder.create("runs/second", "")
    code, _, err = cllm(capsys, "token", "run")
    assert code == EXIT_USAGE
    assert "my-model" in err
    assert "CLLM_RUN" in err
    monkeypatch.setenv("CLLM_RUN", "my-model")
    assert cllm(capsys, "token", "run")[0] == EXIT_OK
    code, _, err = cllm(capsys, "token", "run", "--run", "runs/second")  # the flag wins; it has no tokenizer yet
    assert code == EXIT_FAILED
    assert "tokenizer" in err
    monkeypatch.delenv("CLLM_RUN")
    monkeypatch.chdir(run.root.resolve())
    assert cllm(capsys, "token", "run")[0] == EXIT_OK
    monkeypatch.chdir(run.tokenizer.resolve() if run.tokenizer.is_absolute() else "tokenizer")
    assert cllm(capsys, "token", "run")[0] == EXIT_USAGE


def test_codes_of_another_vocabulary_are_refused(run, capsys):
    other = Tokenizer.train([TEXT], 270)
    TokenCodes.build(other).save(run.tokenizer)
    code, _, err = cllm(capsys, "token", "run")
    assert code == EXIT_DAMAGED
    assert "270 tokens" in err


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["lattice", "--help"])
    assert ended.value.code == 0
    assert 'cllm lattice token " Running"' in capsys.readouterr().out
