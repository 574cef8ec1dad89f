"""Training that starts from an imported model: exactly from it, and then as reproducible as any."""

import shutil
import signal

import pytest
import torch

from commands import last_step, wait_for
from crystalline import UserError, load
from crystalline.errors import EXIT_DAMAGED, EXIT_USAGE
from crystalline.events import EventLog, read
from crystalline.export.exporting import export
from crystalline.model import checkpoints, store
from crystalline.pipeline import preparation, runner
from crystalline.pipeline.report import gather
from crystalline.run_folder import RunFolder, read_json, write_json
from crystalline.tokens.tokenizer import Tokenizer
from crystalline.training.loop import Trainer

QUICK = {
    "training.steps": 6, "training.micro_batch": 1, "training.device": "cpu", "training.precision": "fp32",
    "training.evaluate_tokens": 256, "checkpointing.every_steps": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def new_start(tiny_run, tiny_text, tmp_path_factory):
    """A run that starts from the finished one, with nothing done yet. Do not change it: copy it."""
    return runner.import_model(tiny_run, tmp_path_factory.mktemp("start") / "run", [str(tiny_text)], **QUICK)[0].root


@pytest.fixture(scope="module")
def expected(new_start, tmp_path_factory):
    """Hashes of weights and losses of a run that one process trained and nobody disturbed."""
    root = shutil.copytree(new_start, tmp_path_factory.mktemp("expected") / "run")
    runner.run(root, {"training.workers": 0})
    return hashes(root)


@pytest.fixture
def own(new_start, tmp_path):
    return shutil.copytree(new_start, tmp_path / "own")


def hashes(root):
    weights = store.weights_hash(store.read_weights(checkpoints.find(root)))
    # Of a step that was done again after a kill, the last event.
    return weights, {e["step"]: e["loss"] for e in read(root / "events.jsonl", "training.step")}


def trainer(root, **changes):
    run = RunFolder.open(root)
    settings = preparation.settings_of(run, {f"{k.replace('__', '.')}": v for k, v in changes.items()})
    with run.lock(), EventLog(run.events) as events:
        text = preparation.prepare(run, settings, events)
        return Trainer(run, runner._recipe(run, settings, text, lambda plan: None, events))


def test_it_starts_exactly_from_the_model(own, tiny_run):
    made = trainer(own)
    for name, weight in store.read_weights(checkpoints.find(tiny_run)).items():
        assert torch.equal(dict(made.model.named_parameters())[name], weight), name
    assert made.recipe.shape == load(tiny_run).model.shape
    assert Tokenizer.load(own / "tokenizer").fingerprint == Tokenizer.load(tiny_run / "tokenizer").fingerprint
    assert (own / "tokenizer/codes.json").read_bytes() == (tiny_run / "tokenizer/codes.json").read_bytes()
    before = {name: weight.clone() for name, weight in made.model.named_parameters()}
    with torch.no_grad():
        for weight in made.model.parameters():
            weight.add_(1.0)
    made._restore(None)  # as the guard does when it goes back to the beginning
    assert all(torch.equal(weight, before[name]) for name, weight in made.model.named_parameters())


def test_training_changes_it_and_knows_where_it_is_from(own, expected, tiny_run):
    runner.run(own, {"training.workers": 0})
    assert hashes(own) == expected
    assert expected[0] != store.weights_hash(store.read_weights(checkpoints.find(tiny_run)))
    recipe = checkpoints.read_recipe(checkpoints.find(own))
    assert len(recipe["text"]["start"]) == 64
    assert expected[1][1] < 5.5  # ln 400, of weights that know nothing, is 5.99


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_workers_changes_nothing(own, expected, workers):
    runner.run(own, {"training.workers": workers})
    assert hashes(own) == expected


def test_killed_and_resumed_with_other_workers_it_ends_the_same(own, expected, start):
    for step, workers in [(1, 1), (3, 2), (5, 0)]:
        with start("run", own, "--quiet", "--workers", workers) as command:
            wait_for(
                lambda step=step, command=command: last_step(own) >= step or command.process.exitcode is not None
            )
            command.kill(signal.SIGKILL)
    with start("run", own, "--quiet") as command:
        result = command.wait()
    assert result.code == 0, result.err
    assert hashes(own) == expected


def test_the_commands_of_the_report_make_it_again(own, expected, tmp_path, cllm, monkeypatch):
    import shlex

    runner.run(own, {"training.workers": 0})
    monkeypatch.chdir(tmp_path)
    made = gather(own)
    for command in made.repeat[:-1]:
        words = shlex.split(command.replace("\\\n", " "))[1:]
        code, _, err = cllm(*words)
        assert code == 0, err
    assert made.repeat[0].startswith("cllm import ")
    assert cllm("hash", "again")[1].split()[0] == expected[0]


def test_a_plan_promises_nothing_of_a_model_it_does_not_know(own, cllm):
    code, out, err = cllm("plan", own, "--steps", "2000")
    assert code == 0, err
    assert "not known, as it starts from a model" in out


def test_text_may_come_later(cllm, tiny_run, tiny_text, tmp_path):
    sets = [f"--set={name}={value}" for name, value in QUICK.items()]
    assert cllm("import", tiny_run, tmp_path / "run", *sets)[0] == 0
    code, out, err = cllm("generate", tmp_path / "run", "-p", "def", "-n", "4", "--temperature", "0")
    assert (code, out) == (0, cllm("generate", tiny_run, "-p", "def", "-n", "4", "--temperature", "0")[1]), err
    code, _, err = cllm("run", tmp_path / "run")
    assert code != 0
    assert "--from" in err
    assert cllm("run", tmp_path / "run", "--from", tiny_text, "-q")[0] == 0
    assert cllm("run", tmp_path / "run", "--from", tiny_text, "-q")[0] == 0
    code, _, err = cllm("run", tmp_path / "run", "--from", tmp_path, "-q")
    assert code == 1
    assert "it is the run of" in err
    assert cllm("eval", tmp_path / "run")[0] == 0


def test_new_parts_begin_where_they_change_nothing(own, tiny_run):
    made = trainer(own, model__value_embeddings=True, model__phases=["golden"])
    text = torch.randint(0, 400, (2, 30), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(
            made.model(text), store.read_model(checkpoints.find(tiny_run))(text), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize(
    "change", [{"model__width": 48}, {"model__layers": 3}, {"model__factor_scale": 0.0}], ids=str
)
def test_other_sizes_are_refused(own, change):
    with pytest.raises(UserError, match="does not fit the weights") as error:
        trainer(own, **change)
    assert error.value.exit_code == EXIT_USAGE


def test_a_harmed_start_is_named(own, expected):
    weights = own / "start/model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    for words in ({}, {"training.workers": 2}):
        with pytest.raises(UserError, match=r"start/model\.safetensors does not have its checksum") as error:
            runner.run(own, words)
        assert error.value.exit_code == EXIT_DAMAGED
    weights.write_bytes(whole)
    runner.run(own, {"training.workers": 0})
    assert hashes(own) == expected


def test_another_start_is_noticed(own, tiny_run, tmp_path):
    """Whoever puts another model there, sealed as it should be, does not train from it unknowingly."""
    from crystalline.run_folder import seal

    trainer(own)
    recipe = read_json(own / "recipe.json")
    write_json(own / "start/about.json", {"origin": "elsewhere", "license": None})
    seal(own / "start")
    settled = runner.Recipe.from_json(recipe)
    with pytest.raises(UserError, match="not the model that this run was started with"):
        Trainer(RunFolder.open(own), settled)


def test_one_file_gives_the_same_run(tiny_run, tiny_text, tmp_path, expected):
    packed = export(tiny_run, "cllm", tmp_path / "x.cllm").path
    root = runner.import_model(packed, tmp_path / "run", [str(tiny_text)], **QUICK)[0].root
    runner.run(root, {"training.workers": 2})
    assert hashes(root) == expected


def test_a_network_without_norms_of_queries_and_keys_trains_as_reproducibly(tiny_text, tmp_path):
    """The form of Llama, whose heads are split by PyTorch and not by a kernel."""
    sizes = {"layers": 2, "width": 32, "heads": 2, "context": 32, "qk_norm": False}
    found = []
    for workers in (0, 2):
        root = runner.new(
            tmp_path / str(workers), [str(tiny_text)],
            **{**QUICK, "tokenizer.vocabulary_size": 400, **{f"model.{key}": value for key, value in sizes.items()}},
        ).root  # fmt: skip
        runner.run(root, {"training.workers": workers})
        found.append(hashes(root))
    assert found[0] == found[1]
    assert not any("query_norm" in name for name in store.read_weights(checkpoints.find(root)))


def test_a_harmed_vocabulary_is_mended_from_the_checkpoint(own):
    runner.run(own, {"training.workers": 0})
    before = {path.name: path.read_bytes() for path in (own / "tokenizer").iterdir()}
    (own / "tokenizer/tokenizer.json").write_text("{}")
    runner.run(own, {"training.workers": 0})
    assert {path.name: path.read_bytes() for path in (own / "tokenizer").iterdir()} == before
