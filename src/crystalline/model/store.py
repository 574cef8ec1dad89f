"""Reading a model from its checkpoint folder (see checkpoints.py for finding that)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from crystalline.errors import EXIT_DAMAGED, EXIT_USAGE, UserError, is_out_of_memory
from crystalline.model.checkpoints import WEIGHTS, read_recipe
from crystalline.model.shape import Shape
from crystalline.model.transformer import Transformer, build
from crystalline.tokens.codes import TokenCodes


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Name -> fp32 tensor."""
    weights: dict[str, Tensor] = load_file(folder / WEIGHTS)
    return weights


def read_model(folder: Path, dtype: torch.dtype | None = None) -> Transformer:
    """The network of a checkpoint folder, ready to predict in `dtype`, or in the precision it was trained in."""
    recipe = read_recipe(folder)
    try:
        shape = Shape(**recipe["shape"])
        if dtype is None:
            dtype = torch.bfloat16 if recipe["settings"]["training"]["precision"] == "bf16" else torch.float32
        model = build(shape, TokenCodes.load(folder), dtype)
        model.load_state_dict(read_weights(folder))
    except (KeyError, TypeError, RuntimeError, SafetensorError) as error:
        if is_out_of_memory(error):
            raise
        raise UserError(
            f"could not load the model in {folder}",
            f"its files do not fit each other, or another version has written them: {error}",
            "use the version of crystalline that wrote it, or restore it from a backup",
            EXIT_DAMAGED,
        ) from error
    model.embedding.hold(dtype)
    return model.eval().requires_grad_(False)


@torch.no_grad()
def start_from(model: Transformer, weights: Mapping[str, Tensor]) -> None:
    """Give a network that was just initialized these weights.

    Parts that it has besides them (such as value embeddings) keep theirs if they begin at zero, so that it computes
    what the network with these weights did. Raises UserError (exit code 2) where the two do not fit.
    """
    mine = dict(model.named_parameters())
    unlike = [name for name, tensor in weights.items() if name in mine and mine[name].shape != tensor.shape]
    unlike += [name for name, tensor in weights.items() if name not in mine and bool(tensor.any())]
    unlike += [name for name in mine.keys() - weights.keys() if not _neutral(name)]
    if unlike:
        raise UserError(
            "the network of this run does not fit the weights that it starts from",
            f"they differ in {', '.join(sorted(unlike)[:4])}{', ...' if len(unlike) > 4 else ''}",
            "leave the sizes under [model] in crystalline.toml as cllm import has written them",
            EXIT_USAGE,
        )
    for name, tensor in weights.items():
        if name in mine:
            mine[name].copy_(tensor)


def _neutral(name: str) -> bool:
    """Whether the parameter `name` begins where it changes nothing; see `Transformer.initialize`."""
    return name.startswith(("values", "ngrams", "embedding.factors")) or name.endswith("phase_scales")


def weights_hash(weights: dict[str, Tensor]) -> str:
    """SHA-256 over names, shapes and little-endian fp32 bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().contiguous()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
