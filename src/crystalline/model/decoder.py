"""A network made ready to continue texts: one token after the other, many texts at once.

`decoder(model)` lays the weights out for that, in the precision asked for. A text lives in a slot, which keeps the
keys and values of its tokens (the KV cache).
"""

from __future__ import annotations

import copy
import ctypes
import weakref
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crystalline import processes
from crystalline.model import library
from crystalline.model.shape import Shape
from crystalline.model.transformer import Block, FactorEmbedding, KVCache, Transformer, is_matrix

PRECISIONS = ("fp32", "bf16", "int8")


class Decoder(ABC):
    """A network with `slots` key/value caches of `shape.context` tokens each. One call at a time.

    A slot's logits are bit for bit the same whatever other slots run beside it, however many of its tokens were read
    at once, and for any number of threads: each number is one sum in a constant order.
    """

    def __init__(self, shape: Shape, slots: int, precision: str) -> None:
        self.shape, self.slots, self.precision = shape, slots, precision
        self._lengths = [0] * slots

    def length(self, slot: int) -> int:
        """How many tokens are in the slot's cache."""
        return self._lengths[slot]

    def read(self, slot: int, tokens: Sequence[int], every: bool = False) -> np.ndarray:
        """Append `tokens` (one at least) to the slot's text; the logits after the last, (V,) fp32.

        every: the logits after each, (T, V). Raises ValueError for tokens that do not fit.
        """
        self._check([slot], tokens, len(tokens))
        logits = self._run([slot] * len(tokens), tokens, every)
        return logits if every else logits[0]

    def step(self, slots: Sequence[int], tokens: Sequence[int]) -> np.ndarray:
        """Append one token to each of several different slots; their logits, (n, V) fp32."""
        if len(set(slots)) != len(tokens) or len(slots) != len(tokens):
            raise ValueError("a step is one token for each of some different slots")
        self._check(slots, tokens, 1)
        return self._run(slots, tokens, every=True)

    def cut(self, slot: int, length: int) -> None:
        """Forget what comes after the slot's first `length` tokens."""
        if not 0 <= length <= self._lengths[slot]:
            raise ValueError(f"cannot cut {self._lengths[slot]} tokens to {length}")
        self._lengths[slot] = length

    def copy(self, source: int, target: int) -> None:
        """Make the target's text that of the source."""
        if source != target:
            self._copy(source, target)
            self._lengths[target] = self._lengths[source]

    def _check(self, slots: Sequence[int], tokens: Sequence[int], more: int) -> None:
        if not len(tokens):
            raise ValueError("no tokens to read")
        if min(tokens) < 0 or max(tokens) >= self.shape.vocabulary:
            raise ValueError(f"tokens are numbers from 0 to {self.shape.vocabulary - 1}")
        if min(slots) < 0 or max(slots) >= self.slots:
            raise ValueError(f"slots are numbers from 0 to {self.slots - 1}")
        if max(self._lengths[slot] for slot in slots) + more > self.shape.context:
            raise ValueError(f"{more} tokens more are too many for a context of {self.shape.context}")

    @abstractmethod
    def fresh(self, slots: int = 1) -> Decoder:
        """Another decoder of the same weights, which are not copied, with empty caches of its own."""

    @abstractmethod
    def _run(self, slots: Sequence[int], tokens: Sequence[int], every: bool = False) -> np.ndarray:
        """Append each token to its slot, in order; the logits after the last token or all, (1 or n, V)."""

    @abstractmethod
    def _copy(self, source: int, target: int) -> None: ...


