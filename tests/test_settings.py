"""Settings: where a value comes from, and how every mistake is told at once."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crystalline.errors import EXIT_USAGE, UserError
from crystalline.settings import Settings, describe, load, parse_assignment, to_toml


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "crystalline.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def problems(*arguments):
    """The lines of the complaint."""
    with pytest.raises(UserError) as caught:
        load(*arguments)
    assert caught.value.exit_code == EXIT_USAGE
    return [line.strip() for line in caught.value.why.splitlines() if line.strip()]


def test_flags_win_over_the_environment_and_that_over_the_file(file):
    path = file("[training]\nseed = 1\nsteps = 10\nminutes = 5\n")
    environment = {"CLLM_TRAINING_SEED": "2", "CLLM_TRAINING_STEPS": "20"}
    settings = load(path, environment, {"training.seed": 3, "training.epochs": None})
    assert (settings.training.seed, settings.training.steps, settings.training.minutes) == (3, 20, 5.0)
    assert settings.training.positions == 12  # nobody named it


def test_the_environment_has_every_kind_of_value():
    settings = load(
        None,
        {
            "CLLM_MODEL_KV_HEADS": "2",
            "CLLM_OPTIMIZER_LEARNING_RATE": "1e-3",
            "CLLM_MODEL_SIZE": "4M",
            "CLLM_CORPUS_EXCLUDE": '["*.log", "old"]',
            "CLLM_TRAINING_SAMPLE_PROMPT": "Once upon",
            "CLLM_LOG_LEVEL": "DEBUG",
            "CLLM_RUN": "my-model",
            "PATH": "/bin",
        },
    )
    assert (settings.model.kv_heads, settings.optimizer.learning_rate, settings.model.size) == (2, 0.001, "4M")
    assert (settings.corpus.exclude, settings.training.sample_prompt) == (["*.log", "old"], "Once upon")


def test_the_environment_of_the_process_is_used(monkeypatch):
    monkeypatch.setenv("CLLM_TRAINING_SEED", "11")
    assert load().training.seed == 11


def test_every_problem_is_told_at_once_with_its_origin_and_the_nearest_name(file):
    path = file(
        "top = 1\n[trainin]\nseed = 1\n[training]\nsed = 1\nsteps = 0\n"
        '[model]\nlayers = "three"\n[corpus]\nsource = "text"\n[optimizer]\nmomentum = nan\n'
    )
    found = problems(
        path,
        {"CLLM_SCHEDULER_NAM": "linear", "CLLM_ZEBU": "1", "CLLM_TRAINING_POSITIONS": "13"},
        {"training.minutes": -1.0, "optimizer.name": "adam", "optimizer.beta1": True, "model.heads": 1.5},
    )
    expected = [
        (f"{path}: 'top' must stand in a [section]",),
        (f"{path}: no section [trainin]", "did you mean 'training'?"),
        (f"{path}: no setting training.sed", "did you mean 'seed'?"),
        (f"{path}: training.steps = 0", "greater than or equal to 1"),
        (f"{path}: model.layers = 'three'", "integer"),
        (f"{path}: corpus.source = 'text'", "list"),
        (f"{path}: optimizer.momentum = nan", "finite"),
        ("environment CLLM_SCHEDULER_NAM: no setting scheduler.nam", "did you mean 'name'?"),
        ("environment CLLM_ZEBU: no section [zebu]", "use one of: checkpointing, clean, corpus"),
        ("environment CLLM_TRAINING_POSITIONS: training.positions = 13", "12 or 144"),
        ("the command line: training.minutes = -1.0", "greater than 0"),
        ("the command line: optimizer.name = 'adam'", "'muon', 'adamw' or 'sgd'"),
        ("the command line: optimizer.beta1 = True", "number"),
        ("the command line: model.heads = 1.5", "integer"),
    ]
    for words in expected:
        assert any(all(word in line for word in words) for line in found), (words, found)
    assert len(found) == len(expected)


@pytest.mark.parametrize("name", ["trainin.seed", "training.sed", "seed.", ".seed"])
def test_an_unknown_name_alone_is_a_problem(name):
    (problem,) = problems(None, {}, {name: 1})
    assert problem.startswith("- the command line: no s")


@pytest.mark.parametrize("text", ["[training\nseed = 1", "[a]\nb = \n", "seed\n"])
def test_a_file_that_is_no_toml_is_told_with_the_line(file, text):
    with pytest.raises(UserError, match=r"line \d") as caught:
        load(file(text), {})
    assert caught.value.exit_code == EXIT_USAGE
    assert "crystalline.toml" in caught.value.what


def test_files_that_cannot_be_read_are_told(tmp_path):
    (tmp_path / "latin").write_bytes(b"# gr\xf6\xdfe")
    for name, why in (("missing.toml", "does not exist"), (".", "directory"), ("latin", "not valid TOML")):
        with pytest.raises(UserError) as caught:
            load(tmp_path / name, {})
        assert why in caught.value.why


def test_a_byte_order_mark_is_no_mistake(file):
    assert load(file("\ufeff[training]\nseed = 5\n"), {}).training.seed == 5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("training.seed=7", ("training.seed", 7)),
        ("model.size=4M", ("model.size", "4M")),
        ("optimizer.learning_rate = 3e-4", ("optimizer.learning_rate", 3e-4)),
        ('corpus.exclude=["a", "b"]', ("corpus.exclude", ["a", "b"])),
        ("training.sample_prompt=a=b", ("training.sample_prompt", "a=b")),
        ('training.sample_prompt="7"', ("training.sample_prompt", "7")),
        ("model.layers=auto", ("model.layers", "auto")),
    ],
)
def test_an_assignment(text, expected):
    assert parse_assignment(text) == expected
    load(None, {}, dict([expected]))


@pytest.mark.parametrize("text", ["training.seed", "seed=7", "", "="])
def test_what_is_no_assignment(text):
    with pytest.raises(UserError, match=r"section\.key=value") as caught:
        parse_assignment(text)
    assert caught.value.exit_code == EXIT_USAGE


def test_auto_leaves_the_choice_open():
    names = ["model.layers", "training.minutes", "optimizer.learning_rate", "training.sample_prompt"]
    assert load(None, {}, dict.fromkeys(names, "auto")) == Settings()


@given(
    prompt=st.none() | st.text(st.characters(codec="utf-8")).filter(lambda text: text != "auto"),
    source=st.lists(st.text(st.characters(codec="utf-8"))),
    seed=st.integers(0, 2**63 - 1),
    epsilon=st.floats(0, exclude_min=True, allow_infinity=False, allow_nan=False),
    steps=st.none() | st.integers(1, 10**12),
)
def test_what_is_written_is_read_back(tmp_path_factory, prompt, source, seed, epsilon, steps):
    wanted = load(
        None,
        {},
        {
            "training.sample_prompt": prompt,
            "corpus.source": source,
            "training.seed": seed,
            "optimizer.epsilon": epsilon,
            "training.steps": steps,
        },
    )
    path = tmp_path_factory.getbasetemp() / "written.toml"
    path.write_text(to_toml(wanted), encoding="utf-8")
    assert load(path, {}) == wanted


def test_only_what_differs_from_the_defaults_is_written():
    assert to_toml(Settings()) == ""
    assert tomllib.loads(to_toml(load(None, {}, {"model.size": "4M"}))) == {"model": {"size": "4M"}}


def test_every_setting_is_described_with_its_limits():
    rows = {name: (default, limits, meaning) for name, default, limits, meaning in describe()}
    fields = {
        f"{section}.{key}"
        for section, table in Settings().model_dump().items()
        for key in table
    }  # fmt: skip
    assert set(rows) == fields
    assert all(meaning for _, _, meaning in rows.values())
    assert rows["corpus.held_out"] == ("0.05", "> 0, ≤ 0.5", "share of the documents kept apart to measure on")
    assert rows["training.positions"][:2] == ("12", "12 or 144")
    assert rows["model.layers"][:2] == ("auto", "≥ 1, ≤ 200")
    assert rows["optimizer.name"][:2] == ("muon", "muon or adamw or sgd")


def test_the_described_limits_are_the_real_ones():
    """The limits of `describe` are kept on both sides: the value at the edge is taken, the one beyond is not."""
    tried = 0
    for name, _, limits, _ in describe():
        for limit in limits.split(", "):
            sign, _, text = limit.partition(" ")
            if sign not in ("≥", "≤"):
                continue
            edge = float(text) if "." in text else int(text)
            beyond = edge - 1 if sign == "≥" else edge + 1
            load(None, {}, {name: edge})
            with pytest.raises(UserError, match=name.replace(".", r"\.")):
                load(None, {}, {name: beyond})
            tried += 1
    assert tried > 30
