"""`cllm import`: networks of transformers become the start of a run, exactly; what cannot is refused and why."""

import json
import shutil

import numpy as np
import pytest
import torch
from exported_models import make_model, strings
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from crystalline import UserError, load
from crystalline.errors import EXIT_DAMAGED
from crystalline.export.exporting import export
from crystalline.export.gguf import PRE_TOKENIZERS
from crystalline.export.importing import import_model
from crystalline.model import store
from crystalline.pipeline import runner
from crystalline.run_folder import RunFolder, read_json, write_json
from crystalline.tokens.codes import TokenCodes
from crystalline.tokens.tokenizer import BYTE_OF_SYMBOL
from crystalline.tokens.tokenizer import Tokenizer as OwnTokenizer

transformers = pytest.importorskip("transformers")
QWEN2 = next(rule for rule, name in PRE_TOKENIZERS.items() if name == "qwen2")
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
ROWS = 600  # of the table: more than there are tokens, as in the real ones


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """A small network of the Qwen3 family with a tokenizer like theirs, saved by transformers in several files."""
    folder = tmp_path_factory.mktemp("qwen") / "Tiny-Qwen3"
    engine = Tokenizer(models.BPE())
    engine.normalizer = normalizers.NFC()
    engine.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    engine.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=560, initial_alphabet=list(BYTE_OF_SYMBOL), show_progress=False)
    engine.train_from_iterator([(__doc__ + open(__file__).read()) * 3], trainer)
    engine.add_special_tokens(list(SPECIAL))
    engine.add_tokens(["<tool_call>"])
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=engine, eos_token="<|im_end|>", pad_token="<|endoftext|>", bos_token=None
    )
    tokenizer.chat_template = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
    config = transformers.Qwen3Config(
        vocab_size=ROWS, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, head_dim=32, max_position_embeddings=4096, rms_norm_eps=1e-6, tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        bos_token_id=engine.token_to_id("<|endoftext|>"), eos_token_id=engine.token_to_id("<|im_end|>"),
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.Qwen3ForCausalLM(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    model.save_pretrained(folder, max_shard_size="100KB")
    tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\ntags:\n- x\n---\n# hello\n")
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    return folder


@pytest.fixture(scope="module")
def imported(theirs, tmp_path_factory):
    """RUN of `cllm import`, without a text."""
    return runner.import_model(theirs, tmp_path_factory.mktemp("run") / "run", [])[0].root


@pytest.fixture
def own(theirs, tmp_path):
    """Their folder as one of one's own, the weights in one file."""
    folder = tmp_path / "own"
    shutil.copytree(theirs, folder, ignore=shutil.ignore_patterns("model*"))
    weights = {name: tensor for file in theirs.glob("model-*") for name, tensor in load_file(file).items()}
    save_file(weights, folder / "model.safetensors")
    return folder


def edit(path, **changes):
    write_json(path, {**read_json(path), **changes})


def rewrite(folder, change):
    weights = load_file(folder / "model.safetensors")
    save_file(change(weights) or weights, folder / "model.safetensors")


def refused(folder, match, tmp_path):
    with pytest.raises(UserError, match=match) as error:
        runner.import_model(folder, tmp_path / "new-run", [])
    assert not (tmp_path / "new-run").exists()
    assert error.value.fix
    return error.value


# --- what is imported is the same --------------------------------------------------------------------------------


def test_the_network_says_what_it_said_in_transformers(theirs, imported):
    model, other = load(imported), transformers.AutoModelForCausalLM.from_pretrained(theirs)
    size = model.tokenizer.vocabulary_size
    assert size < ROWS
    text = torch.tensor([model.tokenizer.encode("def test_the_network(theirs, imported): <tool_call> 12")])
    with torch.inference_mode():
        here, there = model.model(text), other(text).logits[..., :size]
    assert float((here - there).abs().max()) <= 1e-5 * float(there.abs().max())


def test_the_tokenizer_is_theirs(theirs, imported):
    here, there = load(imported).tokenizer, transformers.AutoTokenizer.from_pretrained(theirs)
    assert here.special_tokens == {there.convert_tokens_to_ids(name): name for name in SPECIAL}
    assert (here.eos, here.pad) == (there.eos_token_id, there.pad_token_id)
    assert here.bos == there.convert_tokens_to_ids("<|endoftext|>")  # config.json says so
    assert here.chat_template == there.chat_template
    for text in strings():
        ids = here.encode(text)
        assert ids == there.encode(text, add_special_tokens=False, split_special_tokens=True), text
        assert here.decode(ids) == normalizers.NFC().normalize_str(text)
    assert here.decode(here.encode("<tool_call>")) == "<tool_call>"
    assert len(here.encode("<tool_call>")) == 1


def test_its_tokens_have_codes_and_the_factors_are_zero(imported):
    codes, tokenizer = TokenCodes.load(imported / "start"), OwnTokenizer.load(imported / "start")
    assert codes.vocabulary_size == tokenizer.vocabulary_size
    assert all(codes.token_of(codes.code(id_)) == id_ for id_ in range(codes.vocabulary_size))
    assert [codes.root(id_).name for id_ in tokenizer.special_tokens] == list(SPECIAL)
    assert codes.factor_count > 20
    weights = store.read_weights(imported / "start")
    assert weights["embedding.factors"].shape == (codes.factor_count, 64)
    assert not weights["embedding.factors"].any()


def test_it_can_be_used_at_once(cllm, imported, tmp_path):
    code, out, err = cllm("generate", imported, "-p", "def ", "-n", "8", "--temperature", "0")
    assert code == 0, err
    assert len(out) > 1
    assert cllm("lattice", "token", "def", "--run", imported / "start")[0] == 0
    made = export(imported, "gguf", tmp_path / "x.gguf")
    from crystalline.export.reader import gguf_contents

    metadata = gguf_contents(made.path)[0]
    assert metadata["tokenizer.ggml.pre"] == "qwen2"
    assert metadata["general.license"] == "apache-2.0"
    assert metadata["tokenizer.ggml.token_type"][-4:] == [3, 3, 3, 4]
    assert made.remarks == []


def test_llama_cpp_cuts_text_as_the_imported_tokenizer(imported, tmp_path):
    llama_cpp = pytest.importorskip("llama_cpp")
    made = export(imported, "gguf", tmp_path / "x.gguf", verify=True)
    theirs, here = llama_cpp.Llama(str(made.path), n_gpu_layers=0, verbose=False), load(imported).tokenizer
    for text in strings():
        text = normalizers.NFC().normalize_str(text)
        assert theirs.tokenize(text.encode(), add_bos=False, special=False) == here.encode(text), text


@pytest.mark.parametrize("precision", ["bf16", "f16", "fp32"])
def test_an_export_comes_back(model, tmp_path, precision):
    out = export(model, "hf", tmp_path / "out", precision).path
    (tmp_path / "start").mkdir()
    made = import_model(out, tmp_path / "start")
    dtype = {"bf16": torch.bfloat16, "f16": torch.float16, "fp32": torch.float32}[precision]
    before, after = store.read_model(model, torch.float32), store.read_model(tmp_path / "start", torch.float32)
    assert torch.equal(after.folded_embedding(), before.folded_embedding().to(dtype).float())
    assert made.checks[0].equal
    if precision == "fp32":
        text = torch.randint(0, 700, (1, 90), generator=torch.Generator().manual_seed(3))
        with torch.inference_mode():
            torch.testing.assert_close(after(text), before(text), rtol=1e-5, atol=1e-5)
    assert OwnTokenizer.load(tmp_path / "start").fingerprint == OwnTokenizer.load(model).fingerprint
    assert read_json(tmp_path / "start/about.json") == {"origin": "out", "license": None}


@pytest.mark.parametrize("options", [{}, {"value_embeddings": True, "phases": ["golden"], "ngram_rows": 64}], ids=str)
def test_one_file_comes_back_whole(cllm, tokenizer, tmp_path, options):
    folder = make_model(tmp_path / "m", tokenizer, **options)
    out = export(folder, "cllm", tmp_path / "x.cllm", license_="mit").path
    code, told, err = cllm("import", out, tmp_path / "run", "--json")
    assert code == 0, err
    assert json.loads(told)["checks"][0]["logit_difference"] == 0
    start = tmp_path / "run/start"
    for name in ("model.safetensors", "codes.json", "tokenizer.json"):
        assert (start / name).read_bytes() == (folder / name).read_bytes()
    assert read_json(start / "about.json") == {"origin": "m", "license": "mit"}
    again = export(tmp_path / "run", "cllm", tmp_path / "y.cllm")
    assert again.checks[0].difference == 0


def test_context_is_what_was_asked_for(cllm, theirs, tmp_path):
    code, out, err = cllm("import", theirs, tmp_path / "a", "--json")
    assert code == 0, err
    assert any("4,096 tokens at once; this run uses 2,048" in remark for remark in json.loads(out)["remarks"])
    assert cllm("import", theirs, tmp_path / "b", "--context", "64")[0] == 0
    assert load(tmp_path / "b").model.shape.context == 64
    assert "context = 64" in RunFolder(tmp_path / "b").settings.read_text()


# --- the Llama family --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["digits, GPT-2", "GPT-2", "Llama 3"])
def llama(request, tmp_path_factory):
    """A small network of the Llama family, with a tokenizer as SmolLM2, GPT-2 or Llama 3 have it."""
    folder = tmp_path_factory.mktemp("llama") / "Tiny-Llama"
    whole_words = request.param == "Llama 3"
    engine = Tokenizer(models.BPE(ignore_merges=whole_words))
    parts = [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not whole_words)]
    if whole_words:
        llama_3 = [rule for rule, name in PRE_TOKENIZERS.items() if name == "dbrx"][1]
        parts.insert(0, pre_tokenizers.Split(Regex(llama_3), behavior="isolated"))
    elif request.param != "GPT-2":
        parts.insert(0, pre_tokenizers.Digits(individual_digits=True))
    engine.pre_tokenizer, engine.decoder = pre_tokenizers.Sequence(parts), decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=520, initial_alphabet=list(BYTE_OF_SYMBOL), special_tokens=special, show_progress=False
    )
    engine.train_from_iterator([open(__file__).read() * 3], trainer)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=engine, eos_token="<|im_end|>", bos_token="<|im_start|>"
    )
    config = transformers.LlamaConfig(
        vocab_size=engine.get_vocab_size(), hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128, rms_norm_eps=1e-5,
        tie_word_embeddings=True, rope_parameters={"rope_type": "default", "rope_theta": 1e5},
    )  # fmt: skip
    torch.manual_seed(1)
    model = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_llama_is_imported_and_comes_back(llama, tmp_path):
    run = runner.import_model(llama, tmp_path / "run", [])[0].root
    here, there = load(run), transformers.AutoModelForCausalLM.from_pretrained(llama)
    assert not here.model.shape.qk_norm
    assert here.model.shape.norm_epsilon == 1e-5
    text = torch.randint(0, here.tokenizer.vocabulary_size, (2, 100), generator=torch.Generator().manual_seed(4))
    with torch.inference_mode():
        mine, wanted = here.model(text), there(text).logits
    assert float((mine - wanted).abs().max()) <= 1e-5 * float(wanted.abs().max())
    tokenizer = transformers.AutoTokenizer.from_pretrained(llama)
    for string in strings():
        assert here.tokenizer.encode(string) == tokenizer.encode(
            string, add_special_tokens=False, split_special_tokens=True
        )
    back = export(run, "hf", tmp_path / "back").path
    again, before = (load_file(folder / "model.safetensors") for folder in (back, llama))
    assert all(torch.equal(again[name], tensor) for name, tensor in before.items() if name != "lm_head.weight")


