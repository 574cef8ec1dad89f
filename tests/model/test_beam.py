"""Beam search finds what trying everything finds, and reads nothing twice to do so."""

import itertools

import numpy as np
import pytest
import torch

from crystalline.model.beam import beam_search, length_penalty
from crystalline.model.decoder import Decoder, decoder
from crystalline.model.sampling import log_probabilities
from crystalline.model.shape import Shape
from crystalline.model.transformer import Transformer

EOS, HIDDEN = 1, [0]
LETTERS = [2, 3, 4, 5]  # what may come, besides the end


def network(context: int = 16, seed: int = 1) -> Transformer:
    """Six tokens, of which one never comes and one ends a text."""
    shape = Shape(
        vocabulary=6, layers=2, width=16, heads=2, kv_heads=1, head_width=8, hidden=24, context=context, factors=0
    )
    model = Transformer(shape, None, torch.float32)
    model.initialize(0)
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if not name.endswith("gain"):
            weight.data.normal_(0.0, 0.4, generator=generator)
    return model.eval().requires_grad_(False)


def everything(model: Decoder, prompt: list[int], length: int) -> list[tuple[list[int], float, int, str]]:
    """Every continuation with its log-probability, how many tokens count, and how it ends: one full read for each."""
    found = []
    for count in range(length + 1):
        for letters in itertools.product(LETTERS, repeat=count):
            tokens = [*prompt, *letters]
            model.cut(0, 0)
            logits = model.read(0, tokens, every=True)
            logits[:, HIDDEN] = -np.inf
            logs = np.stack([log_probabilities(row) for row in logits])[len(prompt) - 1 :]
            total = sum(float(logs[i, token]) for i, token in enumerate(letters))
            if count < length:
                found.append((list(letters), total + float(logs[count, EOS]), count + 1, "stop"))
            elif count:
                found.append((list(letters), total, count, "length"))
    return found


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_wide_enough_it_is_exhaustive_search(alpha, seed):
    """Four steps of four letters: with 64 beams nothing is left out. The n best, their scores and ends are equal."""
    model = decoder(network(seed=seed), slots=64)
    every = everything(model, [3, 4], length=4)
    assert len(every) == 1 + 4 + 16 + 64 + 256
    every.sort(key=lambda found: -found[1] / length_penalty(found[2], alpha))
    found = beam_search(model, [3, 4], 64, 4, EOS, hidden=HIDDEN, alpha=alpha, best=10)
    assert [(h.tokens, h.reason) for h in found] == [(tokens, reason) for tokens, _, _, reason in every[:10]]
    for hypothesis, (_, total, counted, _) in zip(found, every, strict=False):
        assert hypothesis.log_probability == pytest.approx(total, abs=1e-9)
        assert hypothesis.score == pytest.approx(total / length_penalty(counted, alpha), abs=1e-9)


def naive(model: Decoder, prompt: list[int], width: int, length: int) -> tuple[list[int], float]:
    """The same search for one result, without slots, copies and early end: every beam is read anew at each step."""
    beams: list[tuple[list[int], float]] = [([], 0.0)]
    finished = []
    for count in range(1, length + 1):
        longer = []
        for tokens, total in beams:
            model.cut(0, 0)
            logits = model.read(0, [*prompt, *tokens])
            logits[HIDDEN] = -np.inf
            logs = log_probabilities(logits)
            finished.append((tokens, (total + logs[EOS]) / length_penalty(count, 0.6)))
            longer += [([*tokens, letter], total + logs[letter]) for letter in LETTERS]
        beams = sorted(longer, key=lambda beam: -beam[1])[:width]
    finished += [(tokens, total / length_penalty(length, 0.6)) for tokens, total in beams]
    return max(finished, key=lambda found: found[1])


@pytest.mark.parametrize("width", [1, 2, 3, 5])
def test_a_narrow_beam_is_the_textbook_search(width):
    for seed in range(4):
        model = decoder(network(seed=seed), slots=width)
        (found,) = beam_search(model, [2], width, 12, EOS, hidden=HIDDEN)
        tokens, score = naive(model, [2], width, 12)
        assert found.tokens == tokens
        assert found.score == pytest.approx(score, abs=1e-9)


class Counting:
    """Counts the tokens that a decoder reads."""

    def __init__(self, real: Decoder) -> None:
        self._real, self.tokens = real, 0

    def __getattr__(self, name: str):
        return getattr(self._real, name)

    def read(self, slot: int, tokens: list[int]):
        self.tokens += len(tokens)
        return self._real.read(slot, tokens)

    def step(self, slots: list[int], tokens: list[int]):
        self.tokens += len(slots)
        return self._real.step(slots, tokens)


def test_it_ends_early_where_nothing_better_can_come():
    model = network()
    model.embedding.own.data[EOS] *= -4  # an end that is likely after some letters
    counting = Counting(decoder(model, slots=4))
    (found,) = beam_search(counting, [3, 4], 4, 14, EOS, hidden=HIDDEN)
    assert found.reason == "stop"
    assert counting.tokens < 2 + 4 * 13  # all beams to the end
    tokens, score = naive(decoder(model), [3, 4], 4, 14)
    assert (found.tokens, found.score) == (tokens, pytest.approx(score, abs=1e-9))


def test_a_stop_string_ends_a_beam():
    model = decoder(network(), slots=8)
    found = beam_search(model, [3], 8, 6, EOS, hidden=HIDDEN, best=8, ended=lambda tokens: tokens[-1] == 4)
    assert any(h.tokens[-1:] == [4] for h in found)
    for hypothesis in found:
        assert 4 not in hypothesis.tokens[:-1]
        assert hypothesis.reason == "stop" or len(hypothesis.tokens) == 6


def test_beyond_the_context_each_beam_is_read_again_from_its_second_half():
    """As a single text is: the score is that of the windows the text was read in."""
    context = 8
    network_ = network(context)
    (found,) = beam_search(decoder(network_, slots=3), [2, 3, 4], 3, 20, 0, hidden=[EOS], alpha=0.0)
    assert len(found.tokens) == 20
    text, window, total, alone = [2, 3, 4], [2, 3, 4], 0.0, decoder(network_)
    for token in found.tokens:
        alone.cut(0, 0)
        logits = alone.read(0, window)
        logits[EOS] = -np.inf
        total += float(log_probabilities(logits)[token])
        text.append(token)
        window = text[-(context // 2) :] if len(window) == context else [*window, token]
    assert found.log_probability == pytest.approx(total, abs=1e-9)


def test_the_length_penalty_is_the_published_one():
    assert length_penalty(1, 0.6) == 1
    assert length_penalty(7, 1.0) == 2
    assert length_penalty(100, 0.0) == 1
