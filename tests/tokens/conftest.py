"""One vocabulary of real text (this Python's own library), made once for all tests of tokens."""

import sysconfig
from pathlib import Path

import pytest

from crystalline.tokens.codes import TokenCodes
from crystalline.tokens.tokenizer import Tokenizer

LIBRARY = Path(sysconfig.get_paths()["stdlib"])


def library_texts(limit):
    """Sources of the standard library, about `limit` characters of them."""
    total = 0
    for path in sorted(LIBRARY.glob("*.py")):
        text = path.read_text(encoding="utf-8", errors="replace")
        total += len(text)
        if total > limit:
            return
        yield text


@pytest.fixture(scope="session")
def tokenizer():
    return Tokenizer.train(library_texts(2_500_000), 4096)


@pytest.fixture(scope="session")
def counts(tokenizer):
    totals = [0] * tokenizer.vocabulary_size
    for ids in tokenizer.encode_batch(list(library_texts(2_500_000))):
        for id_ in ids:
            totals[id_] += 1
    return totals


@pytest.fixture(scope="session")
def codes(tokenizer, counts):
    return TokenCodes.build(tokenizer, counts)
