"""How many primes there are, without listing them: in all, by class mod 12, and the n-th.

The count up to x comes from the numbers up to x by striking out the multiples of 2, 3, 5, ... from the *counts* at
all the values of x // i (Legendre's idea; in this form by "Lucy_Hedgehog", Project Euler 10, 2010). It takes x^(3/4)
operations, here in numpy, and is exact. A sum of χ(n) for a completely multiplicative χ instead of 1 goes the same
way; with the four characters mod 12 it gives the count of each class.
"""

from __future__ import annotations

import math

import numpy as np
from flint import arb
from numpy.typing import NDArray

from crystalline.errors import UserError
from crystalline.lattice.numbers import brief, working_bits
from crystalline.lattice.primes import WINDOW_LENGTH, WINDOW_LIMIT, primes_below, primes_between

COUNT_LIMIT = 10**12  # takes seconds, and 32 MB
LAST_RANK = 37_607_912_018  # how many primes there are up to COUNT_LIMIT
_STEP = 2**20  # numbers looked through at once around a guess

# Rows: functions χ with χ(ab) = χ(a) χ(b); columns: n mod 12.
_ONE = np.ones((1, 12), dtype=np.int64)
_CHARACTERS = np.zeros((4, 12), dtype=np.int64)
_CLASSES = (1, 5, 7, 11)
_CHARACTERS[:, _CLASSES] = [[1, 1, 1, 1], [1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]]


def prime_count(x: int) -> int:
    """π(x): how many primes p <= x there are."""
    return int(_sums_over_primes(x, _ONE)[0]) if x >= 2 else 0


def counts_by_class(low: int, high: int) -> list[int]:
    """How many primes low <= p < high are in each of the classes 0 to 11 mod 12."""
    high = max(low, high)
    if high <= WINDOW_LIMIT and high - max(low, 0) <= WINDOW_LENGTH // 10:
        return [int(count) for count in np.bincount(primes_between(low, high) % 12, minlength=12)]
    return [a - b for a, b in zip(_classes_up_to(high - 1), _classes_up_to(low - 1), strict=True)]


def partition(low: int, high: int) -> list[range]:
    """The numbers low <= n < high divided over the 12 classes: number k of the list holds those with n % 12 == k."""
    return [range(low + (k - low) % 12, high, 12) for k in range(12)]


def nth_prime(n: int) -> int:
    """The n-th prime, counted from 1: nth_prime(1) == 2."""
    if not 1 <= n <= LAST_RANK:
        raise UserError(
            f"could not find prime number {brief(n)}",
            f"primes are counted from 1, and found up to number {LAST_RANK:,}, the last below 10^12",
            "give a number between",
        )
    guess = _about(n)
    count = prime_count(guess)
    while count >= n:  # it is `guess` or below
        window = primes_between(guess - _STEP, guess + 1)
        if count - len(window) < n:
            return int(window[n - (count - len(window)) - 1])
        guess, count = guess - _STEP - 1, count - len(window)
    while True:
        window = primes_between(guess + 1, guess + 1 + _STEP)
        if count + len(window) >= n:
            return int(window[n - count - 1])
        guess, count = guess + _STEP, count + len(window)


def _about(n: int) -> int:
    """Near the n-th prime: where li(x) - li(√x) / 2, the start of Riemann's formula for π(x), is n."""
    x = float(max(n, 6))
    x *= math.log(x) + math.log(math.log(x))  # above the n-th prime from n = 6 on
    with working_bits(64):
        for _ in range(8):
            x -= (float(arb(x).li()) - float(arb(x).sqrt().li()) / 2 - n) * math.log(x)
            x = min(max(x, 2.0), float(COUNT_LIMIT))
    return int(x)


def _classes_up_to(x: int) -> list[int]:
    counts = [0] * 12
    if x >= 2:
        counts[2], counts[3] = 1, int(x >= 3)  # the only primes that share a factor with 12
        by_character = _sums_over_primes(x, _CHARACTERS)
        for residue in _CLASSES:
            counts[residue] = int((_CHARACTERS[:, residue] * by_character).sum()) // 4
    return counts


def _sums_over_primes(x: int, characters: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each row χ of `characters` (rows, 12) the sum of χ(p) over the primes p <= x; x >= 2."""
    if x > COUNT_LIMIT:
        raise UserError(
            f"could not count the primes up to {brief(x)}",
            f"the count goes up to {COUNT_LIMIT:,}",
            "give a smaller number",
        )
    root = math.isqrt(x)
    places = np.arange(root + 1)
    quotients = x // np.maximum(places, 1)
    # small[:, v] is the sum over 2 <= n <= v, large[:, i] the one over 2 <= n <= x // i, both over those n that no
    # prime so far divides, or that are prime.
    small, large = (_sums_over_all(v, characters) for v in (places, quotients))
    p: int
    for p in primes_below(root + 1).tolist():
        sign: NDArray[np.int64] = characters[:, p % 12, None]
        before = small[:, p - 1, None].copy()
        last = min(root, x // (p * p))
        near = min(last, root // p)  # up to here x // (ip) is among the large ones
        change = np.empty((len(characters), last), dtype=np.int64)
        change[:, :near] = large[:, p : near * p + 1 : p]
        change[:, near:] = small[:, quotients[near + 1 : last + 1] // p]
        large[:, 1 : last + 1] -= sign * (change - before)
        if p * p <= root:
            small[:, p * p :] -= sign * (small[:, places[p * p :] // p] - before)
    return large[:, 1]


def _sums_over_all(v: NDArray[np.int64], characters: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each row χ the sums of χ(n) over 2 <= n <= v, shape (rows, len(v))."""
    whole = characters.sum(axis=1)[:, None]
    part = np.cumsum(characters, axis=1)[:, v % 12]  # of the classes 0 ... v % 12
    # n = 0 stands for a whole class 0 of the first dozen and is taken out with n = 1.
    return np.asarray(v // 12 * whole + part - (characters[:, 0] + characters[:, 1])[:, None])
