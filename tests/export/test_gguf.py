"""An exported GGUF file: read by the gguf package, and used by llama.cpp where that is installed."""

import unicodedata

import numpy as np
import pytest
import torch
from exported_models import make_model, strings

from crystalline.errors import UserError
from crystalline.export import check, gguf, layout, reader
from crystalline.export.exporting import export
from crystalline.model import store
from crystalline.tokens.tokenizer import SPECIAL_TOKENS

partner = pytest.importorskip("gguf")
TYPES = {"fp32": "F32", "f16": "F16", "bf16": "BF16", "q8_0": "Q8_0"}


@pytest.fixture(scope="module")
def files(model, tmp_path_factory):
    place = tmp_path_factory.mktemp("gguf")
    return {p: export(model, "gguf", place / f"{p}.gguf", p, license_="mit") for p in TYPES}


@pytest.fixture(scope="module")
def tensors(model):
    return layout.to_plain(store.read_model(model, torch.float32))


def fields(path):
    return {name: field.contents() for name, field in partner.GGUFReader(path).fields.items()}


def test_the_metadata_is_what_llama_cpp_wants(files, tokenizer):
    found = fields(files["q8_0"].path)
    wanted = {
        "general.architecture": "qwen3", "general.name": "some-model", "general.license": "mit",
        "general.file_type": 7, "general.quantization_version": 2, "general.alignment": 32,
        "qwen3.block_count": 2, "qwen3.context_length": 96, "qwen3.embedding_length": 64,
        "qwen3.feed_forward_length": 80, "qwen3.attention.head_count": 4, "qwen3.attention.head_count_kv": 2,
        "qwen3.attention.key_length": 16, "qwen3.attention.value_length": 16, "qwen3.rope.dimension_count": 16,
        "qwen3.rope.freq_base": 5000.0, "qwen3.attention.layer_norm_rms_epsilon": pytest.approx(1e-6),
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "dbrx", "tokenizer.ggml.bos_token_id": 2,
        "tokenizer.ggml.eos_token_id": 3, "tokenizer.ggml.padding_token_id": 0, "tokenizer.ggml.unknown_token_id": 1,
        "tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.add_eos_token": False,
    }  # fmt: skip
    assert {name: found[name] for name in wanted} == wanted
    content = tokenizer.content()
    tokens = found["tokenizer.ggml.tokens"]
    assert tokens[:8] == list(SPECIAL_TOKENS)
    assert {token: id_ for id_, token in enumerate(tokens)} == content["model"]["vocab"]
    assert found["tokenizer.ggml.token_type"] == [3] * 8 + [1] * (len(tokens) - 8)
    assert [tuple(m.split(" ")) for m in found["tokenizer.ggml.merges"]] == [
        tuple(m) for m in content["model"]["merges"]
    ]
    assert "add_generation_prompt" in found["tokenizer.chat_template"]


@pytest.mark.parametrize("precision", TYPES)
def test_the_bytes_are_those_of_the_gguf_package(files, tensors, precision):
    """Every tensor, in every type: made here and by `gguf.quants` from the same numbers."""
    found = {tensor.name: tensor for tensor in partner.GGUFReader(files[precision].path).tensors}
    assert len(found) == len(tensors)
    for name, tensor in tensors.items():
        there, rows = found[gguf._name(name)], tensor.shape[-1]
        kind = "F32" if tensor.dim() == 1 else "F16" if precision == "q8_0" and rows % 32 else TYPES[precision]
        assert there.tensor_type.name == kind
        assert there.shape.tolist() == list(tensor.shape[::-1])
        wanted = partner.quants.quantize(tensor.numpy(), partner.GGMLQuantizationType[kind])
        assert np.asarray(there.data).tobytes() == wanted.tobytes(), name
        assert there.data_offset % 32 == 0


def test_blocks_at_the_edges_are_rounded_as_the_gguf_package_does():
    rows = np.zeros((6, 64), np.float32)
    rows[1, 0], rows[2, :32] = -1e-30, np.linspace(-1, 1, 32)  # a scale that fp16 does not have; halves
    rows[3], rows[4], rows[5, 40] = 127.5, np.float32(-3e4), 5.0
    rows[2, 32:] = np.arange(32) * 0.5 - 8
    rows[2, 63] = 127.0
    for kind in ("q8_0", "bf16", "f16", "fp32"):
        wanted = partner.quants.quantize(rows, partner.GGMLQuantizationType[TYPES[kind]])
        assert gguf.encode(rows, kind) == wanted.tobytes()
    random = np.random.default_rng(0).normal(size=(300, 96)).astype(np.float32)
    assert gguf.encode(random, "q8_0") == partner.quants.quantize(random, partner.GGMLQuantizationType.Q8_0).tobytes()


@pytest.mark.parametrize("precision", ["f16", "q8_0"])
def test_what_fp16_cannot_hold_is_told(precision):
    with pytest.raises(UserError, match="65504"):
        gguf.encode(np.full((1, 32), 1e9, np.float32), precision)
    assert len(gguf.encode(np.full((1, 32), 1e9, np.float32), "bf16")) == 64


