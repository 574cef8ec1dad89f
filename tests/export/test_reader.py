"""The plain reader, which exports are checked with, beside the network itself."""

import json
import struct

import numpy as np
import pytest
import torch
from exported_models import make_model

from crystalline.export import layout, reader
from crystalline.model import store
from crystalline.tokens.codes import TokenCodes

OPTIONS = [
    {},
    {"qk_norm": False},
    {"kv_heads": 4},
    {"kv_heads": 1, "layers": 1},
    {"head_width": 32, "rope_base": 1e6, "norm_epsilon": 1e-3},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_it_says_what_the_network_says(tokenizer, tmp_path, options):
    folder = make_model(tmp_path / "m", tokenizer, **options)
    model = store.read_model(folder, torch.float32)
    tokens = torch.randint(0, tokenizer.vocabulary_size, (60,), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        wanted = model(tokens[None])[0].numpy()
    sizes, weights = reader.read_checkpoint(folder, TokenCodes.load(folder).bags())
    found = reader.logits(sizes, weights, tokens.tolist())
    assert float(np.abs(found - wanted).max()) <= 1e-5 * float(np.abs(wanted).max())
    for name, tensor in layout.to_plain(model).items():
        short = name.removeprefix("model.").removesuffix(".weight")
        np.testing.assert_allclose(weights[short], tensor.numpy(), rtol=1e-6, atol=1e-6)


def test_no_token_sees_the_future(model):
    sizes, weights = reader.read_checkpoint(model, TokenCodes.load(model).bags())
    before, after = (reader.logits(sizes, weights, [9, 20, 31, last, 53]) for last in (42, 43))
    assert np.array_equal(before[:3], after[:3])
    assert not np.array_equal(before[3], after[3])


def test_sixteen_bits_are_read_as_torch_reads_them(tmp_path):
    numbers = torch.randn(50).half()
    low = numbers.float().bfloat16()
    data = numbers.numpy().tobytes() + low.view(torch.int16).numpy().tobytes()
    header = json.dumps(
        {
            "__metadata__": {"format": "pt"},
            "a": {"dtype": "F16", "shape": [5, 10], "data_offsets": [0, 100]},
            "b": {"dtype": "BF16", "shape": [50], "data_offsets": [100, 200]},
        }
    ).encode()
    (tmp_path / "x").write_bytes(struct.pack("<Q", len(header)) + header + data)
    found = reader.read_safetensors(tmp_path / "x")
    assert np.array_equal(found["a"], numbers.float().numpy().reshape(5, 10))
    assert np.array_equal(found["b"], low.float().numpy())