def test_llama_cpp_reads_an_imported_llama(llama, tmp_path):
    llama_cpp = pytest.importorskip("llama_cpp")
    run = runner.import_model(llama, tmp_path / "run", [])[0].root
    made = export(run, "gguf", tmp_path / "x.gguf", verify=True)
    theirs, here = llama_cpp.Llama(str(made.path), n_gpu_layers=0, verbose=False), load(run).tokenizer
    for text in strings():
        assert theirs.tokenize(text.encode(), add_bos=False, special=False) == here.encode(text), text


# --- what cannot be imported is told, and leaves nothing ------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"model_type": "llama"}, "self_attn.k_norm.weight is not known"),
        ({"model_type": "llama", "mlp_bias": True}, "mlp_bias is not"),
        ({"model_type": "gpt2"}, "'gpt2'"),
        ({"model_type": None}, "model_type is None"),
        ({"attention_bias": True}, "attention_bias is not"),
        ({"hidden_act": "gelu"}, "hidden_act is not"),
        ({"use_sliding_window": True}, "use_sliding_window is not"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e6}}, "rope_scaling is not"),
        ({"quantization_config": {"bits": 4}}, "quantization_config is not"),
        ({"hidden_size": "wide"}, "cannot be used"),
        ({"hidden_size": 72}, r"is \(600, 64\), not \(600, 72\)"),
        ({"num_attention_heads": 3}, "do not fit each other"),
        ({"num_hidden_layers": 4}, "layers.3.self_attn.q_proj.weight is missing"),
        ({"num_hidden_layers": 2}, "layers.2.* is not known"),
        ({"vocab_size": 100}, "its tokenizer has .* its network 100"),
        ({"tie_word_embeddings": False}, "head is not tied"),
    ],
    ids=str,
)
def test_configurations_that_do_not_fit(own, tmp_path, changes, why):
    edit(own / "config.json", **changes)
    refused(own, why, tmp_path)


