"""Cross-entropy, perplexity and bits per byte, by hand and against each other."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from crystalline.model.scoring import Score, score, token_byte_lengths
from crystalline.model.shape import Shape
from crystalline.model.transformer import IGNORE, Transformer
from crystalline.tokens.tokenizer import SPECIAL_TOKENS, Tokenizer

# What the token after 0, 1 and 2 is, by chance: powers of two, so that every sum is exact by hand.
TABLE = torch.tensor([[1 / 2, 1 / 4, 1 / 4], [1 / 8, 1 / 8, 3 / 4], [1 / 4, 1 / 2, 1 / 4]])


class Bigrams(torch.nn.Module):
    """A network that looks up the last token in a table of probabilities, and notes all that it was shown."""

    def __init__(self, table, context):
        super().__init__()
        self.table, self.shape, self.shown = table, SimpleNamespace(context=context), []

    def loss(self, tokens, targets):
        self.shown.append((tokens.clone(), targets.clone()))
        logits = self.table.log()[tokens]
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE, reduction="sum")


def uniform(size, context=8):
    return Bigrams(torch.full((size, size), 1 / size), context)


@pytest.mark.parametrize("context", [1, 2, 3, 4, 5, 100])
def test_perplexity_by_hand(context):
    """0 0 1 0 2 1: the predictions are 1/2, 1/4, 1/8, 1/4 and 1/2, so 2^9 possibilities in 5 tokens."""
    result = score(Bigrams(TABLE, context), np.array([0, 0, 1, 0, 2, 1]), np.array([1, 2, 3]))
    assert result.tokens == 5
    assert result.bytes == 1 + 2 + 1 + 3 + 2, "the first token is given, not predicted"
    assert result.cross_entropy == pytest.approx(9 / 5 * math.log(2), rel=1e-6)
    assert result.perplexity == pytest.approx(2 ** (9 / 5), rel=1e-6)
    assert result.bits_per_byte == pytest.approx(9 / 9, rel=1e-6)


@pytest.mark.parametrize("length", [2, 3, 16, 17, 18, 33, 100, 129])
@pytest.mark.parametrize("batch", [1, 3, 8])
def test_every_token_is_predicted_once_from_the_one_before(length, batch):
    tokens = np.arange(length, dtype=np.uint16)
    model = uniform(200, context=16)
    assert score(model, tokens, np.ones(200, np.int64), batch).tokens == length - 1
    pairs = []
    for shown, wanted in model.shown:
        assert shown.shape[0] <= batch
        assert shown.shape[1] == 16
        kept = wanted != IGNORE
        pairs += zip(shown[kept].tolist(), wanted[kept].tolist(), strict=True)
    assert sorted(pairs) == [(t, t + 1) for t in range(length - 1)]


def test_the_batch_changes_nothing():
    shape = Shape(vocabulary=60, layers=2, width=32, heads=4, kv_heads=2, head_width=8, hidden=48, context=12)
    model = Transformer(shape)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0.0, 0.3, generator=generator)
    tokens, lengths = np.random.RandomState(2).randint(0, 60, 500), np.ones(60, np.int64)
    expected = score(model, tokens, lengths, 1)
    for batch in (2, 7, 8, 1000):
        got = score(model, tokens, lengths, batch)
        assert got.cross_entropy == pytest.approx(expected.cross_entropy, rel=1e-5)
        assert (got.tokens, got.bytes) == (expected.tokens, expected.bytes)
    assert all(weight.grad is None for weight in model.parameters())


def test_bits_per_byte_do_not_depend_on_the_tokenizer():
    """A model that knows nothing needs 8 bits for a byte, however many bytes its tokens have.

    It gives each token of n bytes the probability 256^-n; so do the bytes one by one.
    """
    text = "to be or not to be, that is the question: " * 30
    for size in (264, 300, 400):
        tokenizer = Tokenizer.train([text], size, 2)
        lengths = token_byte_lengths(tokenizer)
        table = torch.tensor(256.0 ** -lengths.astype(float), dtype=torch.float64)
        table[: len(SPECIAL_TOKENS)] = 1.0
        tokens = np.array([tokenizer.bos, *tokenizer.encode(text)])

        class Uniform(Bigrams):
            def loss(self, _, targets):
                return -self.table[targets[targets != IGNORE]].log().sum()

        result = score(Uniform(table, 16), tokens, lengths)
        assert result.bytes == len(text.encode())
        assert result.bits_per_byte == pytest.approx(8.0, rel=1e-9)


def test_special_tokens_are_predicted_but_stand_for_no_text():
    tokenizer = Tokenizer.train(["ab ab é"], 270, 2)
    lengths = token_byte_lengths(tokenizer)
    assert lengths[: len(SPECIAL_TOKENS)].tolist() == [0] * len(SPECIAL_TOKENS)
    assert lengths[len(SPECIAL_TOKENS) : len(SPECIAL_TOKENS) + 256].tolist() == [1] * 256
    text = "ab é"
    ids = [tokenizer.bos, *tokenizer.encode(text), tokenizer.eos]
    result = score(uniform(tokenizer.vocabulary_size), np.array(ids), lengths)
    assert result.bytes == len(text.encode())
    assert result.tokens == len(ids) - 1
    assert result.cross_entropy == pytest.approx(math.log(tokenizer.vocabulary_size), rel=1e-6)


def test_a_hopeless_model_has_a_number_too():
    assert math.isfinite(Score(10_000.0, 5, 5).perplexity)
    assert Score(1.0, 1, 0).bits_per_byte == pytest.approx(1 / math.log(2))
