"""An exported folder in the transformers library: the same logits, the same greedy text, the same tokens."""

import json

import numpy as np
import pytest
import torch
from exported_models import make_model, strings

from crystalline.export.exporting import export
from crystalline.export.hugging_face import CHAT_TEMPLATE
from crystalline.model import store
from crystalline.pipeline.conversation import Conversation
from crystalline.settings import Generation

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    return export(model, "hf", tmp_path_factory.mktemp("hf") / "out", license_="apache-2.0").path


@pytest.fixture(scope="module")
def theirs(exported):
    return transformers.AutoModelForCausalLM.from_pretrained(exported).eval()


@pytest.fixture(scope="module")
def ours(model):
    return store.read_model(model, torch.float32)


def greedy(ours, prompt, count, hidden):
    tokens = list(prompt)
    with torch.inference_mode():
        for _ in range(count):
            logits = ours(torch.tensor([tokens]))[0, -1]
            logits[hidden] = -torch.inf
            tokens.append(int(logits.argmax()))
    return tokens


def test_the_logits_are_equal(theirs, ours, tokenizer):
    assert type(theirs).__name__ == "Qwen3ForCausalLM"
    assert theirs.dtype == torch.float32
    text = torch.tensor([[tokenizer.bos, *tokenizer.encode("def heappush(heap, item):\n    return 12" * 3)][:96]])
    with torch.inference_mode():
        here, there = ours(text), theirs(text).logits
    assert float((here - there).abs().max()) <= 1e-5 * float(here.abs().max())


def test_64_greedy_tokens_are_equal(theirs, ours, tokenizer):
    hidden = [id_ for id_ in tokenizer.special_tokens if id_ != tokenizer.eos]
    assert theirs.generation_config.suppress_tokens == hidden
    prompt = [tokenizer.bos, *tokenizer.encode("class heap:")]
    made = theirs.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=64, min_new_tokens=64)
    never = [*hidden, tokenizer.eos]  # min_new_tokens keeps the end away
    assert made[0].tolist() == greedy(ours, prompt, 64, never)


def test_without_norms_of_queries_and_keys_it_is_a_llama(tokenizer, tmp_path):
    folder = make_model(tmp_path / "m", tokenizer, qk_norm=False)
    made = export(folder, "hf", tmp_path / "out", verify=True)
    assert [one.equal for one in made.checks] == [True, True]
    theirs, ours = transformers.AutoModelForCausalLM.from_pretrained(made.path), store.read_model(folder)
    assert type(theirs).__name__ == "LlamaForCausalLM"
    text = torch.randint(0, 700, (1, 96), generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        here, there = ours(text), theirs(text).logits
    assert float((here - there).abs().max()) <= 1e-5 * float(here.abs().max())


@pytest.mark.parametrize("precision", ["bf16", "f16"])
def test_fewer_bits_are_rounded_and_no_more(model, ours, precision, tmp_path):
    made = export(model, "hf", tmp_path / "out", precision)
    dtype = {"bf16": torch.bfloat16, "f16": torch.float16}[precision]
    theirs = transformers.AutoModelForCausalLM.from_pretrained(made.path, dtype="auto")
    assert theirs.dtype == dtype
    assert torch.equal(theirs.model.embed_tokens.weight, ours.folded_embedding().to(dtype))
    assert not made.checks[0].lossless


def test_the_tokenizer_is_equal_on_any_text(exported, tokenizer):
    theirs = transformers.AutoTokenizer.from_pretrained(exported)
    texts = strings()
    assert len(texts) >= 200
    for text in texts:
        ids = theirs.encode(text, add_special_tokens=False)
        assert ids == tokenizer.encode(text), text
        assert theirs.decode(ids) == text
    assert theirs("x").input_ids == [tokenizer.bos, *tokenizer.encode("x")]  # as generation begins
    assert len(theirs) == tokenizer.vocabulary_size
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (2, 3, 0)


def test_a_chat_is_written_as_chat_writes_it(exported, tmp_path):
    theirs = transformers.AutoTokenizer.from_pretrained(exported)
    turns = [("  Hello there.", "General\nKenobi \n"), ("Why?", "Because.")]
    messages = [
        {"role": role, "content": text}
        for turn in turns
        for role, text in zip(("user", "assistant"), turn, strict=True)
    ]
    messages.append({"role": "user", "content": "And <|eos|> now?"})
    wanted = Conversation(tmp_path / "x.jsonl", turns).prompt("And <|eos|> now?")
    assert theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) == wanted
    assert theirs.chat_template == CHAT_TEMPLATE


def test_the_folder_says_what_it_is(exported, model):
    names = {path.name for path in exported.iterdir()}
    assert names == {
        "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors",
        "README.md", "SHA256SUMS",
    }  # fmt: skip
    card = (exported / "README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0\n")
    assert "# some-model" in card
    generation = json.loads((exported / "generation_config.json").read_text())
    defaults = Generation()
    assert generation["temperature"] == defaults.temperature
    assert generation["top_p"] == defaults.top_p
    assert str(model.parent) not in "".join(p.read_text("utf-8", "replace") for p in exported.iterdir())
    assert np.memmap(exported / "model.safetensors").size > 0