def test_a_missing_setting_is_told(own, tmp_path):
    config = read_json(own / "config.json")
    del config["hidden_size"]
    write_json(own / "config.json", config)
    refused(own, "hidden_size", tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("config.json", "{", "damaged"),
        ("config.json", "[]", "no JSON object"),
        ("tokenizer.json", "{", "tokenizer.json"),
        ("tokenizer.json", None, "no tokenizer.json"),
        ("model.safetensors", None, "no model.safetensors"),
        ("model.safetensors", "not a safetensors file at all", "model.safetensors"),
    ],
)
def test_files_that_are_missing_or_damaged(own, tmp_path, name, text, why):
    (own / name).unlink()
    if text is not None:
        (own / name).write_text(text)
    refused(own, why, tmp_path)


def test_pickles_are_not_read(own, tmp_path):
    (own / "model.safetensors").rename(own / "pytorch_model.bin")
    refused(own, "only .bin files, which can hold programs", tmp_path)


def test_a_file_that_was_cut_off(own, tmp_path):
    path = own / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert refused(own, "could not read", tmp_path).exit_code == EXIT_DAMAGED


def test_weights_that_do_not_fit(own, tmp_path):
    norm = "model.norm.weight"
    rewrite(own, lambda weights: weights[norm].__setitem__(3, float("nan")))
    refused(own, r"final_norm.gain are no numbers", tmp_path)
    rewrite(own, lambda weights: {**weights, norm: torch.ones(63)})
    refused(own, r"model.norm.weight is \(63,\), not \(64,\)", tmp_path)
    rewrite(own, lambda weights: {**weights, norm: torch.ones(64, dtype=torch.int8)})
    refused(own, "numbers of type I8", tmp_path)
    rewrite(own, lambda weights: {**weights, norm: torch.ones(64), "model.extra.weight": torch.ones(1)})
    refused(own, "model.extra.weight is not known", tmp_path)


