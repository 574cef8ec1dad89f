"""A reader of what was written that shares nothing with the writers and the network: bytes to logits in plain NumPy.

It is what an export is checked with, so it is short enough to be believed.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Bags = NDArray[np.int64]


@dataclass(frozen=True)
class Sizes:
    """What the forward pass needs besides the weights."""

    layers: int
    heads: int
    kv_heads: int
    head_width: int
    epsilon: float
    rope_base: float


def logits(sizes: Sizes, weights: Mapping[str, Array], tokens: Sequence[int]) -> Array:
    """(T,) tokens -> (T, V): Qwen3 as its report has it (arXiv 2505.09388), all tokens at once; without norms of
    queries and keys among the weights it is Llama.

    weights: by their names in a Qwen3 checkpoint, without "model." before and ".weight" after.
    """
    w, s, time = weights, sizes, len(tokens)
    rates = s.rope_base ** -(np.arange(0, s.head_width, 2) / s.head_width)
    angles = np.concatenate([np.outer(np.arange(time), rates)] * 2, axis=1)
    cosine, sine = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    future = np.triu(np.full((time, time), -np.inf, np.float32), 1)

    def norm(x: Array, name: str) -> Array:
        if name not in w and name.endswith(("q_norm", "k_norm")):
            return x
        mean: Array = np.mean(x * x, axis=-1, keepdims=True)
        normed: Array = x / np.sqrt(mean + np.float32(s.epsilon)) * w[name]
        return normed

    def heads(x: Array, name: str, count: int) -> Array:  # (count, T, W)
        return (x @ w[name].T).reshape(time, count, s.head_width).transpose(1, 0, 2)

    def turn(x: Array) -> Array:
        first, second = np.split(x, 2, axis=-1)
        turned: Array = x * cosine + np.concatenate([-second, first], axis=-1) * sine
        return turned

    x = w["embed_tokens"][list(tokens)]
    for layer in range(s.layers):
        at = f"layers.{layer}."
        y = norm(x, f"{at}input_layernorm")
        q = turn(norm(heads(y, f"{at}self_attn.q_proj", s.heads), f"{at}self_attn.q_norm"))
        k = turn(norm(heads(y, f"{at}self_attn.k_proj", s.kv_heads), f"{at}self_attn.k_norm"))
        v = heads(y, f"{at}self_attn.v_proj", s.kv_heads)
        k, v = (np.repeat(part, s.heads // s.kv_heads, axis=0) for part in (k, v))
        scores = q @ k.transpose(0, 2, 1) / np.float32(s.head_width**0.5) + future
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        attended = (scores / scores.sum(axis=-1, keepdims=True)) @ v
        x = x + attended.transpose(1, 0, 2).reshape(time, -1) @ w[f"{at}self_attn.o_proj"].T
        y = norm(x, f"{at}post_attention_layernorm")
        gate = y @ w[f"{at}mlp.gate_proj"].T
        with np.errstate(over="ignore"):  # exp of a large number is infinity, and its inverse 0, as it should be
            gate = gate / (1 + np.exp(-gate))
        x = x + (gate * (y @ w[f"{at}mlp.up_proj"].T)) @ w[f"{at}mlp.down_proj"].T
    result: Array = norm(x, "norm") @ w["embed_tokens"].T
    return result


# --- Hugging Face ----------------------------------------------------------------------------------------------


def read_folder(folder: Path) -> tuple[Sizes, dict[str, Array]]:
    """Sizes and weights of a Hugging Face folder with one file of weights."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    sizes = Sizes(
        config["num_hidden_layers"], config["num_attention_heads"], config["num_key_value_heads"],
        config["head_dim"], config["rms_norm_eps"], config["rope_parameters"]["rope_theta"],
    )  # fmt: skip
    tensors = read_safetensors(folder / "model.safetensors")
    return sizes, {name.removeprefix("model.").removesuffix(".weight"): t for name, t in tensors.items()}


def read_safetensors(path: Path) -> dict[str, Array]:
    """Name -> fp32. A safetensors file is the length of a JSON header, the header, and the bytes of the tensors."""
    data = np.memmap(path, np.uint8, "r")
    length = int(data[:8].view("<u8")[0])
    header = json.loads(data[8 : 8 + length].tobytes())
    found = {}
    for name, entry in header.items():
        if name != "__metadata__":
            start, end = entry["data_offsets"]
            found[name] = _numbers(data[8 + length + start : 8 + length + end], entry["dtype"]).reshape(
                entry["shape"]
            )
    return found


# --- crystalline -----------------------------------------------------------------------------------------------


