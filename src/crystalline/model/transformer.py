"""The network: a decoder-only transformer whose token embedding is built from prime factors.

Its form is Qwen3's (RMSNorm, rotary positions, query/key norm, SwiGLU, grouped queries, tied head), so a trained
network is a Qwen3 checkpoint once its embedding is folded (`Transformer.folded_embedding`).

Letters in shapes: B batch, T time, D width, H heads, K key/value heads, W head width, V vocabulary.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from crystalline.model import operations
from crystalline.model.ngrams import NgramMemory
from crystalline.model.objective import Term
from crystalline.model.phases import Phases, rotary_table
from crystalline.model.shape import Shape
from crystalline.tokens import relations
from crystalline.tokens.codes import TokenCodes

IGNORE = -100  # a target that is not predicted (padding)


class FactorEmbedding(nn.Module):
    """Token vectors: each token's own vector plus the vectors of the prime factors it shares with others.

    "run", " Running" and "runs" share their root's vector, " Running" and " The" those of the space and the
    capital, so what is learned of one helps the others. Factors start at zero: training starts exactly at
    the plain embedding.

    factor_bags: (indices, offsets) as `TokenCodes.bags` gives them, or None for a plain embedding.
    """

    indices: Tensor
    offsets: Tensor

    def __init__(self, shape: Shape, factor_bags: tuple[np.ndarray, np.ndarray] | None) -> None:
        super().__init__()
        self.scale = shape.factor_scale
        self.own = nn.Parameter(torch.empty(shape.vocabulary, shape.width))
        self.factors: nn.Parameter | None = None
        self._held: tuple[Tensor, Tensor] | None = None
        if shape.factors and factor_bags is not None:
            indices, offsets = factor_bags
            self.factors = nn.Parameter(torch.empty(shape.factors, shape.width))
            self.register_buffer("indices", torch.from_numpy(indices), persistent=False)
            self.register_buffer("offsets", torch.from_numpy(offsets), persistent=False)

    def tables(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """(V, D): the vectors of all tokens, in fp32 for the input and in `dtype` for the head."""
        if self.factors is None:
            return self.own, self.own.to(dtype)
        held = self._held if self._held is not None and self._held[1].dtype == dtype else None
        return operations.token_table(self.own, self.factors, (self.indices, self.offsets), self.scale, dtype, held)

    @torch.no_grad()
    def hold(self, dtype: torch.dtype) -> None:
        """Make the tables now and use them until this is called again; to be called whenever the weights change."""
        self._held = None
        self._held = self.tables(dtype)


class RMSNorm(nn.Module):
    """x / rms(x) * gain over the last dimension, of the sum of a stream and what a block adds to it."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.empty(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor, added: Tensor | None, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """(x + added, its norm in `dtype`): one pass over memory for both."""
        return operations.rms_norm(x, added, self.gain, self.epsilon, dtype)


class KVCache:
    """Keys and values of the tokens so far, (layers, 2, B, K, context, W). `length` tokens are filled."""

    def __init__(self, shape: Shape, batch: int, dtype: torch.dtype) -> None:
        size = (shape.layers, 2, batch, shape.kv_heads, shape.context, shape.attention_width)
        self.memory = torch.zeros(size, dtype=dtype)
        self.length = 0
        self.last_token = torch.zeros((batch, 1), dtype=torch.int64)

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store (B, K, T, W) keys and values of new tokens; return those of all tokens so far."""
        end = self.length + keys.shape[2]
        store = self.memory[layer, :, :, :, :end]
        store[0, :, :, self.length :] = keys
        store[1, :, :, self.length :] = values
        return store[0], store[1]


@dataclass(frozen=True)
class Place:
    """What blocks know of the tokens besides the stream.

    rotary: cosine and sine, (T, W) each. phases: (B, T, n, 2), see `Phases`. values: layer -> (B, T, K W), what is
    added to its values. ngrams: (B, T, D) and the share of it that each layer adds, (layers,).
    """

    rotary: tuple[Tensor, Tensor]
    phases: Tensor | None
    values: dict[int, Tensor]
    ngrams: tuple[Tensor, Tensor] | None