def test_a_head_that_is_equal_counts_as_tied(own, tmp_path):
    edit(own / "config.json", tie_word_embeddings=False)
    rewrite(own, lambda weights: {**weights, "lm_head.weight": weights["model.embed_tokens.weight"].clone()})
    (tmp_path / "start").mkdir()
    assert import_model(own, tmp_path / "start").checks[0].equal
    rewrite(own, lambda weights: weights["lm_head.weight"].__setitem__((0, 0), 1.0))
    refused(own, "head is not tied", tmp_path)


@pytest.mark.parametrize(
    "name", ["../weights.safetensors", "/etc/weights.safetensors", "a/b.safetensors", "x.bin", 7]
)
def test_an_index_cannot_lead_out_of_the_folder(theirs, tmp_path, name):
    folder = shutil.copytree(theirs, tmp_path / "own")
    index = read_json(folder / "model.safetensors.index.json")
    index["weight_map"]["model.norm.weight"] = name
    write_json(folder / "model.safetensors.index.json", index)
    refused(folder, "which cannot be in it", tmp_path)


def test_an_index_that_names_a_missing_file(theirs, tmp_path):
    folder = shutil.copytree(theirs, tmp_path / "own")
    missing = sorted(folder.glob("model-*.safetensors"))[0]
    missing.unlink()
    refused(folder, f"{missing.name} is missing", tmp_path)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (
            lambda t: t["model"].update(type="WordLevel", unk_token="a", vocab={"a": 0}),
            "WordLevel|untagged|enum|variant",
        ),
        (lambda t: t.update(pre_tokenizer={"type": "Whitespace"}), "does not work on bytes"),
        (lambda t: t["pre_tokenizer"]["pretokenizers"][1].update(add_prefix_space=True), "adds a space"),
        (lambda t: t.update(normalizer={"type": "Lowercase"}), "Lowercase"),
        (lambda t: t["model"].update(byte_fallback=True), "falls back to bytes"),
    ],
)
def test_tokenizers_that_do_not_work_here(own, tmp_path, change, why):
    content = read_json(own / "tokenizer.json")
    change(content)
    write_json(own / "tokenizer.json", content)
    refused(own, why, tmp_path)