def test_quantised_it_predicts_nearly_as_well(files):
    for precision in ("q8_0", "bf16", "f16"):
        (told,) = files[precision].checks
        assert not told.lossless
        before, after = told.perplexity
        assert after == pytest.approx(before, rel=0.01)
        assert told.agreement > 0.9
    assert files["fp32"].checks[0].lossless
    assert files["q8_0"].bytes < 0.4 * files["fp32"].bytes
    assert "f16" in files["q8_0"].remarks[1]  # rows of 80
    assert "combining marks" in files["fp32"].remarks[0]


def test_a_tokenizer_that_llama_cpp_does_not_know_is_refused(model, tokenizer, tmp_path):
    content = tokenizer.content()
    content["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"\d|\D+"

    class Other(type(tokenizer)):
        def content(self):
            return content

    other = object.__new__(Other)
    with pytest.raises(UserError, match="cutting text"):
        gguf._split(other)


# --- in llama.cpp --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def llama(files):
    llama_cpp = pytest.importorskip("llama_cpp")
    options = {"n_ctx": 96, "n_batch": 96, "logits_all": True, "n_gpu_layers": 0, "verbose": False, "n_threads": 1}

    def load(precision):
        return llama_cpp.Llama(str(files[precision].path), type_k=0, type_v=0, flash_attn=False, **options)

    return load


def test_llama_cpp_gives_the_same_logits_and_64_greedy_tokens(llama, model, tokenizer):
    theirs, ours = llama("fp32"), store.read_model(model, torch.float32)
    said = check.probe(ours, tokenizer)
    theirs.eval(said.text)
    there = np.array(theirs.scores[: len(said.text)])
    assert float(np.abs(there - said.logits).max()) <= 1e-5 * float(np.abs(said.logits).max())
    assert len(said.greedy) == 64
    never = dict.fromkeys(tokenizer.special_tokens, -1000000000.0)
    made = theirs.generate(
        said.prompt, temp=0, repeat_penalty=1.0,
        logits_processor=[lambda ids, scores: scores + [never.get(i, 0.0) for i in range(len(scores))]],
    )  # fmt: skip
    assert [next(made) for _ in range(64)] == said.greedy


def test_llama_cpp_quantised_is_within_a_hundredth_of_the_perplexity(llama, model, tokenizer):
    said = check.probe(store.read_model(model, torch.float32), tokenizer)
    theirs = llama("q8_0")
    theirs.eval(said.text)
    after = check.perplexity(np.array(theirs.scores[: len(said.text)]), said.text)
    assert after == pytest.approx(check.perplexity(said.logits, said.text), rel=0.01)


def test_llama_cpp_cuts_text_into_the_same_tokens(llama, tokenizer):
    """On 200 texts without combining marks. With them the tokens may be others, of the same bytes."""
    theirs = llama("fp32")
    for text in strings(combining=False):
        ids = theirs.tokenize(text.encode(), add_bos=False, special=False)
        assert ids == tokenizer.encode(text), text
        assert theirs.tokenize(text.encode(), add_bos=True, special=False) == [tokenizer.bos, *ids]
    others = [text for text in strings() if any(unicodedata.category(c).startswith("M") for c in text)]
    differ = 0
    for text in others:
        ids = theirs.tokenize(text.encode(), add_bos=False, special=False)
        assert tokenizer.decode_bytes(ids) == text.encode()
        differ += ids != tokenizer.encode(text)
    assert differ < len(others)


def test_without_norms_of_queries_and_keys_it_is_a_llama(tokenizer, tmp_path):
    pytest.importorskip("llama_cpp")
    folder = make_model(tmp_path / "m", tokenizer, qk_norm=False)
    for precision in ("fp32", "q8_0"):
        made = export(folder, "gguf", tmp_path / f"{precision}.gguf", precision, verify=True)
        assert [one.equal for one in made.checks] == [True, True]
    assert fields(made.path)["general.architecture"] == "llama"
    assert fields(made.path)["llama.rope.freq_base"] == 5000.0


def test_verify_asks_llama_cpp(llama, model, tmp_path):
    made = export(model, "gguf", tmp_path / "x.gguf", verify=True)
    assert [one.reader for one in made.checks] == ["plain NumPy", "llama.cpp"]
    assert all(one.equal and one.lossless for one in made.checks)


def test_a_network_of_another_form_is_read_the_same(tokenizer, tmp_path):
    """One head for keys and values, an even number of blocks of 32, another epsilon."""
    folder = make_model(tmp_path / "m", tokenizer, kv_heads=1, hidden=96, norm_epsilon=1e-5, factor_scale=0.5)
    made = export(folder, "gguf", tmp_path / "x.gguf", "q8_0")
    metadata, tensors = reader.gguf_contents(made.path)
    assert metadata["qwen3.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-5)
    assert tensors["blk.0.attn_k.weight"].shape == (16, 64)
    assert len(made.remarks) == 1
