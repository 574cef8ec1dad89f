"""The decode path: the network's logits, and the same bits however a text got into its slot."""

import multiprocessing
import os
import platform
from dataclasses import replace

import numpy as np
import pytest
import torch

from crystalline.model import decoder as decoding
from crystalline.model import library
from crystalline.model.decoder import PRECISIONS, CompiledDecoder, Decoder, ReferenceDecoder, decoder
from crystalline.model.shape import Shape
from crystalline.model.transformer import Transformer

compiled = pytest.mark.skipif(library.decoding() is None, reason="there is no C compiler here")

SHAPE = Shape(vocabulary=61, layers=3, width=48, heads=6, kv_heads=2, head_width=10, hidden=56, context=70, factors=5)
SHAPES = {
    "grouped queries": SHAPE,
    "narrow": replace(SHAPE, width=10, heads=5, kv_heads=5, head_width=2, hidden=16, vocabulary=64, factors=0),
    "wide": replace(SHAPE, width=130, heads=3, kv_heads=1, head_width=48, hidden=200, layers=1, vocabulary=300),
    "one layer, small context": replace(SHAPE, layers=1, context=8),
    "value embeddings": replace(SHAPE, value_embeddings=True),
    "pairs of tokens": replace(SHAPE, ngram_rows=200),
    "phases": replace(SHAPE, phases=("lattice", "golden", "clock")),
    "golden": replace(SHAPE, rotary="golden"),
    "all": replace(
        SHAPE, value_embeddings=True, ngram_rows=100, phases=("clock", "lattice"), rotary="clock", factors=0
    ),
}

if "qk_norm" in Shape.__dataclass_fields__:
    SHAPES["Llama's form"] = replace(SHAPE, qk_norm=False)


def network(shape: Shape = SHAPE, dtype: torch.dtype = torch.float32) -> Transformer:
    """Like a trained one: every part takes part."""
    tokens = shape.vocabulary
    bags = np.arange(tokens, dtype=np.int64) % 5, np.minimum(np.arange(tokens + 1), tokens).astype(np.int64)
    model = Transformer(shape, bags if shape.factors else None, dtype, np.linspace(0, 20, tokens))
    model.initialize(0)
    generator = torch.Generator().manual_seed(1)
    for name, weight in model.named_parameters():
        if name.endswith("gain"):
            weight.data.uniform_(0.5, 1.5, generator=generator)
        else:
            weight.data.normal_(0.0, 1.0 if weight.shape[-1] < 4 else weight.shape[-1] ** -0.5, generator=generator)
    return model.eval().requires_grad_(False)


def text(length: int, seed: int = 0, vocabulary: int = 61) -> list[int]:
    return np.random.default_rng(seed).integers(0, vocabulary, length).tolist()


def error(found: np.ndarray, wanted: np.ndarray) -> float:
    """The typical error relative to the typical logit."""
    return float(np.sqrt(((found - wanted) ** 2).mean() / (wanted**2).mean()))


# --- the right numbers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHAPES)
def test_the_logits_are_the_networks(name: str) -> None:
    model = network(SHAPES[name])
    tokens = text(model.shape.context, vocabulary=model.shape.vocabulary)
    wanted = model(torch.tensor([tokens]))[0].numpy()
    found = decoder(model).read(0, tokens, every=True)
    assert np.abs(found - wanted).max() < 1e-5 * np.abs(wanted).max()


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize(("precision", "most"), [("bf16", 0.02), ("int8", 0.05)])
def test_less_precise_weights_give_logits_nearby(name: str, precision: str, most: float) -> None:
    model = network(SHAPES[name])
    tokens = text(model.shape.context, vocabulary=model.shape.vocabulary)
    wanted = model(torch.tensor([tokens]))[0].numpy()
    assert 0 < error(decoder(model, precision=precision).read(0, tokens, every=True), wanted) < most