def test_a_tokenizer_without_an_end(own, tmp_path):
    edit(own / "tokenizer_config.json", eos_token=None)
    edit(own / "config.json", eos_token_id=None)
    edit(own / "generation_config.json", eos_token_id=None)
    refused(own, "no special token for the end of a text", tmp_path)


def test_what_is_no_model_or_already_there(cllm, own, tmp_path):
    refused(tmp_path / "nowhere", "no such file", tmp_path)
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "no config.json", tmp_path)
    (tmp_path / "letter.txt").write_text("dear")
    refused(tmp_path / "letter.txt", "no .cllm file", tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/letter.txt").write_text("dear")
    code, _, err = cllm("import", own, tmp_path / "taken")
    assert code == 1
    assert "not an empty folder" in err
    assert cllm("import", own, tmp_path / "run", "--from", tmp_path / "missing")[0] == 1
    assert not (tmp_path / "run").exists()
    code, _, err = cllm("generate", own, "-p", "x")
    assert code == 1
    assert "cllm import" in err


def test_a_kill_in_the_middle_leaves_no_run(start, own, tmp_path):
    (tmp_path / "run/.start.0123abcd.partial").mkdir(parents=True)  # what a kill leaves
    with start("import", own, tmp_path / "run") as command:
        assert command.wait().code == 0
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [
        "crystalline.toml", "events.jsonl", "manifest.json", "start",
    ]  # fmt: skip
    assert np.isfinite(load(tmp_path / "run").model.folded_embedding().numpy()).all()