class Attention(nn.Module):
    """Causal self-attention with (usually) normed queries and keys, rotary positions and grouped queries."""

    def __init__(self, shape: Shape, layer: int) -> None:
        super().__init__()
        self.shape, self.layer = shape, layer
        rows = (shape.heads + 2 * shape.kv_heads) * shape.head_width
        # Queries, keys and values in one matrix: one product instead of three. The optimizer takes them apart.
        self.qkv = nn.Parameter(torch.empty(rows, shape.width))
        self.output = nn.Parameter(torch.empty(shape.width, shape.heads * shape.head_width))
        self.query_norm = RMSNorm(shape.head_width, shape.norm_epsilon) if shape.qk_norm else None
        self.key_norm = RMSNorm(shape.head_width, shape.norm_epsilon) if shape.qk_norm else None
        # Neutral at first: how much of each phase's cosine is added to a head's scores.
        self.phase_scales = nn.Parameter(torch.empty(shape.heads, len(shape.phases))) if shape.phases else None

    def forward(self, x: Tensor, place: Place, cache: KVCache | None) -> Tensor:
        s, time = self.shape, x.shape[1]
        qkv = F.linear(x, self.qkv.to(x.dtype))
        gains = None
        if self.query_norm is not None and self.key_norm is not None:
            gains = self.query_norm.gain, self.key_norm.gain
        q, k, v = operations.split_heads(qkv, gains, place.rotary, s.heads, s.kv_heads, s.norm_epsilon)
        if self.layer in place.values:
            v = v + place.values[self.layer].to(v.dtype).unflatten(-1, (s.kv_heads, -1)).transpose(1, 2)
        if self.phase_scales is not None:
            q, k, v = self._with_phases(q, k, v, place)
        if cache is not None:
            k, v = cache.append(self.layer, k, v)
        scale = s.head_width**-0.5
        if time == k.shape[2]:
            out = operations.causal_attention(q, k, v, scale)
        else:  # one new token after those in the cache
            out = F.scaled_dot_product_attention(q, k, v, enable_gqa=s.heads != s.kv_heads, scale=scale)
            out = out.transpose(1, 2).flatten(2)
        if self.phase_scales is not None:
            out = out.unflatten(-1, (s.heads, -1))[..., : s.head_width].flatten(2)
        return F.linear(out, self.output.to(x.dtype))

    def _with_phases(self, q: Tensor, k: Tensor, v: Tensor, place: Place) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys followed by the features of the phases, values by zeros: (B, H or K, T, W + 2 n)."""
        assert place.phases is not None
        assert self.phase_scales is not None
        kv_heads, width = k.shape[1], self.shape.head_width
        features = place.phases.unsqueeze(1)  # (B, 1, T, n, 2)
        scaled = (features * (self.phase_scales * width**0.5)[:, None, :, None]).flatten(3)
        q = torch.cat((q, scaled.to(q.dtype)), dim=-1)
        k = torch.cat((k, features.flatten(3).to(k.dtype).expand(-1, kv_heads, -1, -1)), dim=-1)
        return q, k, F.pad(v, (0, q.shape[-1] - width))


class FeedForward(nn.Module):
    """down(silu(gate x) * up x) (SwiGLU)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_up = nn.Parameter(torch.empty(2 * shape.hidden, shape.width))
        self.down = nn.Parameter(torch.empty(shape.width, shape.hidden))

    def forward(self, x: Tensor) -> Tensor:
        inner = operations.swiglu(F.linear(x, self.gate_up.to(x.dtype)))
        return F.linear(inner, self.down.to(x.dtype))


class Block(nn.Module):
    """One layer: x + attention(norm x), then x + feed_forward(norm x)."""

    def __init__(self, shape: Shape, layer: int) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(shape.width, shape.norm_epsilon)
        self.attention = Attention(shape, layer)
        self.feed_forward_norm = RMSNorm(shape.width, shape.norm_epsilon)
        self.feed_forward = FeedForward(shape)

    def forward(
        self,
        x: Tensor,
        added: Tensor | None,
        dtype: torch.dtype,
        place: Place,
        cache: KVCache | None,
    ) -> tuple[Tensor, Tensor]:
        """(stream, what is to be added to it) of the layers before -> the same after this one."""
        if place.ngrams is not None:
            memory, shares = place.ngrams
            x = x + memory * shares[self.attention.layer]
        x, y = self.attention_norm(x, added, dtype)
        x, y = self.feed_forward_norm(x, self.attention(y, place, cache), dtype)
        return x, self.feed_forward(y)


