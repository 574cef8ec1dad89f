"""The decode path: the network's logits, and the same bits however a text got into its slot."""

import numpy as np
import torch

from crystalline.model.decoder import decoder
from crystalline.model.shape import Shape
from crystalline.model.transformer import Transformer

SHAPE = Shape(vocabulary=61, layers=3, width=48, heads=6, kv_heads=2, head_width=10, hidden=56, context=24, factors=5)
BAGS = (np.array([0, 1, 1, 4, 2, 3], np.int64), np.array([0, 2, 3, 3, 5] + [6] * 57, np.int64))


def network(shape: Shape = SHAPE, dtype: torch.dtype = torch.float32) -> Transformer:
    angles = np.linspace(0, 20, shape.vocabulary)
    model = Transformer(shape, BAGS if shape.factors else None, dtype, angles)
    model.initialize(0)
    generator = torch.Generator().manual_seed(1)
    for name, weight in model.named_parameters():
        if not name.endswith("gain"):
            weight.data.normal_(0.0, 0.3, generator=generator)
    return model.eval().requires_grad_(False)


def text(length: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(0, SHAPE.vocabulary, length).tolist()


def test_the_logits_are_the_networks() -> None:
    model, tokens = network(), text(24)
    wanted = model(torch.tensor([tokens]))[0].numpy()
    assert np.abs(decoder(model).read(0, tokens, every=True) - wanted).max() < 1e-5 * np.abs(wanted).max()