class ReferenceDecoder(Decoder):
    """With PyTorch, one token at a time: where there is no C compiler, and what the other one is tested against."""

    def __init__(self, network: Transformer, slots: int, precision: str) -> None:
        super().__init__(network.shape, slots, precision)
        self._network = network
        self._caches = [KVCache(network.shape, 1, network.dtype) for _ in range(slots)]
        self._texts = np.zeros((slots, network.shape.context), np.int64)

    def fresh(self, slots: int = 1) -> ReferenceDecoder:
        """See `Decoder.fresh`."""
        return ReferenceDecoder(self._network, slots, self.precision)

    @torch.inference_mode()
    def _run(self, slots: Sequence[int], tokens: Sequence[int], every: bool = False) -> np.ndarray:
        rows = []
        for slot, token in zip(slots, tokens, strict=True):
            cache, length = self._caches[slot], self._lengths[slot]
            cache.length = length
            cache.last_token[0, 0] = int(self._texts[slot, length - 1]) if length else 0
            rows.append(self._network(torch.tensor([[token]]), cache, last_only=True)[0, 0].numpy())
            self._texts[slot, length] = token
            self._lengths[slot] += 1
        return np.stack(rows if every else rows[-1:])

    def _copy(self, source: int, target: int) -> None:
        self._texts[target] = self._texts[source]
        self._caches[target].memory.copy_(self._caches[source].memory)


# --- compiled: see decode.c ------------------------------------------------------------------------------

PANEL = 64  # outputs whose weights lie together
GROUP = {"fp32": 1, "bf16": 2, "int8": 4}  # inputs whose weights for one output lie together
MULTIPLE = {"fp32": 1, "bf16": 2, "int8": 32}  # of which there are as many inputs


class _Layer(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("qkv", "output", "gate_up", "down")),
        *((name, ctypes.c_void_p) for name in ("attention_gain", "query_gain", "key_gain", "feed_forward_gain")),
        *((name, ctypes.c_void_p) for name in ("values", "phase_scales")),
    )


class _Network(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("vocabulary", "layers", "width", "heads", "kv_heads", "head_width")),
        *((name, ctypes.c_int64) for name in ("hidden", "context", "phases")),
        ("epsilon", ctypes.c_double),
        ("layer", ctypes.POINTER(_Layer)),
        *((name, ctypes.c_void_p) for name in ("head", "final_gain", "cosine", "sine")),
        ("phase", ctypes.c_void_p * 3),
        ("by_token", ctypes.c_int64 * 3),
        ("ngram_table", ctypes.c_void_p * 2),
        ("ngram_rows", ctypes.c_int64 * 2),
        ("ngram_share", ctypes.c_void_p),
    )


