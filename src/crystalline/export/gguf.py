"""Writing GGUF, the file of llama.cpp and the programs around it: version 3, architecture qwen3 or llama.

The format: github.com/ggml-org/ggml/blob/master/docs/gguf.md. Metadata by name, then the tensors' names, sizes, types
and places, then their bytes, each from a multiple of 32. Matrices are in the precision that was asked for, gains in
fp32, as llama.cpp has them. The type Q8_0: of 32 neighbouring numbers one fp16 scale and 32 signed bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from crystalline.errors import UserError
from crystalline.export import layout
from crystalline.model.shape import Shape
from crystalline.tokens.tokenizer import SPLIT, Tokenizer

ALIGNMENT = 32
BLOCK = 32  # numbers with one scale in Q8_0
TENSOR_TYPES = {"fp32": 0, "f16": 1, "q8_0": 8, "bf16": 30}
FILE_TYPES = {"fp32": 0, "f16": 1, "q8_0": 7, "bf16": 32}  # what most tensors are
NORMAL, CONTROL, USER_DEFINED = 1, 3, 4  # kinds of tokens

_NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip

# How text is cut before bytes are merged -> the name under which llama.cpp (src/llama-vocab.cpp) has that rule.
# None is exactly ours: "dbrx" is, but for combining marks (\p{M}), which ours keeps with their letters.
_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PRE_TOKENIZERS = {
    SPLIT: "dbrx",
    rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}{_REST}": "dbrx",
    rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{_REST}": "qwen2",
    "GPT-2": "gpt-2",
    "digits, GPT-2": "smollm",
}
WHOLE_WORDS = {"dbrx": "llama-bpe"}  # the same rule, where a word that is a token is one without merging
INEXACT = {SPLIT: "words with combining marks, such as a letter and U+0301, may be cut into other tokens there"}


def write(
    path: Path, tensors: Mapping[str, Tensor], shape: Shape, tokenizer: Tokenizer, precision: str,
    about: dict[str, Any], chat_template: str,
) -> list[str]:  # fmt: skip
    """Write a network, by its names in a Qwen3 checkpoint; returns remarks on what a user should know.

    precision: of the matrices, a key of TENSOR_TYPES. about: name, license of the model.
    """
    split, pre = _split(tokenizer)
    remarks = [INEXACT[split]] if split in INEXACT else []
    kinds = {name: _kind(tensor, precision) for name, tensor in tensors.items()}
    if odd := [_name(n) for n, t in tensors.items() if t.dim() > 1 and kinds[n] != precision]:
        remarks.append(f"{len(odd)} matrices ({odd[0]}, ...) are f16: their rows are no multiple of {BLOCK}")
    metadata = dict(_metadata(shape, tokenizer, pre, precision, about, chat_template))
    with open(path, "wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata)))
        for key, (type_, value) in metadata.items():
            file.write(_text(key) + struct.pack("<I", type_) + _value(type_, value))
        offset = 0
        for name, tensor in tensors.items():
            size = tensor.shape[::-1]
            place = struct.pack(f"<{len(size)}QIQ", *size, TENSOR_TYPES[kinds[name]], offset)
            file.write(_text(_name(name)) + struct.pack("<I", len(size)) + place)
            offset += _aligned(_length(tensor, kinds[name]))
        _pad(file)
        for name, tensor in tensors.items():
            file.write(encode(_ordered(name, tensor, shape).numpy(), kinds[name]))
            _pad(file)
    return remarks


def _ordered(name: str, tensor: Tensor, shape: Shape) -> Tensor:
    """The rows as llama.cpp wants them: in a llama it turns neighbours in a head, not what is half a head apart."""
    if shape.qk_norm or not name.endswith(("q_proj.weight", "k_proj.weight")):
        return tensor
    half = shape.head_width // 2
    return tensor.reshape(-1, 2, half, tensor.shape[1]).transpose(1, 2).reshape(tensor.shape)


def encode(numbers: NDArray[np.float32], kind: str) -> bytes:
    """Rows of numbers as the bytes of a tensor type. Raises UserError where a number is too large for it."""
    numbers = np.ascontiguousarray(numbers, np.float32)
    if kind == "fp32":
        return numbers.astype("<f4").tobytes()
    if kind == "bf16":
        bits = numbers.view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()  # to the nearest, ties to even
    with np.errstate(over="ignore"):
        if kind == "f16":
            return _finite(numbers.astype("<f2")).tobytes()
        blocks = numbers.reshape(-1, BLOCK)
        scales = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
        inverse = np.divide(np.float32(1), scales, out=np.zeros_like(scales), where=scales != 0)
        sizes = np.abs(blocks * inverse)
        whole = np.floor(sizes)
        rounded = np.copysign(whole + np.floor(2 * (sizes - whole)), blocks)  # halves away from zero, as in C
        parts = [_finite(scales.astype("<f2")).view(np.uint8), rounded.astype(np.int8).view(np.uint8)]
        return np.concatenate(parts, axis=1).tobytes()


def _finite(numbers: NDArray[Any]) -> NDArray[Any]:
    if not np.isfinite(numbers).all():
        raise UserError(
            "could not write the weights in 16 bits",
            "some are larger than 65504, the largest number of fp16",
            "use --precision fp32 or bf16",
        )
    return numbers


def _metadata(
    shape: Shape, tokenizer: Tokenizer, pre: str, precision: str, about: dict[str, Any], chat_template: str
) -> Iterator[tuple[str, tuple[int, Any]]]:
    """key -> (type, value). Types: 4 uint32, 6 float32, 7 bool, 8 string, 9 array, as (type of its items, items)."""
    kind = layout.kind(shape)
    yield "general.architecture", (8, kind)
    yield "general.type", (8, "model")
    yield "general.name", (8, about["name"])
    if about.get("license"):
        yield "general.license", (8, about["license"])
    yield "general.file_type", (4, FILE_TYPES[precision])
    yield "general.quantization_version", (4, 2)
    yield "general.alignment", (4, ALIGNMENT)
    sizes = {
        "vocab_size": shape.vocabulary, "context_length": shape.context, "embedding_length": shape.width,
        "block_count": shape.layers, "feed_forward_length": shape.hidden, "attention.head_count": shape.heads,
        "attention.head_count_kv": shape.kv_heads, "attention.key_length": shape.head_width,
        "attention.value_length": shape.head_width, "rope.dimension_count": shape.head_width,
    }  # fmt: skip
    for name, number in sizes.items():
        yield f"{kind}.{name}", (4, number)
    yield f"{kind}.attention.layer_norm_rms_epsilon", (6, shape.norm_epsilon)
    yield f"{kind}.rope.freq_base", (6, shape.rope_base)
    content = tokenizer.content()
    symbols = {id_: symbol for symbol, id_ in content["model"]["vocab"].items()}
    kinds = [NORMAL] * shape.vocabulary
    for token in content["added_tokens"]:
        symbols[token["id"]] = token["content"]
        kinds[token["id"]] = CONTROL if token["special"] else USER_DEFINED
    yield "tokenizer.ggml.model", (8, "gpt2")
    yield "tokenizer.ggml.pre", (8, pre)
    yield "tokenizer.ggml.tokens", (9, (8, [symbols[id_] for id_ in range(shape.vocabulary)]))
    yield "tokenizer.ggml.token_type", (9, (5, kinds))
    yield "tokenizer.ggml.merges", (9, (8, [" ".join(pair) for pair in content["model"]["merges"]]))
    yield "tokenizer.ggml.bos_token_id", (4, tokenizer.bos)
    yield "tokenizer.ggml.eos_token_id", (4, tokenizer.eos)
    yield "tokenizer.ggml.padding_token_id", (4, tokenizer.pad)
    if tokenizer.unk is not None:
        yield "tokenizer.ggml.unknown_token_id", (4, tokenizer.unk)
    yield "tokenizer.ggml.add_bos_token", (7, True)  # as generation here begins
    yield "tokenizer.ggml.add_eos_token", (7, False)
    yield "tokenizer.chat_template", (8, chat_template)


def _split(tokenizer: Tokenizer) -> tuple[str, str]:
    """The rule by which text is cut, and its name in llama.cpp. UserError when that has none like it."""
    content = tokenizer.content()
    pre, whole_words = content["pre_tokenizer"], bool(content["model"].get("ignore_merges"))
    rules = []
    for part in pre["pretokenizers"] if pre["type"] == "Sequence" else [pre]:
        if part["type"] == "Split":
            rules.append(str(part["pattern"].get("Regex")))
        elif part["type"] == "Digits" and part["individual_digits"]:
            rules.append("digits")
        elif part["type"] != "ByteLevel":
            rules.append(part["type"])
        elif part["use_regex"]:
            rules.append("GPT-2")
    rule = ", ".join(rules)
    name = PRE_TOKENIZERS.get(rule)
    if whole_words:
        name = WHOLE_WORDS.get(name or "")
    if name is not None:
        return rule, name
    raise UserError(
        "could not write this tokenizer as GGUF",
        "llama.cpp is not known to have its way of cutting text",
        "use --to hf and llama.cpp's own convert_hf_to_gguf.py",
    )


def _kind(tensor: Tensor, precision: str) -> str:
    if tensor.dim() == 1:
        return "fp32"
    return "f16" if precision == "q8_0" and tensor.shape[-1] % BLOCK else precision


def _length(tensor: Tensor, kind: str) -> int:
    count = tensor.numel()
    return count // BLOCK * (BLOCK + 2) if kind == "q8_0" else count * (4 if kind == "fp32" else 2)


def _name(name: str) -> str:
    parts = name.removeprefix("model.").removesuffix(".weight")
    if parts.startswith("layers."):
        _, layer, rest = parts.split(".", 2)
        return f"blk.{layer}.{_NAMES[rest]}.weight"
    return {"embed_tokens": "token_embd.weight", "norm": "output_norm.weight"}[parts]


def _text(text: str) -> bytes:
    data = text.encode("utf-8")
    return struct.pack("<Q", len(data)) + data


def _value(type_: int, value: Any) -> bytes:
    if type_ == 8:
        return _text(value)
    if type_ == 9:
        inner, items = value
        return struct.pack("<IQ", inner, len(items)) + b"".join(_value(inner, item) for item in items)
    return struct.pack({4: "<I", 5: "<i", 6: "<f", 7: "<?"}[type_], value)


def _aligned(length: int) -> int:
    return -(-length // ALIGNMENT) * ALIGNMENT


def _pad(file: BinaryIO) -> None:
    file.write(bytes(_aligned(file.tell()) - file.tell()))