@compiled
@pytest.mark.parametrize("precision", PRECISIONS)
def test_both_forms_mean_the_same_weights(precision: str) -> None:
    """The rest is how inputs of products are rounded: not at all, to bf16, and to 8 bits in C only."""
    model, tokens = network(), text(40)
    reference = ReferenceDecoder(decoding._in_precision(model, precision), 1, precision)
    found, wanted = (d.read(0, tokens, every=True) for d in (decoder(model, precision=precision), reference))
    assert error(found, wanted) < {"fp32": 1e-5, "bf16": 0.02, "int8": 0.03}[precision]


def test_the_precision_is_that_of_the_training_unless_told() -> None:
    assert decoder(network()).precision == "fp32"
    assert decoder(network(dtype=torch.bfloat16)).precision == "bf16"
    assert decoder(network(dtype=torch.bfloat16), precision="int8").precision == "int8"
    with pytest.raises(ValueError, match="fp8"):
        decoder(network(), precision="fp8")


# --- the same bits -------------------------------------------------------------------------------------------


def in_many_ways(model: Transformer, precision: str, tokens: list[int]) -> None:
    """Read at once; token by token; in parts; among other texts; after a cut; in a copy."""
    d = decoder(model, 20, precision)
    wanted = d.read(0, tokens, every=True)
    assert isinstance(d, CompiledDecoder)

    one_by_one = np.stack([d.read(1, [token]) for token in tokens])
    assert np.array_equal(one_by_one, wanted)
    for begin, end in ((0, 1), (1, 18), (18, 51), (51, len(tokens))):
        assert np.array_equal(d.read(2, tokens[begin:end]), wanted[end - 1])

    # Others in all slots but 0 to 3, at different positions, some steps with few of them, some with many.
    others = range(4, 20)
    for slot in others:
        d.read(slot, text(1 + 2 * slot, seed=slot))
    for number, token in enumerate(tokens):
        beside = [slot for slot in others if (number + slot) % 5 and d.length(slot) < d.shape.context]
        slots = [*beside[: number % 17], 3, *beside[number % 17 :]]
        logits = d.step(slots, [token if slot == 3 else (7 * slot + number) % 61 for slot in slots])
        assert np.array_equal(logits[slots.index(3)], wanted[number])

    d.cut(0, 33)
    assert d.length(0) == 33
    d.read(0, text(5, seed=9))
    d.cut(0, 33)
    assert np.array_equal(d.read(0, tokens[33:40], every=True), wanted[33:40])
    d.copy(0, 19)
    assert d.length(19) == 40
    assert np.array_equal(d.read(19, tokens[40:], every=True), wanted[40:])
    assert np.array_equal(d.read(0, tokens[40:], every=True), wanted[40:])
    assert np.array_equal(d.fresh().read(0, tokens), wanted[-1])


@compiled
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ["grouped queries", "narrow", "wide", "all"])
def test_the_bits_are_the_same_however_a_text_was_read(name: str, precision: str) -> None:
    in_many_ways(network(SHAPES[name]), precision, text(70))


@compiled
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_bits_are_the_same_for_any_number_of_threads(precision: str) -> None:
    """With more than one thread every number of them is tried in the first steps of a size."""
    model, tokens = network(), text(70)
    wanted = decoder(model, precision=precision, threads=1).read(0, tokens, every=True)
    for threads in (2, 3, 5):
        d = decoder(model, 2, precision, threads)
        for _ in range(2):
            d.cut(0, 0)
            assert np.array_equal(np.stack([d.read(0, [token]) for token in tokens]), wanted)
        for _ in range(8):
            d.cut(1, 0)
            assert np.array_equal(d.read(1, tokens, every=True), wanted)


def in_child(d: Decoder, tokens: list[int], queue) -> None:
    queue.put(d.read(0, tokens))


@compiled
def test_threads_work_on_in_a_forked_process() -> None:
    """The scribe samples in one."""
    model, tokens = network(), text(20)
    d = decoder(model, threads=2)
    for _ in range(10):  # the helpers are there now
        wanted = d.read(0, tokens)
        d.cut(0, 0)
    fork = multiprocessing.get_context("fork")
    queue = fork.Queue()
    child = fork.Process(target=in_child, args=(d, tokens, queue))
    child.start()
    assert np.array_equal(queue.get(timeout=60), wanted)
    child.join(60)
    assert np.array_equal(d.read(0, tokens), wanted)


