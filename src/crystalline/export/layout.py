"""The network in the names of Qwen3 and Llama, and back: which tensor is which, which sizes a config.json gives.

A network of the plain form (`Shape.beyond_plain` is empty) is a Qwen3 network once the vectors of prime factors are
added to those of the tokens; or a Llama network, if it does not norm queries and keys.
https://github.com/huggingface/transformers, models/qwen3 and models/llama.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from crystalline.errors import UserError
from crystalline.model.shape import Shape
from crystalline.model.transformer import Transformer

TABLE, NORM, HEAD = "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"
# Of a layer: theirs -> ours; the three products of attention and the two of the gate are rows of one matrix here.
_IN_LAYER = {
    "self_attn.o_proj": "attention.output",
    "self_attn.q_norm": "attention.query_norm.gain",
    "self_attn.k_norm": "attention.key_norm.gain",
    "mlp.down_proj": "feed_forward.down",
    "input_layernorm": "attention_norm.gain",
    "post_attention_layernorm": "feed_forward_norm.gain",
}


def to_plain(model: Transformer) -> dict[str, Tensor]:
    """Name in a Qwen3 (or Llama) checkpoint -> fp32 tensor. The table holds the factors' vectors too."""
    shape, weights = model.shape, {name: p.detach() for name, p in model.named_parameters()}
    found = {TABLE: model.folded_embedding(), NORM: weights["final_norm.gain"]}
    for i in range(shape.layers):
        ours, theirs = f"blocks.{i}.", f"model.layers.{i}."
        q, k, v = weights[f"{ours}attention.qkv"].split(_qkv_rows(shape))
        gate, up = weights[f"{ours}feed_forward.gate_up"].chunk(2)
        parts = {"self_attn.q_proj": q, "self_attn.k_proj": k, "self_attn.v_proj": v}
        parts |= {"mlp.gate_proj": gate, "mlp.up_proj": up}
        parts |= {name: weights[ours + our_name] for name, our_name in _in_layer(shape).items()}
        found |= {f"{theirs}{name}.weight": tensor for name, tensor in parts.items()}
    return found


def from_plain(tensors: Mapping[str, Tensor], shape: Shape) -> dict[str, Tensor]:
    """The inverse, for a network without prime factors: name in this package -> fp32 tensor.

    Raises UserError when tensors are missing, too many, or of another size than `shape` says.
    """
    missing = [name for name in plain_sizes(shape) if name not in tensors]
    extra = [name for name in tensors if name not in plain_sizes(shape)]
    unlike = [
        f"{name} is {tuple(tensors[name].shape)}, not {size}"
        for name, size in plain_sizes(shape).items()
        if name in tensors and tuple(tensors[name].shape) != size
    ]
    if missing or extra or unlike:
        problems = [f"{name} is missing" for name in missing] + [f"{name} is not known" for name in extra] + unlike
        raise UserError(
            "could not import the weights",
            "; ".join(problems[:4]) + (f"; and {len(problems) - 4} more" if len(problems) > 4 else ""),
            "they must be those of a network with the form and sizes of its config.json",
        )
    found = {"embedding.own": tensors[TABLE], "final_norm.gain": tensors[NORM]}
    for i in range(shape.layers):
        ours, theirs = f"blocks.{i}.", f"model.layers.{i}."
        qkv = [tensors[f"{theirs}self_attn.{name}_proj.weight"] for name in "qkv"]
        found[f"{ours}attention.qkv"] = torch.cat(qkv)
        found[f"{ours}feed_forward.gate_up"] = torch.cat(
            [tensors[f"{theirs}mlp.{name}_proj.weight"] for name in ("gate", "up")]
        )
        found |= {ours + our_name: tensors[f"{theirs}{name}.weight"] for name, our_name in _in_layer(shape).items()}
    return {name: tensor.float().contiguous() for name, tensor in found.items()}


