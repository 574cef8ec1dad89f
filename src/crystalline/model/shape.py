"""The shape of a network, and the one dial that sets it.

`Shape` is everything that must be equal for two sets of weights to fit each other. The named sizes keep the
proportions that small models train well at: width 64 to 80 times the depth, heads of 32 to 128, a gated
feed-forward part of 8/3 the width (Shazeer 2020, arXiv 2002.05202).
"""

from __future__ import annotations

from dataclasses import dataclass

from crystalline import settings as settings_module
from crystalline.errors import EXIT_USAGE, UserError, suggest
from crystalline.lattice.primes import next_prime

# name -> layers, width, heads, context, sequences in a position. The name is roughly the number of parameters
# with the vocabulary that a fitting amount of text would choose.
SIZES = {
    "1M": (3, 128, 4, 256, 4),
    "2M": (4, 192, 6, 256, 4),
    "4M": (4, 256, 4, 256, 4),
    "8M": (6, 320, 5, 256, 4),
    "16M": (8, 384, 6, 512, 4),
    "30M": (8, 512, 8, 512, 4),
    "60M": (10, 640, 10, 512, 4),
    "125M": (12, 768, 12, 1024, 4),
    "350M": (24, 1024, 16, 1024, 4),
    "1B": (24, 1792, 14, 2048, 2),
}


@dataclass(frozen=True)
class Shape:
    """Sizes of a decoder-only transformer of the Qwen3 family (arXiv 2505.09388), or the Llama family."""

    vocabulary: int
    layers: int
    width: int  # of the residual stream
    heads: int  # for queries
    kv_heads: int  # for keys and values; heads is a multiple of it
    head_width: int
    hidden: int  # inner width of the feed-forward part
    context: int  # most tokens seen at once
    rope_base: float = 10_000.0
    factor_scale: float = 1.0  # weight of the prime-factor vectors; 0 is a plain embedding
    factors: int = 0  # number of factor vectors
    norm_epsilon: float = 1e-6
    qk_norm: bool = True  # of queries and keys in every head; without it the form is Llama's
    # What follows has no place in the plain layout that other programs read; see `beyond_plain`.
    rotary: str = "standard"  # or "golden", "clock": the frequencies of the rotary positions
    phases: tuple[str, ...] = ()  # "lattice", "golden", "clock": learned biases of attention
    value_embeddings: bool = False
    ngram_rows: int = 0  # of the memory of pairs of tokens, both tables together

    def __post_init__(self) -> None:
        object.__setattr__(self, "phases", tuple(self.phases))  # JSON has lists

    @property
    def beyond_plain(self) -> list[str]:
        """The settings for which there is no exact plain (Qwen3 or Llama) form of this network; empty: it has one."""
        used = {
            "model.rotary": self.rotary != "standard",
            "model.phases": bool(self.phases),
            "model.value_embeddings": self.value_embeddings,
            "model.ngram_rows": bool(self.ngram_rows),
        }
        return [name for name, is_used in used.items() if is_used]

    @property
    def attention_width(self) -> int:
        """Of a head's queries and keys: its own, and a cosine and a sine for each phase."""
        return self.head_width + 2 * len(self.phases)

    @property
    def value_layers(self) -> range:
        """The layers with value embeddings: every other one, the last among them."""
        return range((self.layers - 1) % 2, self.layers, 2) if self.value_embeddings else range(0)

    @property
    def block_parameters(self) -> int:
        """Weights inside the blocks: the ones that cost time for each token."""
        attention = 2 * self.width * self.head_width * (self.heads + self.kv_heads)
        gains = 2 * self.width + (2 * self.head_width if self.qk_norm else 0)
        return self.layers * (attention + 3 * self.width * self.hidden + gains)

    @property
    def parameters(self) -> int:
        """All trained weights."""
        tables = (self.vocabulary + (self.factors if self.factor_scale else 0)) * self.width
        tables += len(self.value_layers) * self.vocabulary * self.kv_heads * self.head_width
        tables += sum(table_sizes(self.ngram_rows)) * self.width + (self.layers if self.ngram_rows else 0)
        phases = self.layers * self.heads * len(self.phases)
        return self.block_parameters + tables + phases + self.width

    @property
    def flops_per_token(self) -> int:
        """Floating-point operations to train on one token: 6 a weight in a product, and attention.

        The count of Kaplan et al. 2020 (arXiv 2001.08361), with the causal half of attention.
        """
        products = self.block_parameters + self.vocabulary * self.width
        return 6 * products + 6 * self.layers * self.context * self.heads * self.head_width


def shape_of(wanted: settings_module.Model, size: str, vocabulary: int, factors: int = 0) -> Shape:
    """The shape that `size` gives, with the settings that were made by hand in its place.

    Raises UserError (exit code 2) for an unknown size or numbers that do not fit each other.
    """
    if size not in SIZES:
        raise UserError(
            f"model.size = {size!r} cannot be used", "there is no such size", suggest(size, SIZES), EXIT_USAGE
        )
    layers, width, heads, context, _ = SIZES[size]
    width = wanted.width or width
    heads = wanted.heads or (max(1, width // 64) if wanted.width else heads)
    head_width = wanted.head_width or width // heads // 2 * 2
    kv_heads = wanted.kv_heads or heads
    if head_width % 2 or head_width < 2:
        raise UserError(
            f"heads of width {head_width} cannot be used",
            "rotary positions turn pairs of numbers, so it must be even",
            f"set model.head_width to {max(2, head_width // 2 * 2)}",
            EXIT_USAGE,
        )
    if heads % kv_heads:
        raise UserError(
            f"model.kv_heads = {kv_heads} cannot be used with {heads} heads",
            "each of them serves the same number of query heads",
            f"use one of: {', '.join(str(n) for n in range(1, heads + 1) if heads % n == 0)}",
            EXIT_USAGE,
        )
    return Shape(
        vocabulary=vocabulary,
        layers=wanted.layers or layers,
        width=width,
        heads=heads,
        kv_heads=kv_heads,
        head_width=head_width,
        hidden=wanted.hidden or _multiple(width * 8 / 3, 64 if width >= 256 else 16),
        context=wanted.context or context,
        rope_base=wanted.rope_base,
        norm_epsilon=wanted.norm_epsilon,
        qk_norm=wanted.qk_norm,
        factor_scale=wanted.factor_scale,
        factors=factors if wanted.factor_scale else 0,
        rotary=wanted.rotary,
        phases=tuple(wanted.phases),
        value_embeddings=wanted.value_embeddings,
        ngram_rows=wanted.ngram_rows,
    )


def table_sizes(rows: int) -> tuple[int, ...]:
    """The sizes of the two tables of the n-gram memory, about `rows` together: different primes.

    Two pairs of tokens share their vectors in both only if their hashes agree modulo the product of the primes
    (Chinese remainder theorem; Cheng et al. 2026, "Engram", arXiv 2601.07372).
    """
    if not rows:
        return ()
    first = next_prime(rows // 2)
    return first, next_prime(first)


def _multiple(value: float, of: int) -> int:
    return max(of, round(value / of) * of)
