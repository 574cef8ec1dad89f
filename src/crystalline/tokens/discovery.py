"""Better roots from what a model has learned: which tokens stand nearer to another family than to their own.

Reads the learned vectors of all tokens and their codes; proposes other codes; changes nothing by itself. Whether a
proposal is good is for held-out text to say: geometry also knows that "king" is near "queen", which are no family.

How it measures. A vector is taken to be its root's part plus a part for each operator (as in the factor embedding;
Reif, Kaplan & Schwartz 2025, "Vocab Diet", arXiv 2510.17001, find the same in models that were never told). The parts
of the operators are estimated as the mean difference between tokens of one family with and without them, and taken
off; what is left of a family's tokens gives the family's centre. The fit of a token to a family is the cosine c of
the two, less its mean over all families, measured by its spread s there: √(-ln(1 - c²)) / s, which is c / s as long
as c is small. In random vectors that is as improbable as the same number of standard deviations of a normal
distribution (the share of a D-dimensional sphere beyond c falls as (1 - c²)^(D/2)), so the largest of n fits is about
√(2 ln n): a proposal must be above that for all pairs of a token and a family.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crystalline.tokens.codes import Factor, TokenCodes
from crystalline.tokens.tokenizer import SPECIAL_TOKENS

Matrix = NDArray[np.float32]
ROWS = 1024  # tokens whose fit to all families is in memory at a time
ROUNDS = 10  # of estimating operators and roots in turn
LEAST_USES = 5  # tokens of families that an operator must be seen on before it has a vector


@dataclass(frozen=True)
class Proposal:
    """A token that should have another root.

    code: its new one. root: the new root; suffixes: what it would be as a form of it, besides its visible operators.
    fit: to the new family, in standard deviations; own_fit: to its present one without itself, None if it is alone.
    count: how often the token occurs.
    """

    token_id: int
    code: int
    root: Factor
    suffixes: tuple[Factor, ...]
    old_root: Factor
    fit: float
    own_fit: float | None
    count: int

    @property
    def reason(self) -> str:
        """Why, in words and numbers."""
        own = "it is alone now" if self.own_fit is None else f"{self.own_fit:.1f} to the one it has"
        return f'fits the family of "{self.root.name}" by {self.fit:.1f} σ; {own}'


def propose(
    vectors: NDArray[np.floating[Any]],
    codes: TokenCodes,
    counts: Sequence[int] | NDArray[np.integer[Any]] | None = None,
    *,
    at_most: int = 100,
    least_count: int = 20,
    least_fit: float | None = None,
    least_gain: float = 3.0,
    least_fit_alone: float | None = None,
) -> list[Proposal]:
    """Changes of roots that the learned geometry asks for, best first; together they leave all codes different.

    vectors: (V, D) of the model's folded embedding. counts: (V,) how often each token occurs; what is rarer than
    `least_count` has no vector worth believing, and neither moves nor counts for a family. Without counts all do.
    least_fit: standard deviations by which a token must fit its new family; default: what no pair in random vectors
    is expected to reach, and a half more. least_gain: by how much more than it fits its own. least_fit_alone: instead
    of both for a token that is a family by itself; the same default.
    A token keeps its visible operators (space, case, signs); of suffixes it gets none or the one that fits best.
    Raises ValueError when vectors or counts are not those of V tokens, or are not finite.
    """
    size = codes.vocabulary_size
    seen = np.full(size, least_count) if counts is None else np.asarray(counts)
    if len(vectors) != size or len(seen) != size:
        raise ValueError(f"{len(vectors)} vectors and {len(seen)} counts for {size} tokens")
    if not np.isfinite(vectors).all():
        raise ValueError("the vectors have values that are no numbers")
    geometry = _Geometry(np.asarray(vectors, dtype=np.float32), codes, np.flatnonzero(seen >= least_count))
    improbable = 0.5 + math.sqrt(2 * math.log(max(2, len(geometry.tokens) * len(geometry.roots))))
    least_fit = improbable if least_fit is None else least_fit
    least_fit_alone = improbable if least_fit_alone is None else least_fit_alone
    chance = math.sqrt(2 * math.log(max(2, len(geometry.roots))))  # what some family fits anything by
    wishes = [
        (fit - (chance if own is None else own), token, place, fit, own)
        for token, place, fit, own in geometry.best_families()
        if (fit >= least_fit_alone if own is None else fit >= least_fit and fit - own >= least_gain)
    ]
    wishes.sort(key=lambda wish: (-wish[0], wish[1]))
    wishes = wishes[:at_most]
    while True:
        # Who moves leaves a code free, so that two tokens can change places; who finds none free stays.
        movers = {token for _, token, _, _, _ in wishes}
        taken = {codes.code(id_) for id_ in range(size) if id_ not in movers}
        found: list[Proposal] = []
        for _, token, place, fit, own in wishes:
            form = geometry.best_form(token, place, taken)
            if form is not None:
                code, suffixes = form
                taken.add(code)
                root, old_root = geometry.roots[place], codes.root(token)
                found.append(Proposal(token, code, root, suffixes, old_root, fit, own, int(seen[token])))
        if len(found) == len(wishes):
            return found
        placed = {proposal.token_id for proposal in found}
        wishes = [wish for wish in wishes if wish[1] in placed]


def without_clashes(codes: TokenCodes, proposals: Iterable[Proposal]) -> list[Proposal]:
    """Those of some proposals that can be applied without the others: whose code is not held by one that stays."""
    kept = list(proposals)
    while True:
        movers = {proposal.token_id for proposal in kept}
        held = {codes.code(token) for token in range(codes.vocabulary_size) if token not in movers}
        free = [proposal for proposal in kept if proposal.code not in held]
        if len(free) == len(kept):
            return kept
        kept = free


def apply(codes: TokenCodes, proposals: Iterable[Proposal]) -> TokenCodes:
    """The codes with these proposals: exact and all different as before. ValueError when two of them clash."""
    return codes.with_codes({proposal.token_id: proposal.code for proposal in proposals})


class _Geometry:
    """The believed tokens' vectors taken apart into roots and operators.

    tokens: (N,) ids. roots: (R,) those of families with two believed tokens or more.
    """

    def __init__(self, vectors: Matrix, codes: TokenCodes, believed: NDArray[np.int64]) -> None:
        # Special tokens are of no family.
        self.tokens: NDArray[np.int64] = believed[believed >= len(SPECIAL_TOKENS)]
        self._codes = codes
        self._line = {token: line for line, token in enumerate(self.tokens.tolist())}
        members: dict[int, list[int]] = {}
        for line, token in enumerate(self.tokens.tolist()):
            members.setdefault(codes.root(token).prime, []).append(line)
        families = {prime: lines for prime, lines in sorted(members.items()) if len(lines) > 1}
        self.roots: list[Factor] = [codes.root(int(self.tokens[lines[0]])) for lines in families.values()]
        self._place = np.full(len(self.tokens), -1)  # of each token's family among the roots
        for place, lines in enumerate(families.values()):
            self._place[lines] = place
        self._sizes = np.array([len(lines) for lines in families.values()], dtype=np.int64)
        self._vectors = vectors[self.tokens] - vectors[self.tokens].mean(axis=0) if len(self.tokens) else vectors[:0]
        self._parts: dict[int, Matrix] = {}  # prime of an operator -> its vector
        self._centres: Matrix = np.zeros((len(self.roots), vectors.shape[1]), dtype=np.float32)
        # What is left of the vectors without their operators.
        self._bare = self._vectors.copy()
        self._estimate()

    def _estimate(self) -> None:
        """Fit vector = root + operators by turns (backfitting, Friedman & Stuetzle 1981)."""
        lines_of: dict[int, list[int]] = {}
        for line, token in enumerate(self.tokens.tolist()):
            for factor in self._codes.factors(token)[1:]:
                lines_of.setdefault(factor.prime, []).append(line)
        for _ in range(ROUNDS):
            self._centre()
            for prime, lines in sorted(lines_of.items()):
                inside = [line for line in lines if self._place[line] >= 0]
                if len(inside) < LEAST_USES:
                    continue
                # How much more of this operator is in what is left.
                change = (self._bare[inside] - self._centres[self._place[inside]]).mean(axis=0)
                self._parts[prime] = self._parts.get(prime, 0) + change
                self._bare[lines] -= change
        self._centre()

    def _centre(self) -> None:
        inside = np.flatnonzero(self._place >= 0)
        self._centres[:] = 0
        np.add.at(self._centres, self._place[inside], self._bare[inside])
        self._centres /= np.maximum(self._sizes, 1)[:, None]

    def best_families(self) -> Iterator[tuple[int, int, float, float | None]]:
        """For each token (id, place of the root it fits best besides its own, fit, fit to its own)."""
        if len(self.roots) < 3:
            return  # no spread to measure by
        directions = _unit(self._centres)
        for start in range(0, len(self.tokens), ROWS):
            block = slice(start, start + ROWS)
            bare, place = self._bare[block], self._place[block]
            cosines = _unit(bare) @ directions.T
            mean, spread = cosines.mean(axis=1), np.maximum(cosines.std(axis=1), 1e-12)
            inside = np.flatnonzero(place >= 0)
            home = place[inside]
            others = self._centres[home] * self._sizes[home, None] - bare[inside]  # the direction is all that counts
            own = np.full(len(bare), np.nan)
            own[inside] = (_unit(bare[inside]) * _unit(others)).sum(axis=1)
            cosines[inside, home] = -np.inf
            best = cosines.argmax(axis=1)
            fits = _deviations(cosines[np.arange(len(bare)), best] - mean, spread)
            own = _deviations(own - mean, spread)
            for token, at, fit, home_fit in zip(self.tokens[block].tolist(), best, fits, own, strict=True):
                yield token, int(at), float(fit), None if math.isnan(home_fit) else float(home_fit)

    def best_form(self, token: int, place: int, taken: set[int]) -> tuple[int, tuple[Factor, ...]] | None:
        """(code, suffixes) of the form of a root that is nearest to the token and whose code is free."""
        factors = self._codes.factors(token)[1:]
        visible = [factor for factor in factors if factor.kind != "suffix"]
        bare = self._vectors[self._line[token]] - sum(self._parts.get(factor.prime, 0) for factor in visible)
        known = [f for f in self._codes.all_factors if f.kind == "suffix" and f.prime in self._parts]
        forms: list[tuple[Factor, ...]] = [(), *((suffix,) for suffix in known)]
        code = self.roots[place].prime * math.prod(factor.prime for factor in visible)
        free = []
        for form in forms:
            of_form = code * math.prod(factor.prime for factor in form)
            if of_form not in taken:
                there = self._centres[place] + sum(self._parts[factor.prime] for factor in form)
                free.append((float(np.linalg.norm(bare - there)), of_form, form))
        return min(free)[1:] if free else None


def _unit(vectors: Matrix) -> Matrix:
    """Each row divided by its length; zero stays zero."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-30), dtype=np.float32)


def _deviations(cosines: NDArray[np.floating[Any]], spread: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Cosines less their mean as standard deviations; see the module's text."""
    inside = np.clip(cosines.astype(np.float64), -1 + 1e-9, 1 - 1e-9)
    return np.asarray(np.sign(inside) * np.sqrt(-np.log1p(-(inside**2))) / spread)