class _Engine:
    """The weights in one block, and what a step needs: threads and memory. Decoders share it."""

    def __init__(self, model: Transformer, precision: str, threads: int, compiled: ctypes.CDLL) -> None:
        self.precision = precision
        self.decode = getattr(compiled, f"decode_{precision}")
        self._kept: list[Tensor] = []  # what C reads of the model's own memory

        self.network = self._describe(model)
        shape = model.shape
        hidden = _up_to(shape.hidden, PANEL // 2)
        inner, all_heads = shape.heads * shape.head_width, (shape.heads + 2 * shape.kv_heads) * shape.head_width
        sizes = [(all_heads, shape.width), (shape.width, inner), (2 * hidden, shape.width), (shape.width, hidden)]
        sizes = [*sizes * shape.layers, (shape.vocabulary, shape.width)]
        places = np.cumsum([0, *(_panel_bytes(*each, precision) for each in sizes)]).tolist()
        size = self.bytes = places.pop()
        address = compiled.take_block(ctypes.c_int64(size))
        if not address:
            raise MemoryError(f"no memory for {size / 1e6:,.0f} MB of weights")
        block = torch.frombuffer((ctypes.c_uint8 * size).from_address(address), dtype=torch.uint8)
        for number, layer in enumerate(_blocks(model)):
            attention, feed_forward = layer.attention, layer.feed_forward
            missing = hidden - shape.hidden
            gate, up = (F.pad(m, (0, 0, 0, missing)) for m in feed_forward.gate_up.detach().chunk(2))
            gate_up = torch.stack((gate.unflatten(0, (-1, PANEL // 2)), up.unflatten(0, (-1, PANEL // 2))), dim=1)
            down = F.pad(feed_forward.down.detach(), (0, missing))
            matrices = (attention.qkv.detach(), attention.output.detach(), gate_up.flatten(0, 2), down)
            for name, matrix in zip(("qkv", "output", "gate_up", "down"), matrices, strict=True):
                place = places.pop(0)
                _lay_out(matrix, precision, block[place:])
                setattr(self.network.layer[number], name, address + place)
        place = places.pop(0)
        _lay_out(model.embedding.tables(model.dtype)[0].detach(), precision, block[place:])
        self.network.head = address + place

        self.pointer = compiled.new_engine(ctypes.byref(self.network), ctypes.c_int64(threads))
        self.cache_numbers: int = compiled.slot_cache(ctypes.byref(self.network))
        # Not when the process ends: a thread may still be in a step, and then nothing has to be given back.
        weakref.finalize(self, _free, compiled, self.pointer, address).atexit = False
        if not self.pointer:
            raise MemoryError("no memory for a step of the network")

    def _describe(self, model: Transformer) -> _Network:
        """All but the matrices. Small weights and tables stay where they are."""
        shape = model.shape
        layers = (_Layer * shape.layers)()
        for number, (layer, block) in enumerate(zip(layers, _blocks(model), strict=True)):
            attention = block.attention
            layer.attention_gain = self._keep(block.attention_norm.gain)
            layer.feed_forward_gain = self._keep(block.feed_forward_norm.gain)
            if attention.query_norm is not None and attention.key_norm is not None:
                layer.query_gain = self._keep(attention.query_norm.gain)
                layer.key_gain = self._keep(attention.key_norm.gain)
            if str(number) in model.values:
                layer.values = self._keep(model.values[str(number)])
            if attention.phase_scales is not None:
                layer.phase_scales = self._keep(attention.phase_scales)
        names = ("vocabulary", "layers", "width", "heads", "kv_heads", "head_width", "hidden", "context")
        network = _Network(**{name: getattr(shape, name) for name in names}, phases=len(shape.phases), layer=layers)
        network.epsilon = shape.norm_epsilon
        network.final_gain = self._keep(model.final_norm.gain)
        network.cosine, network.sine = self._keep(model.cosine), self._keep(model.sine)
        for number, name in enumerate(shape.phases):
            network.phase[number] = self._keep(model.phases.get_buffer(name))
            network.by_token[number] = name == "lattice"
        if model.ngrams is not None:
            for number, table in enumerate(model.ngrams.tables):
                network.ngram_table[number], network.ngram_rows[number] = self._keep(table), len(table)
            network.ngram_share = self._keep(model.ngrams.layer_gain)
        return network

    def _keep(self, x: Tensor) -> int:
        self._kept.append(x.detach().float().contiguous())
        return self._kept[-1].data_ptr()


class CompiledDecoder(Decoder):
    """One call of C for a step of all slots, or for a whole prompt."""

    def __init__(self, engine: _Engine, shape: Shape, slots: int) -> None:
        super().__init__(shape, slots, engine.precision)
        self._engine = engine
        kind = np.float32 if engine.precision == "fp32" else np.uint16
        self._cache = np.zeros((slots, engine.cache_numbers), kind)
        self._texts = np.zeros((slots, shape.context), np.int32)
        self._addresses = engine.pointer, self._cache.ctypes.data, self._texts.ctypes.data

    def fresh(self, slots: int = 1) -> CompiledDecoder:
        """See `Decoder.fresh`."""
        return CompiledDecoder(self._engine, self.shape, slots)

    def _run(self, slots: Sequence[int], tokens: Sequence[int], every: bool = False) -> np.ndarray:
        rows = np.empty((3, len(tokens)), np.int32)
        rows[0], rows[1] = tokens, slots
        for number, slot in enumerate(slots):
            rows[2, number] = self._lengths[slot]
            self._lengths[slot] += 1
        logits = np.empty((len(tokens) if every else 1, self.shape.vocabulary), np.float32)
        at, step = rows.ctypes.data, rows.strides[0]
        self._engine.decode(*self._addresses, at, at + step, at + 2 * step, len(tokens), every, logits.ctypes.data)
        return logits

    def _copy(self, source: int, target: int) -> None:
        self._texts[target] = self._texts[source]
        # Of each head: keys in blocks of 16 positions, then values.
        s, length = self.shape, self._lengths[source]
        caches = self._cache.reshape(self.slots, s.layers * s.kv_heads, -1)
        keys = _up_to(length, 16) * s.attention_width
        values = _up_to(s.context, 16) * s.attention_width
        for begin, end in ((0, keys), (values, values + length * _up_to(s.head_width, 16))):
            caches[target, :, begin:end] = caches[source, :, begin:end]


def _blocks(model: Transformer) -> list[Block]:
    return [block for block in model.blocks if isinstance(block, Block)]


def _up_to(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _panel_bytes(outputs: int, inputs: int, precision: str) -> int:
    numbers = _up_to(outputs, PANEL) * _up_to(inputs, MULTIPLE[precision])
    if precision == "int8":
        return numbers + 4 * _up_to(outputs, PANEL)
    return numbers * (4 if precision == "fp32" else 2)


def _lay_out(matrix: Tensor, precision: str, target: Tensor) -> None:
    """Write a matrix (outputs, inputs) to the beginning of `target`, bytes, as panels."""
    outputs, inputs = matrix.shape
    group = GROUP[precision]
    x = F.pad(matrix.float(), (0, -inputs % MULTIPLE[precision], 0, -outputs % PANEL))
    if precision == "int8":
        x, scales = _as_integers(x)
    x = x.view(-1, PANEL, x.shape[1] // group, group).transpose(1, 2)
    if precision == "int8":
        panels = torch.cat((scales.view(-1, PANEL).view(torch.uint8), (x + 128).to(torch.uint8).flatten(1)), dim=1)
    else:
        panels = x.to(torch.bfloat16 if precision == "bf16" else torch.float32).contiguous().view(torch.uint8)
    target[: panels.numel()] = panels.flatten()


def _as_integers(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Whole numbers from -127 to 127, and what each row of them is to be multiplied by, (rows, 1)."""
    scales = matrix.abs().amax(dim=1, keepdim=True).clamp_min(1e-30) / 127
    return (matrix / scales).round(), scales


def _free(compiled: ctypes.CDLL, engine: int | None, block: int) -> None:
    compiled.end_engine(ctypes.c_void_p(engine))
    compiled.give_block(ctypes.c_void_p(block))


def decoder(model: Transformer, slots: int = 1, precision: str | None = None, threads: int | None = None) -> Decoder:
    """`model` made ready to continue texts. It must not change afterwards: its gains are read where they are.

    precision: of the matrices; None: the one that the model computes in. threads: at most; None: PyTorch's number.
    """
    if precision is None:
        precision = "bf16" if model.dtype == torch.bfloat16 else "fp32"
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r} is none of {', '.join(PRECISIONS)}")
    compiled = library.decoding()
    if compiled is None:
        return ReferenceDecoder(_in_precision(model, precision), slots, precision)
    threads = threads or min(processes.cores(), torch.get_num_threads())
    return CompiledDecoder(_Engine(model, precision, threads, compiled), model.shape, slots)


@torch.no_grad()
def _in_precision(model: Transformer, precision: str) -> Transformer:
    """The network to compute with in PyTorch. For int8 its matrices are rounded, and kept in fp32."""
    network = copy.copy(model)
    network.dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    network = network.for_products().eval().requires_grad_(False)
    if precision == "int8":
        for name, weight in network.named_parameters():
            if is_matrix(name):
                weight.data = torch.mul(*_as_integers(weight.data))
        network.embedding = FactorEmbedding(replace(model.shape, factors=0), None)
        network.embedding.own = nn.Parameter(torch.mul(*_as_integers(model.folded_embedding())), requires_grad=False)
    network.embedding.hold(network.dtype)
    return network
