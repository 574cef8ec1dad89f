"""The prime code of every token: root prime × operator primes, exact, and decoded by unique factorisation.

After the tokenizer, before the model, whose embedding of a token is its own vector plus the vectors of its
prime factors (`TokenCodes.bags`). So "run", " Running" and "runs" share what they learn about the root
"run".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import gcd, prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crystalline.errors import EXIT_DAMAGED, UserError
from crystalline.lattice.primes import factor, first_primes, is_prime
from crystalline.run_folder import read_json, write_json
from crystalline.tokens import morphology
from crystalline.tokens.morphology import Surface
from crystalline.tokens.tokenizer import Tokenizer

FILE = "codes.json"
FORMAT = 1
# Their order is the order of their primes: 2, 3, 5, 7 in every vocabulary, then the suffixes, then the marks.
OPERATORS = (
    ("space", " "),
    ("title", "Title"),
    ("upper", "UPPER"),
    ("underscore", "_"),
    *(("suffix", name) for name in morphology.OPERATORS),
)
LONGEST_TOLD = 30  # digits of a code whose factors an error tells
KINDS = ("root", "space", "title", "upper", "underscore", "suffix", "mark")

Operator = tuple[str, str]  # kind and name
Derivation = tuple[bytes, frozenset[Operator]]  # root as bytes, and what was done to it


@dataclass(frozen=True, order=True)
class Factor:
    """A prime and what it stands for.

    kind: one of KINDS. name: of a root its text, of a suffix the suffix, of a mark the sign before the word.
    """

    prime: int
    kind: str
    name: str


class TokenCodes:
    """The codes of a vocabulary of V tokens.

    factors: every prime in use. codes: the code of token 0, 1, ..., V-1: one root times different operators.
    Raises ValueError where that is not so, or two tokens have the same code.
    """

    def __init__(self, factors: Iterable[Factor], codes: Sequence[int], rows: Sequence[int] | None = None) -> None:
        self._rows = None if rows is None else list(rows)
        self._all_factors = tuple(sorted(factors))
        self._factor_of_prime = {factor_.prime: factor_ for factor_ in self._all_factors}
        if len(self._factor_of_prime) != len(self._all_factors):
            raise ValueError("two factors have the same prime")
        no_prime = next((prime for prime in self._factor_of_prime if not is_prime(prime)), None)
        if no_prime is not None:
            raise ValueError(f"{no_prime} stands for a factor and is no prime")
        self._operators = prod(factor_.prime for factor_ in self._all_factors if factor_.kind != "root")
        self._operators_of: dict[int, tuple[Factor, ...]] = {}  # their product -> what `_decode` has found
        self._codes = list(codes)
        self._factors = [self._decode(code) for code in self._codes]
        self._id_of_factors = {factors_: id_ for id_, factors_ in enumerate(self._factors)}
        if len(self._id_of_factors) != len(self._codes):
            raise ValueError("two tokens have the same code")

    @classmethod
    def build(cls, tokenizer: Tokenizer, counts: Sequence[int] | None = None) -> TokenCodes:
        """Find roots and operators of every token and give them primes.

        counts: how often each token id occurs in the training text. Frequent roots get small primes, and of
        two tokens that would get the same code the more frequent one keeps it. Without counts the order of
        the ids decides, which is the order in which the tokenizer found them.
        """
        size = tokenizer.vocabulary_size
        weights = list(counts) if counts is not None else list(range(size, 0, -1))
        if len(weights) != size:
            raise ValueError(f"{len(weights)} counts for {size} tokens")
        tokens = [tokenizer.token_bytes(id_) for id_ in range(size)]
        derivations = _derive(tokens, tokenizer.special_tokens, weights)
        used = {operator for _, operators in derivations for operator in operators}
        operators = [*OPERATORS, *sorted(used - set(OPERATORS))]
        total: Counter[bytes] = Counter()
        for id_, (root, _) in enumerate(derivations):
            total[root] += weights[id_]
        # Sorting is stable and a Counter keeps the order of insertion: equal totals stay in order of id.
        roots = sorted(total, key=lambda root: -total[root])
        primes = first_primes(len(operators) + len(roots))
        prime_of_operator = dict(zip(operators, primes, strict=False))
        prime_of_root = dict(zip(roots, primes[len(operators) :], strict=True))
        factors = [Factor(prime, kind, name) for (kind, name), prime in prime_of_operator.items()]
        factors += [Factor(prime, "root", _root_name(root)) for root, prime in prime_of_root.items()]
        codes = [prime_of_root[root] * prod(prime_of_operator[o] for o in done) for root, done in derivations]
        return cls(factors, codes)

    @classmethod
    def load(cls, folder: Path) -> TokenCodes:
        """The codes that `save` wrote to `folder`."""
        path = folder / FILE
        if not path.exists():
            raise UserError(
                f"could not find token codes in {folder}", f"there is no {FILE}", "make them: cllm run RUN"
            )
        stored = read_json(path)
        try:
            if stored["format"] != FORMAT:
                raise ValueError(f"format {stored['format']}, this version of cllm reads format {FORMAT}")
            factors = [
                Factor(int(prime), kind, str(name))
                for kind in KINDS
                for prime, name in stored["factors"][kind].items()
            ]
            return cls(factors, [int(code) for code in stored["codes"]], stored.get("rows"))
        except (AttributeError, KeyError, TypeError, ValueError, UserError) as error:
            raise UserError(
                f"could not read {path}",
                f"the file is damaged: {error}",
                "restore it from a backup, or delete it and give the same command again",
                EXIT_DAMAGED,
            ) from error

    def save(self, folder: Path) -> None:
        """Write `folder`/codes.json. Of each token only the code is kept: its factors follow from it."""
        folder.mkdir(parents=True, exist_ok=True)
        factors: dict[str, dict[int, str]] = {kind: {} for kind in KINDS}
        for factor_ in self._all_factors:
            factors[factor_.kind][factor_.prime] = factor_.name
        rows = {} if self._rows is None else {"rows": self._rows}
        write_json(folder / FILE, {"format": FORMAT, "factors": factors, "codes": self._codes, **rows})

    @property
    def vocabulary_size(self) -> int:
        """Number of tokens V."""
        return len(self._codes)

    @property
    def all_factors(self) -> tuple[Factor, ...]:
        """Every prime in use with its meaning, by size."""
        return self._all_factors

    def with_codes(self, changes: Mapping[int, int]) -> TokenCodes:
        """These codes with others for some tokens, token id -> code; roots that no token has any more are gone.

        Factor vectors stay what they are: `bags` counts them as here, though some may be used by fewer tokens then.
        Raises ValueError when a code is not one of these roots with its operators, or already another token's.
        """
        codes = [changes.get(id_, code) for id_, code in enumerate(self._codes)]
        changed = TokenCodes(self._all_factors, codes)
        roots = {changed.root(id_) for id_ in range(len(codes))}
        return TokenCodes((f for f in self._all_factors if f.kind != "root" or f in roots), codes, list(self._shared))

    def factors(self, token_id: int) -> tuple[Factor, ...]:
        """The root, then the operators by size of their primes."""
        return self._factors[self._known(token_id)]

    def code(self, token_id: int) -> int:
        """The product of the token's primes."""
        return self._codes[self._known(token_id)]

    def token_of(self, code: int) -> int:
        """The token whose code this is, found by factoring it. UserError when no token has it."""
        try:
            return self._id_of_factors[self._decode(code)]
        except (KeyError, ValueError) as error:
            # A number much longer than any code could take hours to factor, or be too long to print.
            told, words = "this number as its code", "it"
            if abs(code) < 10**LONGEST_TOLD:
                powers = factor(code) if code > 0 else []
                product = " × ".join(str(p) if e == 1 else f"{p}^{e}" for p, e in powers)
                told, words = f"the code {code}", f"{code} = {product}" if product else str(code)
            raise UserError(
                f"no token has {told}",
                f"{words} is no root of this vocabulary with its operators",
                "look up a code of this vocabulary: cllm lattice token TEXT",
            ) from error

    def root(self, token_id: int) -> Factor:
        """The factor that the token's family shares."""
        return self.factors(token_id)[0]

    def family(self, token_id: int) -> list[int]:
        """All tokens with the same root, this one among them; fewest operators first."""
        return list(self._families[self.root(token_id).prime])

    @property
    def factor_count(self) -> int:
        """How many factors are shared by two tokens or more (at first): the vectors that `bags` refers to."""
        return len(self._shared)

    def bags(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Which factor vectors each token's embedding adds up, as (indices, offsets).

        indices: (n,), values 0..factor_count-1, in the order of primes. offsets: (V + 1,); token t has
        indices[offsets[t]:offsets[t + 1]]. A factor of one token only would double that token's own vector,
        so it is left out; special tokens have none.
        """
        bags = [[self._shared[f.prime] for f in factors if f.prime in self._shared] for factors in self._factors]
        offsets = np.cumsum([0, *map(len, bags)], dtype=np.int64)
        return np.array([index for bag in bags for index in bag], dtype=np.int64), offsets

    @cached_property
    def _shared(self) -> dict[int, int]:
        """prime -> index of each factor that two tokens or more have, or had when vectors were made for them."""
        if self._rows is not None:
            return {prime: i for i, prime in enumerate(self._rows)}
        tokens = Counter(f.prime for factors in self._factors for f in factors)
        return {prime: i for i, prime in enumerate(sorted(p for p, n in tokens.items() if n > 1))}

    @cached_property
    def _families(self) -> dict[int, list[int]]:
        families: dict[int, list[int]] = {}
        for id_ in sorted(range(len(self._codes)), key=lambda id_: len(self._factors[id_])):
            families.setdefault(self._factors[id_][0].prime, []).append(id_)
        return families

    def _decode(self, code: int) -> tuple[Factor, ...]:
        """The factors of a code, the root first. ValueError when it is not one root × different operators.

        What the code has in common with the product of all operators is the product of its own; what is left is
        the root's prime. So one greatest common divisor factors it, and a square is never left over as a prime.
        """
        done = gcd(code, self._operators)
        root = self._factor_of_prime.get(code // done)
        if root is None or root.kind != "root":
            raise ValueError(f"{code} is no code")
        if done not in self._operators_of:
            self._operators_of[done] = tuple(f for f in self._all_factors if f.kind != "root" and done % f.prime == 0)
        return (root, *self._operators_of[done])

    def _known(self, token_id: int) -> int:
        if not 0 <= token_id < len(self._codes):
            raise UserError(
                f"there is no token {token_id}",
                f"the vocabulary has tokens 0 to {len(self._codes) - 1}",
                "give a number in this range",
            )
        return token_id


def _derive(tokens: Sequence[bytes], special: Mapping[int, str], weights: Sequence[int]) -> list[Derivation]:
    """Root and operators of each token; no two tokens get the same. special: id -> name of special tokens."""
    surfaces = [morphology.surface(token) for token in tokens]
    of_word = _derive_words(surfaces, weights)
    derivations: list[Derivation] = []
    for id_, (token, seen) in enumerate(zip(tokens, surfaces, strict=True)):
        if id_ in special:
            derivations.append((special[id_].encode(), frozenset()))
        elif seen is not None:
            root, suffixes = of_word[seen.word]
            derivations.append((root, suffixes | set(seen.operators)))
        elif token.startswith(b" ") and token[1:2].strip():
            derivations.append((token[1:], frozenset({("space", " ")})))
        else:
            derivations.append((token, frozenset()))
    # A plain token may be spelled like a special one.
    first: dict[Derivation, int] = {}
    for id_, derivation in enumerate(derivations):
        if first.setdefault(derivation, id_) != id_:
            derivations[id_] = (tokens[id_] + f" (token {id_})".encode(), frozenset())
    return derivations


def _derive_words(surfaces: Sequence[Surface | None], weights: Sequence[int]) -> dict[str, Derivation]:
    """Root and suffixes of each word.

    Where two words would get the same, the more frequent one does, and the other is a root itself.
    """
    words: Counter[str] = Counter()
    for seen, weight in zip(surfaces, weights, strict=True):
        if seen is not None:
            words[seen.word] += weight
    starts = {seen.word for seen in surfaces if seen is not None and seen.starts_word}
    pieces = words.keys() - starts
    recurring = morphology.recurring_suffixes(starts)
    derived: dict[str, Derivation] = {}
    taken: set[Derivation] = set()

    def derive(word: str) -> Derivation:
        if word not in derived:
            derivation: Derivation = (word.encode(), frozenset())
            found = morphology.parent(word, starts, pieces, recurring)
            if found is not None:
                root, suffixes = derive(found[0])
                attempt = (root, suffixes | {("suffix", found[1])})
                if attempt not in taken:
                    derivation = attempt
            derived[word] = derivation
            taken.add(derivation)
        return derived[word]

    for word, _ in words.most_common():
        derive(word)
    return derived


def _root_name(root: bytes) -> str:
    """A root as text: stray bytes as \\xNN, so that it can be shown and stored."""
    return root.decode("utf-8", errors="backslashreplace")