def test_without_a_compiler_texts_do_not_meet_either(monkeypatch) -> None:
    monkeypatch.setattr(library, "decoding", lambda: None)
    for name in ("grouped queries", "all"):
        for precision in PRECISIONS:
            d, tokens = decoder(network(SHAPES[name]), 3, precision), text(12)
            assert isinstance(d, ReferenceDecoder)
            wanted = d.read(0, tokens, every=True)
            d.read(1, text(5, seed=3))
            together = [d.step([1, 2], [number, token])[1] for number, token in enumerate(tokens)]
            assert np.array_equal(np.stack(together), wanted)
            d.cut(2, 7)
            d.copy(2, 1)
            assert np.array_equal(d.read(1, tokens[7:]), wanted[-1])


@compiled
@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="these are x86 processors")
@pytest.mark.parametrize("processor", ["x86-64", "x86-64-v3", "skylake-avx512"])
def test_processors_with_less(processor: str, monkeypatch, tmp_path) -> None:
    """The same formulas without the instructions of the newest ones."""
    if processor == "skylake-avx512" and b"avx512bw" not in library._processor():
        pytest.skip("this processor has no AVX-512")
    if processor == "x86-64-v3" and b"avx2" not in library._processor():
        pytest.skip("this processor has no AVX2")
    model, tokens = network(SHAPES["all"]), text(70)
    native = {precision: decoder(model, precision=precision).read(0, tokens, every=True) for precision in PRECISIONS}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(library, "FLAGS", [f.replace("-march=native", f"-march={processor}") for f in library.FLAGS])
    loaded = library.decoding.__wrapped__()
    assert loaded is not None
    monkeypatch.setattr(library, "decoding", lambda: loaded)
    for precision in PRECISIONS:
        in_many_ways(model, precision, tokens)
        found = decoder(model, precision=precision).read(0, tokens, every=True)
        assert error(found, native[precision]) < {"fp32": 1e-5, "bf16": 0.02, "int8": 0.03}[precision]


# --- around it -----------------------------------------------------------------------------------------------


def test_tokens_that_do_not_fit_are_refused_and_change_nothing() -> None:
    d = decoder(network(), 2)
    with pytest.raises(ValueError, match="context"):
        d.read(0, text(71))
    d.read(0, text(70))
    with pytest.raises(ValueError, match="context"):
        d.step([1, 0], [3, 3])
    for slots, tokens in (([0, 0], [1, 2]), ([0], [1, 2]), ([], [])):
        with pytest.raises(ValueError, match=r"slots|tokens"):
            d.step(slots, tokens)
    for tokens in ([61], [-1], []):
        with pytest.raises(ValueError, match="tokens"):
            d.read(1, tokens)
    for slot in (-1, 2):
        with pytest.raises(ValueError, match="slots"):
            d.read(slot, [1])
    with pytest.raises(ValueError, match="cut"):
        d.cut(0, 71)
    assert d.length(0) == 70
    assert d.length(1) == 0


@compiled
def test_the_weights_are_held_once_and_in_their_precision() -> None:
    shape = Shape(2048, 2, 256, 4, 4, 64, 704, 64, factors=0)
    model = network(shape)
    most = {"fp32": 4.1, "bf16": 2.05, "int8": 1.1}  # bytes for each weight
    weights = sum(p.numel() for p in model.parameters())
    own = {p.data_ptr() for p in [*model.parameters(), *model.buffers()]}
    for precision in PRECISIONS:
        engine = decoding._Engine(model, precision, 1, library.decoding())
        assert engine.bytes < most[precision] * weights
        assert all(kept.data_ptr() in own for kept in engine._kept), "gains and tables are the model's own memory"


@compiled
def test_slots_take_no_memory_before_they_are_used() -> None:
    shape = replace(SHAPE, context=100_000)
    d = decoder(network(shape), 64)
    assert d._cache.nbytes > 1e9
    with open("/proc/self/statm") as file:
        resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    assert resident < d._cache.nbytes
