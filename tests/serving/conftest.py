"""A server for the tests of a module."""

import pytest
from served import serving


@pytest.fixture(scope="module")
def server(tiny_run, tmp_path_factory):
    """Serves the tiny run, whose context has 32 tokens, in 8 slots; 8 texts more may wait."""
    with serving(tiny_run, "--set", "serving.queue=8", folder=tmp_path_factory.mktemp("server")) as served:
        yield served


@pytest.fixture(scope="session")
def small_model(tiny_run):
    """A network of random weights with a context of 1,024 tokens, and the tiny run's tokenizer."""
    import torch

    import crystalline
    from crystalline.model.generation import LanguageModel
    from crystalline.model.shape import Shape
    from crystalline.model.transformer import Transformer

    known = crystalline.load(tiny_run)
    values = {**known.model.shape.__dict__, "context": 1024, "factors": 0}
    network = Transformer(Shape(**values), None, torch.float32)
    network.initialize(0)
    return LanguageModel(network.eval().requires_grad_(False), known.tokenizer, known.defaults)