def plain_sizes(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Name in a Qwen3 (or Llama) checkpoint -> its size."""
    d, inner, w = shape.width, shape.hidden, shape.head_width
    sizes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (shape.vocabulary, d),
        "model.norm.weight": (d,),
    }
    of_layer: dict[str, tuple[int, ...]] = {
        "self_attn.q_proj": (shape.heads * w, d), "self_attn.k_proj": (shape.kv_heads * w, d),
        "self_attn.v_proj": (shape.kv_heads * w, d), "self_attn.o_proj": (d, shape.heads * w),
        "self_attn.q_norm": (w,), "self_attn.k_norm": (w,), "mlp.gate_proj": (inner, d), "mlp.up_proj": (inner, d),
        "mlp.down_proj": (d, inner), "input_layernorm": (d,), "post_attention_layernorm": (d,),
    }  # fmt: skip
    if not shape.qk_norm:
        del of_layer["self_attn.q_norm"], of_layer["self_attn.k_norm"]
    for i in range(shape.layers):
        sizes |= {f"model.layers.{i}.{name}.weight": size for name, size in of_layer.items()}
    return sizes


def to_config(shape: Shape) -> dict[str, Any]:
    """What config.json says of the sizes."""
    return {
        "architectures": ["Qwen3ForCausalLM" if shape.qk_norm else "LlamaForCausalLM"],
        "model_type": kind(shape),
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.width,
        "intermediate_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_width,
        "hidden_act": "silu",
        "max_position_embeddings": shape.context,
        "rms_norm_eps": shape.norm_epsilon,
        "rope_theta": shape.rope_base,  # for versions before 5
        "rope_parameters": {"rope_type": "default", "rope_theta": shape.rope_base},
        "attention_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": True,
        **({"use_sliding_window": False} if shape.qk_norm else {"mlp_bias": False}),
    }


def kind(shape: Shape) -> str:
    """What transformers and llama.cpp call a network of the plain form."""
    return "qwen3" if shape.qk_norm else "llama"


def from_config(config: Mapping[str, Any], context: int | None, default_context: int) -> Shape:
    """The sizes that a config.json gives. context: tokens seen at once here; default: theirs, up to default_context.

    Raises UserError for a network that is not of this form.
    """
    name = config.get("model_type")
    if name not in ("qwen3", "llama"):
        raise _not_this(f"its model_type is {name!r}")
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    different = {
        "hidden_act": config.get("hidden_act", "silu") != "silu",
        "attention_bias": bool(config.get("attention_bias")),
        "mlp_bias": bool(config.get("mlp_bias")),
        "use_sliding_window": bool(config.get("use_sliding_window")),
        "layer_types": any(layer != "full_attention" for layer in config.get("layer_types") or []),
        "rope_scaling": not isinstance(rope, dict) or rope.get("rope_type", rope.get("type", "default")) != "default",
        "quantization_config": config.get("quantization_config") is not None,
    }
    if found := [name for name, is_so in different.items() if is_so]:
        raise _not_this(f"its {', '.join(found)} {'is' if len(found) == 1 else 'are'} not of the plain form")
    try:
        heads, width = int(config["num_attention_heads"]), int(config["hidden_size"])
        shape = Shape(
            vocabulary=int(config["vocab_size"]),
            layers=int(config["num_hidden_layers"]),
            width=width,
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_width=int(config.get("head_dim") or (128 if name == "qwen3" else width // heads)),
            hidden=int(config["intermediate_size"]),
            context=min(context or default_context, int(config.get("max_position_embeddings", 2048))),
            rope_base=float(rope.get("rope_theta") or config.get("rope_theta") or 10_000.0),
            norm_epsilon=float(config.get("rms_norm_eps", 1e-6)),
            qk_norm=name == "qwen3",
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise _not_this(f"its config.json cannot be used: {type(error).__name__} {error}") from error
    sizes = (shape.vocabulary, shape.layers, shape.width, shape.heads, shape.kv_heads, shape.head_width, shape.hidden)
    if min(*sizes, shape.context) < 1 or shape.heads % shape.kv_heads or shape.head_width % 2:
        raise _not_this("the sizes in its config.json do not fit each other")
    return shape


def _qkv_rows(shape: Shape) -> list[int]:
    return [heads * shape.head_width for heads in (shape.heads, shape.kv_heads, shape.kv_heads)]


def _in_layer(shape: Shape) -> dict[str, str]:
    return {
        name: ours for name, ours in _IN_LAYER.items() if shape.qk_norm or not name.endswith(("q_norm", "k_norm"))
    }


def _not_this(why: str) -> UserError:
    return UserError(
        "could not import this network",
        why,
        "import a dense one of the Qwen3 or Llama family (model_type qwen3 or llama), or a .cllm file",
    )
