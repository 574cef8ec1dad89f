"""The programs that an export is for, as readers of it; asked with `cllm export --verify`, where installed."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from crystalline.errors import UserError
from crystalline.export import check
from crystalline.export.check import Comparison, Probe
from crystalline.tokens.tokenizer import Tokenizer

PACKAGES = {"hf": "transformers", "gguf": "llama_cpp"}
_INSTALLED_AS = {"transformers": "transformers", "llama_cpp": "llama-cpp-python"}

# Texts that tokenizers are known to differ in.
TEXTS = (
    "The quick brown fox, 12345 times; it's HERE.\n\n\tdef f(x):  return x\r\n",
    "Größe naïve façade e\u0301a\u0308 \u0915\u094d\u0937 \U0001f469\u200d\U0001f680 漢字かな 한국어 \u200b\ufeff",
    "<|eos|> <|bos|>text<|end|> <|endoftext|> </s>",
    "   leading, trailing   \n \n  ",
)


def require(target: str) -> None:
    """See that the program that reads this target is there. Raises UserError that says how to install it."""
    package = PACKAGES.get(target)
    if package is not None and importlib.util.find_spec(package) is None:
        raise UserError(
            "could not verify with another program",
            f"{_INSTALLED_AS[package]} is not installed",
            f"pip install {_INSTALLED_AS[package]}, or leave out --verify: the file is checked without it, too",
        )


def transformers(folder: Path, said: Probe, tokenizer: Tokenizer, lossless: bool) -> Comparison:
    """What the transformers library says, in fp32. Its tokenizer must give the same ids, too."""
    library: Any = importlib.import_module("transformers")  # takes seconds
    model = library.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.train(False)
    theirs = library.AutoTokenizer.from_pretrained(folder)
    for text in (*TEXTS, tokenizer.decode(said.text)):
        if theirs.encode(text, add_special_tokens=False) != tokenizer.encode(text):
            raise UserError(
                "the check of what was written has failed", f"transformers cuts {text[:60]!r} into other tokens",
                "report this bug",
            )  # fmt: skip

    @torch.inference_mode()
    def logits(tokens: Sequence[int]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = model(torch.tensor([list(tokens)])).logits[0].float().numpy()
        return found

    return check.compare(said, logits, "transformers", lossless)


def llama_cpp(path: Path, said: Probe, lossless: bool) -> Comparison:
    """What llama.cpp says."""
    library: Any = importlib.import_module("llama_cpp")
    most = max(len(said.text), len(said.prompt) + len(said.greedy))
    # Its cache of keys and values is fp16 unless it is told otherwise (0: fp32).
    precise = {"type_k": 0, "type_v": 0, "flash_attn": False}
    model = library.Llama(
        str(path), n_ctx=most, n_batch=most, logits_all=True, n_gpu_layers=0, verbose=False, **precise
    )

    def logits(tokens: Sequence[int]) -> NDArray[np.float32]:
        model.reset()
        model.eval(list(tokens))
        found: NDArray[np.float32] = np.array(model.scores[: len(tokens)], np.float32)
        return found

    try:
        return check.compare(said, logits, "llama.cpp", lossless)
    finally:
        model.close()
