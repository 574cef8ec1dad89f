"""Whether a written model is the model: its logits, its greedy tokens and its weights beside those of the original.

The text for it is drawn from the model itself, so that it needs no documents and is always the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crystalline.errors import UserError
from crystalline.export.gguf import BLOCK
from crystalline.model.decoder import Decoder, decoder
from crystalline.model.sampling import Sampling, choose
from crystalline.model.transformer import Transformer
from crystalline.tokens.tokenizer import Tokenizer

TEXT_TOKENS = 256  # drawn, at most
GREEDY_TOKENS = 64
PROMPT_TOKENS = 16
EQUAL = 1e-5  # of the largest logit: what lossless formats may differ by, from sums in another order
PERPLEXITY_EQUAL = 0.01  # by this share the perplexity of a rounded model may differ

Logits = Callable[[Sequence[int]], NDArray[np.float32]]  # (T,) tokens -> (T, V)


@dataclass(frozen=True)
class Probe:
    """What a model says: `logits` (T, V) after each token of `text`, and `greedy` tokens after `prompt`.

    hidden: (V,) True for special tokens, which are never chosen here.
    """

    text: list[int]
    logits: NDArray[np.float32]
    prompt: list[int]
    greedy: list[int]
    hidden: NDArray[np.bool_]


@dataclass(frozen=True)
class Comparison:
    """What another reader of the model says, beside a `Probe`.

    lossless: whether nothing was rounded. difference: largest of any logit, as a share of the largest logit.
    greedy: how many tokens were equal until one was not, of how many. perplexity: of the drawn text by the original
    and by the reader. agreement: share of its places with the same most likely token.
    """

    reader: str
    lossless: bool
    difference: float
    greedy: tuple[int, int]
    perplexity: tuple[float, float]
    agreement: float

    @property
    def equal(self) -> bool:
        """Whether this is what the format promises."""
        before, after = self.perplexity
        if self.lossless:
            return self.difference <= EQUAL and self.greedy[0] == self.greedy[1]
        return abs(after / before - 1) <= PERPLEXITY_EQUAL

    def __str__(self) -> str:
        same, of = self.greedy
        told = f"largest logit difference {self.difference:.1e} of the largest logit"
        if self.lossless:
            return f"{told} (at most {EQUAL:.0e}), {same} of {of} greedy tokens equal"
        before, after = self.perplexity
        return (
            f"{told}, the same most likely token in {self.agreement:.1%} of places, perplexity {after:.4g} for "
            f"{before:.4g} ({after / before - 1:+.3%}, at most {PERPLEXITY_EQUAL:.0%}), the first {same} of {of} "
            "greedy tokens equal"
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "reader": self.reader,
            "equal": self.equal,
            "lossless": self.lossless,
            "logit_difference": self.difference,
            "greedy_equal": self.greedy[0],
            "greedy": self.greedy[1],
            "perplexity": self.perplexity[1],
            "perplexity_of_the_original": self.perplexity[0],
            "agreement": self.agreement,
        }


def probe(model: Transformer, tokenizer: Tokenizer) -> Probe:
    """Draw a text from a network as generation does, in fp32, and let it go on greedily from its beginning."""
    own, context = decoder(model, precision="fp32"), model.shape.context
    hidden = np.array([tokenizer.is_special(id_) for id_ in range(tokenizer.vocabulary_size)])
    generator = Sampling(temperature=1.0).generator()
    text = [tokenizer.bos]
    text += _continued(own, text, min(context, TEXT_TOKENS) - 1, hidden, Sampling(temperature=1.0), generator)
    prompt = text[: min(PROMPT_TOKENS, context // 2)]
    wanted = min(GREEDY_TOKENS, context - len(prompt))
    greedy = _continued(own, prompt, wanted, hidden, Sampling(temperature=0), generator)
    own.cut(0, 0)
    return Probe(text, own.read(0, text, every=True), prompt, greedy, hidden)


def _continued(
    own: Decoder, tokens: Sequence[int], count: int, hidden: NDArray[np.bool_], how: Sampling,
    generator: np.random.Generator,
) -> list[int]:  # fmt: skip
    """`count` tokens after these."""
    own.cut(0, 0)
    logits, done = own.read(0, tokens), list[int]()
    while len(done) < count:
        logits[hidden] = -np.inf
        done.append(choose(logits, (), how, generator))
        if len(done) < count:
            logits = own.step([0], done[-1:])[0]
    return done


def logits_of(model: Transformer) -> Logits:
    """What a network says as generation reads it, in fp32."""
    own = decoder(model, precision="fp32")

    def logits(tokens: Sequence[int]) -> NDArray[np.float32]:
        own.cut(0, 0)
        return own.read(0, tokens, every=True)

    return logits


def compare(said: Probe, logits: Logits, reader: str, lossless: bool) -> Comparison:
    """What another reader says. Its greedy tokens are seen at once: as long as they are the same it would go on so.

    A token counts as the same where the reader has it no further behind its best than `EQUAL`: a tie.
    """
    theirs = logits(said.text)
    largest = float(np.abs(said.logits).max()) or 1.0
    chosen = np.where(said.hidden, -np.inf, logits([*said.prompt, *said.greedy]))[len(said.prompt) - 1 : -1]
    best = chosen.max(axis=1) - chosen[np.arange(len(said.greedy)), said.greedy]
    same = int(np.argmin([*(best <= EQUAL * largest), False]))  # up to the first that is another
    difference = float(np.abs(theirs - said.logits).max()) / largest
    return Comparison(
        reader,
        lossless,
        difference if math.isfinite(difference) else math.inf,
        (same, len(said.greedy)),
        (perplexity(said.logits, said.text), perplexity(theirs, said.text)),
        float(np.mean(theirs.argmax(axis=1) == said.logits.argmax(axis=1))),
    )


def perplexity(logits: NDArray[np.float32], text: Sequence[int]) -> float:
    """exp of the mean -ln p of each token but the first. logits: (T, V)."""
    wide = logits[:-1].astype(np.float64)
    top = wide.max(axis=1, keepdims=True)
    normal = np.log(np.exp(wide - top).sum(axis=1)) + top[:, 0]
    return float(np.exp(np.mean(normal - wide[np.arange(len(text) - 1), list(text[1:])])))


def check_rounding(
    written: Mapping[str, NDArray[np.float32]], original: Mapping[str, NDArray[np.float32]], precision: str
) -> None:
    """See that every weight was written, and is the original's but for the rounding of its precision.

    Raises UserError that names the tensor.
    """
    if written.keys() != original.keys():
        raise _failed(f"it has other tensors: {', '.join(sorted(written.keys() ^ original.keys())[:4])}")
    for name, tensor in original.items():
        there = written[name]
        if there.shape != tensor.shape or not bool((np.abs(there - tensor) <= _most(tensor, precision)).all()):
            raise _failed(f"the weights {name} are not those of the model")


def _most(numbers: NDArray[np.float32], precision: str) -> NDArray[np.float32] | float:
    """How far rounding may move each number."""
    if precision == "fp32":
        return 0.0
    sizes = np.abs(numbers)
    if precision == "bf16":
        eight_bits: NDArray[np.float32] = sizes * np.float32(2**-8)
        return eight_bits
    half: NDArray[np.float32] = sizes * np.float32(2**-11) + np.float32(2**-25)  # fp16
    if precision == "f16" or numbers.ndim == 1 or numbers.shape[-1] % BLOCK:
        return half
    # Half a step of the scale, which itself is rounded to fp16.
    largest = sizes.reshape(-1, BLOCK).max(axis=1).repeat(BLOCK).reshape(sizes.shape)
    step: NDArray[np.float32] = largest * np.float32(0.5 / 127 + 2**-11) + np.float32(2**-18)
    return step


def require(comparison: Comparison) -> None:
    """Raise UserError where a comparison is not what the format promises."""
    if not comparison.equal:
        raise _failed(f"read by {comparison.reader} it is not the model: {comparison}")


def _failed(why: str) -> UserError:
    return UserError(
        "the check of what was written has failed, so it was not kept",
        why,
        "try --precision fp32; if it fails too, this is a bug: please report it with the line above",
    )
