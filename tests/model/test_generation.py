"""Continuing text: streaming, stopping, seeds, and text longer than the context."""

import itertools

import pytest
import torch

import crystalline
from crystalline.errors import UserError
from crystalline.model import library
from crystalline.model.generation import Generated, LanguageModel, advance
from crystalline.model.sampling import Sampling


@pytest.fixture(scope="module")
def model(tiny_run) -> LanguageModel:
    return crystalline.load(tiny_run)


def test_the_same_seed_gives_the_same_text(model):
    def text(seed: int) -> str:
        return model.generate("def ", Sampling(seed=seed), max_tokens=40)

    assert text(1) == text(1)
    assert len({text(seed) for seed in range(4)}) > 1


def test_greedy_is_the_most_likely_token_each_time(model):
    prompt = model.tokenizer.encode("import ")
    tokens = list(itertools.islice(model.next_tokens(prompt, Sampling(temperature=0)), 12))
    text = [model.tokenizer.bos, *prompt]
    for token in tokens:
        logits = model.model(torch.tensor([text]))[0, -1]
        logits[model._hidden] = -torch.inf
        assert int(logits.argmax()) == token
        text.append(token)


def test_generation_goes_on_beyond_the_context(model):
    """When the window is full its second half is read again; what follows depends on that half only."""
    context = model.model.shape.context
    prompt = [int(t) for t in torch.randint(20, 200, (context + 9,))]
    tokens = list(itertools.islice(model.next_tokens(prompt, Sampling(temperature=0)), 2 * context))
    if len(tokens) == 2 * context:  # no end of text came
        assert len(set(tokens)) >= 1
    all_tokens = [model.tokenizer.bos, *prompt, *tokens]
    # The first token is predicted from the last context - 1 tokens of the prompt, as a full pass says.
    window = all_tokens[: len(prompt) + 1][-(context - 1) :]
    logits = model.model(torch.tensor([window]))[0, -1]
    logits[model._hidden] = -torch.inf
    assert int(logits.argmax()) == tokens[0]


def test_a_long_text_is_the_same_among_others(model):
    """Far beyond the context, where second halves are read again at different times."""
    prompts = [model.tokenizer.encode(text) for text in ("def ", "import os, ", "x")]
    hows = [Sampling(seed=5), Sampling(temperature=0), Sampling(seed=7, temperature=1.5)]
    alone = []
    for prompt, how in zip(prompts, hows, strict=True):
        alone.append(list(itertools.islice(model.next_tokens(prompt, how), 80)))
    texts = {slot: model.continuation(*pair) for slot, pair in enumerate(zip(prompts, hows, strict=True))}
    decoder, together = model.decoder.fresh(3), [[], [], []]
    for _ in range(80):
        for slot, logits in advance(decoder, texts).items():
            token = texts[slot].choose(logits)
            if token is None:
                del texts[slot]
            else:
                together[slot].append(token)
    assert together == alone


def test_two_texts_at_once_do_not_meet(model):
    one, other = model.next_tokens([], Sampling(seed=1)), model.next_tokens([], Sampling(seed=2))
    both = [pair for _, pair in zip(range(20), zip(one, other, strict=False), strict=False)]
    for seed, text in zip((1, 2), zip(*both, strict=True), strict=True):
        assert list(text) == list(itertools.islice(model.next_tokens([], Sampling(seed=seed)), len(both)))


def test_the_precision_is_the_runs_or_the_one_asked_for(tiny_run):
    assert crystalline.load(tiny_run).decoder.precision == "fp32"
    assert crystalline.load(tiny_run, "auto").decoder.precision == "fp32"
    coarse = crystalline.load(tiny_run, "int8")
    assert coarse.decoder.precision == "int8"
    assert coarse.generate("def ", max_tokens=5)


def test_without_a_compiler(tiny_run, monkeypatch):
    monkeypatch.setattr(library, "decoding", lambda: None)
    model = crystalline.load(tiny_run)
    tokens = list(itertools.islice(model.next_tokens([], Sampling(temperature=0)), 80))  # beyond the context
    assert tokens == list(itertools.islice(model.next_tokens([], Sampling(temperature=0)), 80))
    assert tokens


def test_special_tokens_never_come(model):
    tokens = list(itertools.islice(model.next_tokens([], Sampling(temperature=5.0)), 200))
    assert tokens
    assert not any(model.tokenizer.is_special(token) for token in tokens)


def test_a_stream_is_the_whole_text(model):
    how, result = Sampling(seed=3), Generated([], "")
    pieces = list(model.stream("for ", how, 50, [], result))
    assert "".join(pieces) == model.tokenizer.decode(result.tokens)
    assert result.reason in ("length", "stop")
    assert len(result.tokens) <= 50


class Scripted(LanguageModel):
    """Says given tokens, to test what streaming does with them."""

    def __init__(self, real: LanguageModel, tokens: list[int]) -> None:
        super().__init__(real.model, real.tokenizer, real.defaults)
        self._script = tokens

    def next_tokens(self, prompt, how, result=None):
        yield from self._script
        if result is not None:
            result.reason = "stop"


def test_characters_are_never_cut(model):
    tokens = model.tokenizer.encode_bytes("aé😀b".encode())
    one_byte_each = [t for b in "aé😀b".encode() for t in model.tokenizer.encode_bytes(bytes([b]))]
    for script in (tokens, one_byte_each):
        pieces = list(Scripted(model, script).stream("", Sampling(), 100))
        assert "".join(pieces) == "aé😀b"
        assert "�" not in "".join(pieces)


def test_a_broken_character_at_the_end_is_shown_as_such(model):
    tokens = model.tokenizer.encode_bytes("a😀".encode()[:-1])
    assert "".join(Scripted(model, tokens).stream("", Sampling(), 100)) == "a�"


def test_stop_strings_are_not_shown_even_when_they_come_in_pieces(model):
    script = [t for c in "one END two" for t in model.tokenizer.encode_bytes(c.encode())]
    for stop, expected in (("END", "one "), ("e", "on"), ("E two", "one END two"), ("o", "")):
        result = Generated([], "")
        pieces = list(Scripted(model, script).stream("", Sampling(), 100, [stop], result))
        assert "".join(pieces) == expected
    assert result.reason == "stop"


def test_sampling_settings_are_checked(model):
    with pytest.raises(UserError, match="top_p"):
        model.sampling(top_p=0.0)
    with pytest.raises(UserError, match="temperature"):
        model.sampling(temperature=-1.0)


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        crystalline.load(tmp_path / "nothing")
