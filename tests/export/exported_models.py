"""Models to export, made in a moment: random weights, so that every part of the network takes part."""

import random
import unicodedata
from dataclasses import asdict

import torch
from safetensors.torch import save_file

from crystalline import settings
from crystalline.model.shape import Shape
from crystalline.model.transformer import build
from crystalline.run_folder import seal, write_json
from crystalline.tokens.codes import TokenCodes

SIZES = {
    "layers": 2, "width": 64, "heads": 4, "kv_heads": 2, "head_width": 16, "hidden": 80, "context": 96,
    "rope_base": 5000.0,
}  # fmt: skip


def make_model(folder, tokenizer, seed=1, spread=0.2, **options):
    """A folder as a checkpoint's, of a network with random weights."""
    codes = TokenCodes.build(tokenizer)
    values = {**SIZES, **options}
    shape = Shape(vocabulary=tokenizer.vocabulary_size, factors=codes.factor_count, **values)
    model = build(shape, codes, torch.float32)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.normal_(0.0, spread, generator=generator)
            if name.endswith("gain"):
                weight.add_(1.0)
    chosen = settings.load(None, {}, {f"model.{name}": value for name, value in values.items()})
    chosen = chosen.model_dump()
    chosen["training"]["precision"] = "fp32"
    folder.mkdir(parents=True)
    save_file(dict(model.named_parameters()), folder / "model.safetensors")
    write_json(folder / "recipe.json", {"settings": chosen, "shape": asdict(shape), "text": {}, "machine": {}})
    tokenizer.save(folder)
    codes.save(folder)
    seal(folder)
    return folder


def strings(combining=True):
    """200 texts that tokenizers are known to differ in."""
    source = random.Random(7)
    pieces = [
        "it's", "HE'LL", "we'Ve", "12345", "3.14", "\u0663\u0664", "½", "def f(x):", "  ", "\n\n", "\r\n", "\t",
        "   \n", "Größe", "façade", "漢字かな", "한국어", "Ελληνικά", "עברית", "العربية",
        "👩\u200d🚀", "🇩🇪", "👍🏽",
        "\u200b", "\ufeff", "\u00a0", "\u2003", "<|eos|>", "<|bos|>", "<|end|>", "<|user|>",
        "</s>", "<unk>", "[MASK]", "<|im_start|>", "…—„“",
        "$%&/()=?", "__init__", "a" * 40, "\x00\x07", "'", "''s", "ǅ", "ﬁ", "x\u2028y", "\u0085",
    ]  # fmt: skip
    marks = ["e\u0301", "a\u0308o\u0302", "क्षि", "ก็", "\u0301x", "नमस्ते दुनिया", "ạ̈"]
    pieces = [*pieces, *marks] if combining else pieces
    texts = [*pieces, *(f" {piece}" for piece in pieces), *(f"{piece}." for piece in pieces), ""]
    while len(texts) < 200:
        texts.append("".join(source.choice([*pieces, " ", " "]) for _ in range(source.randrange(2, 9))))
    if not combining:
        texts = [t for t in texts if not any(unicodedata.category(c).startswith("M") for c in t)]
    return texts