class Transformer(nn.Module):
    """The whole network. Weights, norms and the residual stream are fp32; products run in `dtype`.

    shape: sizes.
    factor_bags: from `TokenCodes.bags`; None for a plain embedding (then shape.factors must be 0).
    angles: (V,) each token's angle in radians, for the phase "lattice" (see tokens/relations.py).
    dtype: torch.float32, or torch.bfloat16 where the processor has it.
    """

    cosine: Tensor
    sine: Tensor

    def __init__(
        self,
        shape: Shape,
        factor_bags: tuple[np.ndarray, np.ndarray] | None = None,
        dtype: torch.dtype = torch.float32,
        angles: np.ndarray | None = None,
    ) -> None:
        super().__init__()
        self.shape, self.dtype = shape, dtype
        self.embedding = FactorEmbedding(shape, factor_bags)
        tables = {
            str(layer): torch.empty(shape.vocabulary, shape.kv_heads * shape.head_width)
            for layer in shape.value_layers
        }
        self.values = nn.ParameterDict({layer: nn.Parameter(table) for layer, table in tables.items()})
        self.ngrams = NgramMemory(shape) if shape.ngram_rows else None
        self.phases = Phases(shape, None if angles is None else torch.from_numpy(angles))
        self.blocks = nn.ModuleList(Block(shape, layer) for layer in range(shape.layers))
        self.final_norm = RMSNorm(shape.width, shape.norm_epsilon)
        cosine, sine = rotary_table(shape)
        self.register_buffer("cosine", cosine, persistent=False)
        self.register_buffer("sine", sine, persistent=False)

    @torch.no_grad()
    def initialize(self, seed: int) -> None:
        """Draw starting weights: a pure function of the seed.

        Matrices that write into the residual stream start at zero, so every block starts as the identity
        (as in modded-nanogpt and nanochat); the others have variance 1 / inputs. The embedding is small
        enough that the tied head starts at a uniform prediction, loss = ln V.
        """
        generator = torch.Generator().manual_seed(seed)
        for name, weight in self.named_parameters():
            if name.endswith("gain"):
                weight.fill_(1.0)
            elif name.endswith(("output", "down", "factors", "phase_scales")) or name.startswith(
                ("values", "ngrams")
            ):
                weight.zero_()
            elif name.endswith("own"):
                weight.normal_(0.0, min(0.02, 3.0 / self.shape.width), generator=generator)
            else:
                weight.normal_(0.0, self.shape.width**-0.5, generator=generator)

    def for_products(self, device: torch.device | None = None) -> Transformer:
        """The same network to compute with: its own block matrices, in `dtype`, so that no product has to convert
        them; all else, storage included, is this network's. In fp32 everything is.

        device: where everything is its own.
        """

        def placed(x: Tensor, dtype: torch.dtype) -> Tensor:
            return x.to(dtype) if device is None else x.to(device, dtype, copy=True)

        own: dict[int, Tensor] = {
            id(p): nn.Parameter(placed(p.data, self.dtype if is_matrix(name) else p.dtype))
            for name, p in self.named_parameters()
        }
        return copy.deepcopy(self, own | {id(buffer): placed(buffer, buffer.dtype) for buffer in self.buffers()})

    def hidden(self, tokens: Tensor, table: Tensor, cache: KVCache | None = None, frugal: bool = False) -> Tensor:
        """(B, T) tokens -> (B, T, D) final vectors. `table`: the tokens' vectors.

        frugal: keep only what goes into each block for the backward pass and compute the rest again there (gradient
        checkpointing, Chen et al. 2016, arXiv 1604.06174): less memory, a third more time, the same bits.
        """
        place = self._place(tokens, cache)
        x, added = F.embedding(tokens, table), None
        for block in self.blocks:
            inputs = (x, added, self.dtype, place, cache)
            x, added = checkpoint(block, *inputs, use_reentrant=False) if frugal else block(*inputs)
        if cache is not None:
            cache.length += tokens.shape[1]
            cache.last_token = tokens[:, -1:]
        final: Tensor = self.final_norm(x, added, self.dtype)[1]
        return final

    def _place(self, tokens: Tensor, cache: KVCache | None) -> Place:
        start = cache.length if cache is not None else 0
        end = start + tokens.shape[1]
        values = {int(layer): operations.look_up(tokens, table) for layer, table in self.values.items()}
        ngrams = None
        if self.ngrams is not None:
            before = torch.zeros_like(tokens[:, :1]) if cache is None else cache.last_token
            ngrams = self.ngrams(tokens, before), self.ngrams.layer_gain
        return Place((self.cosine[start:end], self.sine[start:end]), self.phases(tokens, start), values, ngrams)

    def forward(self, tokens: Tensor, cache: KVCache | None = None, last_only: bool = False) -> Tensor:
        """(B, T) tokens -> (B, T, V) logits in fp32; with `last_only` (B, 1, V), those after the last token."""
        table, head = self.embedding.tables(self.dtype)
        x = self.hidden(tokens, table, cache)
        return F.linear(x[:, -1:] if last_only else x, head).float()

    def loss(self, tokens: Tensor, targets: Tensor, frugal: bool = False, term: Term | None = None) -> Tensor:
        """Sum of -ln p(target) over all targets that are not IGNORE, in nats, fp32; plus `term`, if there is one.

        tokens, targets: (B, T). frugal: see `hidden`.
        """
        table, head = self.embedding.tables(self.dtype)
        x = self.hidden(tokens, table, frugal=frugal).flatten(0, 1)
        if term is None:
            return operations.head_loss(x, head, targets.flatten())
        logits, wanted = F.linear(x, head).float(), targets.flatten()
        return F.cross_entropy(logits, wanted, ignore_index=IGNORE, reduction="sum") + term(logits, wanted)

    @torch.no_grad()
    def folded_embedding(self) -> Tensor:
        """(V, D): the factor sum as one plain table, which is all that another runtime needs."""
        return self.embedding.tables(self.dtype)[0].clone()


def build(shape: Shape, codes: TokenCodes, dtype: torch.dtype) -> Transformer:
    """The network of `shape` for tokens with these codes. Its weights are still to be filled in."""
    bags = codes.bags() if shape.factors else None
    return Transformer(shape, bags, dtype, relations.angles(codes) if "lattice" in shape.phases else None)


def is_matrix(name: str) -> bool:
    """Whether the parameter `name` is a matrix inside the blocks (not a table, not a gain)."""
    return name.endswith(("qkv", "output", "gate_up", "down"))
