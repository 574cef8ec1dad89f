"""A network made ready to continue texts: one token after the other, many texts at once.

`decoder(model)` lays the weights out for that, in the precision asked for. A text lives in a slot, which keeps the keys
and values of its tokens (the KV cache).
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch

from crystalline.model.shape import Shape
from crystalline.model.transformer import KVCache, Transformer, is_matrix

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
        if min(slots) < 0 or max(self._lengths[slot] for slot in slots) + more > self.shape.context:
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


def decoder(model: Transformer, slots: int = 1, precision: str | None = None, threads: int | None = None) -> Decoder:
    """`model` made ready to continue texts. It must not change afterwards: the decoder reads its tables and gains.

    precision: of the matrices; None: the one that the model computes in. threads: None: as many as help.
    """
    if precision is None:
        precision = "bf16" if model.dtype == torch.bfloat16 else "fp32"
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r} is none of {', '.join(PRECISIONS)}")
    return ReferenceDecoder(_in_precision(model, precision), slots, precision)


def _in_precision(model: Transformer, precision: str) -> Transformer:
    """The network to compute with in PyTorch. For int8 its matrices are rounded, and kept in fp32."""
    network = copy.copy(model)
    network.dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    network = network.for_products().eval().requires_grad_(False)
    if precision == "int8":
        for name, weight in network.named_parameters():
            if is_matrix(name):
                weight.data = rounded_to_int8(weight.data)
    network.embedding.hold(network.dtype)
    return network


def rounded_to_int8(matrix: torch.Tensor) -> torch.Tensor:
    """Each row as 8-bit integers times one scale, in fp32 again."""
    scale = matrix.abs().amax(dim=1, keepdim=True).clamp_min(1e-30) / 127
    return (matrix / scale).round() * scale