def read_checkpoint(
    folder: Path, bags: tuple[NDArray[np.int64], NDArray[np.int64]]
) -> tuple[Sizes, dict[str, Array]]:
    """Sizes and weights of a checkpoint folder of the plain form. bags: the tokens' factors (`TokenCodes.bags`)."""
    shape = json.loads((folder / "recipe.json").read_text("utf-8"))["shape"]
    names = ("layers", "heads", "kv_heads", "head_width", "norm_epsilon", "rope_base")
    tensors = read_safetensors(folder / "model.safetensors")
    table = tensors["embedding.own"].copy()
    if "embedding.factors" in tensors:
        indices, offsets = bags
        tokens = np.repeat(np.arange(len(table)), np.diff(offsets))
        np.add.at(table, tokens, np.float32(shape["factor_scale"]) * tensors["embedding.factors"][indices])
    found = {"embed_tokens": table, "norm": tensors["final_norm.gain"]}
    ends = np.cumsum([shape["heads"], shape["kv_heads"]]) * shape["head_width"]
    for layer in range(shape["layers"]):
        ours, theirs = f"blocks.{layer}.", f"layers.{layer}."
        q, k, v = np.split(tensors[f"{ours}attention.qkv"], ends)
        gate, up = np.split(tensors[f"{ours}feed_forward.gate_up"], 2)
        parts = {"self_attn.q_proj": q, "self_attn.k_proj": k, "self_attn.v_proj": v}
        parts |= {"mlp.gate_proj": gate, "mlp.up_proj": up, "mlp.down_proj": tensors[f"{ours}feed_forward.down"]}
        parts |= {"self_attn.o_proj": tensors[f"{ours}attention.output"]}
        if shape.get("qk_norm", True):
            parts |= {"self_attn.q_norm": tensors[f"{ours}attention.query_norm.gain"]}
            parts |= {"self_attn.k_norm": tensors[f"{ours}attention.key_norm.gain"]}
        parts |= {"input_layernorm": tensors[f"{ours}attention_norm.gain"]}
        parts |= {"post_attention_layernorm": tensors[f"{ours}feed_forward_norm.gain"]}
        found |= {theirs + name: tensor for name, tensor in parts.items()}
    return Sizes(*(shape[name] for name in names)), found


# --- GGUF ------------------------------------------------------------------------------------------------------

_NUMBERS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_TYPES = {0: "F32", 1: "F16", 8: "Q8_0", 30: "BF16"}
_QWEN3 = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "token_embd": "embed_tokens", "output_norm": "norm",
}  # fmt: skip


def read_gguf(path: Path) -> tuple[Sizes, dict[str, Array]]:
    """Sizes and weights of a GGUF file (version 3, architecture qwen3 or llama)."""
    metadata, tensors = gguf_contents(path)
    kind = metadata["general.architecture"]
    names = ("block_count", "attention.head_count", "attention.head_count_kv", "attention.key_length")
    values = [metadata[f"{kind}.{name}"] for name in names]
    values += [metadata[f"{kind}.attention.layer_norm_rms_epsilon"], metadata[f"{kind}.rope.freq_base"]]
    sizes = Sizes(*values)
    found = {}
    for name, tensor in tensors.items():
        if kind == "llama" and name.endswith(
            ("attn_q.weight", "attn_k.weight")
        ):  # pairs to turn are neighbours there
            rows = tensor.reshape(-1, sizes.head_width // 2, 2, tensor.shape[1])
            tensor = np.ascontiguousarray(rows.swapaxes(1, 2).reshape(tensor.shape))
        *layer, last = name.removesuffix(".weight").split(".")
        found[f"layers.{layer[1]}.{_QWEN3[last]}" if layer else _QWEN3[last]] = tensor
    return sizes, found


def gguf_contents(path: Path) -> tuple[dict[str, Any], dict[str, Array]]:
    """(metadata, name -> fp32) of a GGUF file: github.com/ggml-org/ggml/blob/master/docs/gguf.md."""
    with open(path, "rb") as file:
        if file.read(4) != b"GGUF" or _number(file, 4) != 3:
            raise ValueError("no GGUF file of version 3")
        tensors, pairs = _number(file, 10), _number(file, 10)
        metadata = {_text(file): _value(file, _number(file, 4)) for _ in range(pairs)}
        infos = []
        for _ in range(tensors):
            name, dimensions = _text(file), _number(file, 4)
            infos.append((name, [_number(file, 10) for _ in range(dimensions)], _number(file, 4), _number(file, 10)))
        start = -(-file.tell() // 32) * 32
    data, found = np.memmap(path, np.uint8, "r"), {}
    for name, size, type_, offset in infos:
        kind = _TYPES[type_]
        numbers = int(np.prod(size))
        length = numbers // 32 * 34 if kind == "Q8_0" else numbers * (4 if kind == "F32" else 2)
        found[name] = _numbers(data[start + offset : start + offset + length], kind).reshape(size[::-1])
    return metadata, found


def _number(file: BinaryIO, type_: int) -> Any:
    form = _NUMBERS[type_]
    return struct.unpack(form, file.read(struct.calcsize(form)))[0]


def _text(file: BinaryIO) -> str:
    return file.read(_number(file, 10)).decode("utf-8")


def _value(file: BinaryIO, type_: int) -> Any:
    if type_ == 8:
        return _text(file)
    if type_ == 9:
        inner, count = _number(file, 4), _number(file, 10)
        return [_value(file, inner) for _ in range(count)]
    return _number(file, type_)


def _numbers(data: NDArray[np.uint8], kind: str) -> Array:
    """Bytes as fp32."""
    data = np.ascontiguousarray(data)
    if kind == "F32":
        return data.view("<f4").astype(np.float32, copy=False)
    if kind == "F16":
        return data.view("<f2").astype(np.float32)
    if kind == "BF16":  # the upper half of an fp32
        return (data.view("<u2").astype(np.uint32) << 16).view(np.float32)
    if kind == "Q8_0":  # of 32 numbers: their scale in fp16, and 32 signed bytes
        blocks = data.reshape(-1, 34)
        scales = blocks[:, :2].copy().view("<f2").astype(np.float32)
        return scales * blocks[:, 2:].copy().view(np.int8).astype(np.float32)
    raise ValueError(f"numbers of type {kind} are not known")
