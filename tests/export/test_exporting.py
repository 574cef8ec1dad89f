"""`cllm export`: what is refused, what is checked, and that nothing half-done or wrong is left."""

import importlib.util
import json
import os
import shutil

import pytest
import torch
from exported_models import make_model
from safetensors.torch import load_file, save_file

from crystalline import UserError, load
from crystalline.errors import EXIT_DAMAGED, EXIT_SYSTEM, EXIT_USAGE
from crystalline.export import check, gguf, hugging_face
from crystalline.export.exporting import PRECISIONS, export
from crystalline.model import packed, store
from crystalline.run_folder import seal

EVERY = [(target, precision) for target, precisions in PRECISIONS.items() for precision in precisions]


@pytest.fixture
def own(model, tmp_path):
    """The model as one of one's own."""
    return shutil.copytree(model, tmp_path / "own")


def change(folder, change):
    """Change the weights of a model, and seal it again as if it had always been so."""
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")
    seal(folder)


@pytest.mark.parametrize(("target", "precision"), EVERY)
def test_every_target_is_written_checked_and_told(cllm, model, tmp_path, target, precision):
    out = tmp_path / "out"
    code, told, err = cllm("export", model, "--to", target, "--precision", precision, "--out", out)
    assert code == 0, err
    assert told.startswith(f"wrote {out}: ")
    assert "read back by plain NumPy: largest logit difference" in told
    assert ("64 of 64 greedy tokens equal" in told) or precision != "fp32"
    code, again, _ = cllm(
        "export", model, "--to", target, "--precision", precision, "--out", out, "--force", "--json"
    )
    assert code == 0
    found = json.loads(again)
    assert found["target"] == target
    assert found["bytes"] == (out.stat().st_size if out.is_file() else sum(f.stat().st_size for f in out.iterdir()))
    assert all(one["equal"] for one in found["checks"])
    if precision == "fp32":
        assert all(one["lossless"] and one["logit_difference"] <= 1e-5 for one in found["checks"])
        assert all(one["greedy_equal"] == one["greedy"] == 64 for one in found["checks"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


@pytest.mark.parametrize("target", PRECISIONS)
def test_the_same_model_gives_the_same_bytes(model, tmp_path, target):
    first, second = (export(model, target, tmp_path / name).path for name in "ab")
    for file in [first] if first.is_file() else first.iterdir():
        assert file.read_bytes() == (second if first.is_file() else second / file.name).read_bytes()


def test_names_are_made_from_the_model(cllm, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    step = run / "checkpoints/step-00000004"
    for words in (["--to", "hf"], ["--to", "gguf", "--precision", "f16"], ["--to", "cllm"]):
        assert cllm("export", run, *words)[0] == 0
    assert cllm("export", step, "--to", "cllm")[0] == 0
    assert {"run-hf", "run-f16.gguf", "run.cllm", "run-step-00000004.cllm"} <= {p.name for p in tmp_path.iterdir()}
    about = json.loads((packed.unpack(tmp_path / "run.cllm") / "about.json").read_text())
    assert about["training"]["steps"] == 6
    assert about["training"]["tokens"] > 0
    assert 1 < about["training"]["bits_per_byte"] < 10


# --- what is wrong is noticed ------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["hf", "gguf"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_writer_that_spoils_one_weight_is_caught(model, tmp_path, monkeypatch, target, precision):
    module = hugging_face if target == "hf" else gguf
    write = module.write

    def spoiled(place, tensors, *rest):
        tensors = dict(tensors)
        name = "model.layers.1.mlp.up_proj.weight"
        tensors[name] = tensors[name].clone()
        tensors[name][3, 5] *= 1.01
        return write(place, tensors, *rest)

    monkeypatch.setattr(module, "write", spoiled)
    with pytest.raises(UserError, match=r"mlp\.up_proj are not those"):
        export(model, target, tmp_path / "out", precision)
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_says_something_else_is_an_error(model, tmp_path, monkeypatch):
    """Right weights under wrong names or sizes would only show in what is said."""
    to_config = hugging_face.to_config
    monkeypatch.setattr(
        hugging_face, "to_config", lambda shape: to_config(shape) | {"rms_norm_eps": 1e-2, "num_key_value_heads": 2}
    )
    with pytest.raises(UserError, match="it is not the model: largest logit difference"):
        export(model, "hf", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_check_ends_the_command_with_an_error(cllm, model, tmp_path, monkeypatch):
    monkeypatch.setattr(check, "EQUAL", 0.0)
    code, out, err = cllm("export", model, "--to", "gguf", "--out", tmp_path / "x.gguf")
    assert (code, out) == (1, "")
    assert "the check of what was written has failed" in err
    assert list(tmp_path.iterdir()) == []


def test_greedy_tokens_are_counted_up_to_the_first_other_one(model, tokenizer):
    network = store.read_model(model, torch.float32)
    said = check.probe(network, tokenizer)

    def otherwise(tokens):
        logits = said.logits.copy() if list(tokens) == said.text else None
        if logits is None:
            with torch.inference_mode():
                logits = network(torch.tensor([list(tokens)]))[0].numpy().copy()
            logits[len(said.prompt) - 1 + 5, 300] = 1e6
        return logits

    told = check.compare(said, otherwise, "another", lossless=True)
    assert told.greedy == (5, 64)
    assert not told.equal


# --- what cannot be done is told -----------------------------------------------------------------------------------


def test_weights_that_are_no_numbers_are_refused(own, tmp_path):
    change(own, lambda weights: weights["final_norm.gain"].fill_(float("nan")))
    with pytest.raises(UserError, match=r"final_norm\.gain are no numbers"):
        export(own, "gguf", tmp_path / "x.gguf")
    assert not (tmp_path / "x.gguf").exists()


@pytest.mark.parametrize("options", [{"value_embeddings": True}, {"rotary": "golden", "ngram_rows": 64}], ids=str)
def test_networks_of_another_form_go_into_one_file_only(tokenizer, tmp_path, options):
    folder = make_model(tmp_path / "m", tokenizer, **options)
    for target in ("hf", "gguf"):
        with pytest.raises(UserError) as error:
            export(folder, target, tmp_path / "out")
        assert all(f"model.{name}" in error.value.why for name in options)
    made = export(folder, "cllm", tmp_path / "x.cllm")
    assert [one.reader for one in made.checks] == ["crystalline"]
    assert load(made.path).model.shape == load(folder).model.shape


def test_what_is_there_is_not_replaced(model, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "letter.txt").write_text("dear")
    for force in (False, True):
        with pytest.raises(UserError, match="no earlier export"):
            export(model, "hf", mine, force=force)
        with pytest.raises(UserError, match="exists"):
            export(model, "gguf", mine, force=force)
    assert (mine / "letter.txt").read_text() == "dear"
    file = export(model, "cllm", tmp_path / "x.cllm").path
    before = file.read_bytes()
    with pytest.raises(UserError, match="--force"):
        export(model, "cllm", file)
    with pytest.raises(UserError):
        export(model, "hf", file, force=True)
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--to", "onnx"], "invalid choice: 'onnx'"),
        (["--to", "hf", "--precision", "q8_0"], "hf is written in fp32, bf16, f16"),
        (["--to", "cllm", "--precision", "bf16"], "cllm is written in fp32"),
        ([], "--to"),
    ],
)
def test_wrong_flags_are_told(cllm, model, words, why):
    code, out, err = cllm("export", model, *words)
    assert (code, out) == (EXIT_USAGE, "")
    assert why in err


def test_who_asks_for_a_program_that_is_not_there_is_told_at_once(cllm, model, tmp_path, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in ("llama_cpp", "transformers") else find_spec(name)
    )
    for target, package in (("gguf", "llama-cpp-python"), ("hf", "transformers")):
        code, out, err = cllm("export", model, "--to", target, "--out", tmp_path / "out", "--verify")
        assert (code, out) == (1, "")
        assert f"pip install {package}" in err
    assert not (tmp_path / "out").exists()


def test_no_model_yet(cllm, new_run, tmp_path):
    code, _, err = cllm("export", new_run, "--to", "gguf", "--out", tmp_path / "x.gguf")
    assert code == 1
    assert "there is no model" in err
    assert cllm("export", tmp_path / "nowhere", "--to", "gguf")[0] == 1


def test_a_damaged_checkpoint_is_named(cllm, own, tmp_path):
    data = bytearray((own / "model.safetensors").read_bytes())
    data[-5] ^= 1
    (own / "model.safetensors").write_bytes(data)
    code, _, err = cllm("export", own, "--to", "hf", "--out", tmp_path / "out")
    assert code == EXIT_DAMAGED
    assert "model.safetensors does not have its checksum" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("target", PRECISIONS)
def test_a_full_disk_leaves_nothing(start, model, tmp_path, target):
    with start("export", model, "--to", target, "--out", tmp_path / "there" / "out", before=small_files) as command:
        result = command.wait()
    assert result.code == EXIT_SYSTEM, result.err
    assert "Traceback" not in result.err
    assert list((tmp_path / "there").iterdir()) == []


def small_files():
    """No file may become larger than 50 kB from here on, as on a disk that is nearly full."""
    import resource
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_no_permission(model, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError) as error:
        export(model, "cllm", tmp_path / "x.cllm")
    assert error.value.exit_code == EXIT_SYSTEM
    tmp_path.chmod(0o700)
