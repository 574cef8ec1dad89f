"""A model to export, for all tests of this room."""

import sysconfig
from pathlib import Path

import pytest
from exported_models import make_model

from crystalline.tokens.tokenizer import Tokenizer

LIBRARY = Path(sysconfig.get_paths()["stdlib"])


@pytest.fixture(scope="session")
def tokenizer():
    texts = [(LIBRARY / name).read_text("utf-8") for name in ("textwrap.py", "heapq.py", "statistics.py")]
    return Tokenizer.train([*texts, "Größe façade naïve 漢字 한국어 e\u0301 a\u0308"], 700)


@pytest.fixture(scope="session")
def model(tokenizer, tmp_path_factory):
    """A checkpoint folder. Do not change it."""
    return make_model(tmp_path_factory.mktemp("model") / "some-model", tokenizer)
