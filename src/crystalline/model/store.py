"""Reading a model from its checkpoint folder (see checkpoints.py for finding that)."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from crystalline.model.checkpoints import WEIGHTS, read_recipe
from crystalline.model.shape import Shape
from crystalline.model.transformer import Transformer, build
from crystalline.tokens.codes import TokenCodes


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Name -> fp32 tensor."""
    weights: dict[str, Tensor] = load_file(folder / WEIGHTS)
    return weights


def read_model(folder: Path) -> Transformer:
    """The network of a checkpoint folder, ready to predict in the precision it was trained in."""
    recipe = read_recipe(folder)
    shape = Shape(**recipe["shape"])
    dtype = torch.bfloat16 if recipe["settings"]["training"]["precision"] == "bf16" else torch.float32
    model = build(shape, TokenCodes.load(folder), dtype)
    model.load_state_dict(read_weights(folder))
    model.embedding.hold(dtype)
    return model.eval().requires_grad_(False)


def weights_hash(weights: dict[str, Tensor]) -> str:
    """SHA-256 over names, shapes and little-endian fp32 bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().contiguous()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
