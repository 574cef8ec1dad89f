"""Prime numbers, exactly: test, factorisation, sieve, n-th prime, residue class mod 12.

The first room of the lattice: token codes are products of the primes made here. Single numbers of any size
are FLINT's work (proven primality, complete factorisation), ranges are a sieve of Eratosthenes in numpy.
"""

from __future__ import annotations

import math

import numpy as np
from flint import fmpz
from numpy.typing import NDArray

from crystalline.errors import UserError

SIEVE_LIMIT = 10**9  # a sieve up to n takes n/2 bytes of memory


def is_prime(n: int) -> bool:
    """Is `n` prime? A proof, for every size. Numbers below 2 are not."""
    return n > 1 and bool(fmpz(n).is_prime())


def factor(n: int) -> list[tuple[int, int]]:
    """The factorisation of `n` as (prime, exponent), primes ascending; factor(1) == [].

    Raises UserError for n < 1: zero has no factorisation, and a sign is no prime.
    """
    if n < 1:
        raise UserError(f"could not factor {n}", "only whole numbers from 1 up have prime factors", "give 1 or more")
    return sorted((int(prime), int(exponent)) for prime, exponent in fmpz(n).factor())


def primes_below(limit: int) -> NDArray[np.int64]:
    """All primes p < limit, ascending. Sieve of Eratosthenes over the odd numbers."""
    if limit > SIEVE_LIMIT:
        raise UserError(
            f"could not list the primes below {limit}",
            f"the sieve holds numbers up to {SIEVE_LIMIT}",
            "ask for a smaller range",
        )
    if limit <= 2:
        return np.empty(0, dtype=np.int64)
    # odd[i] stands for 2i + 1; place 0 (the number 1) is used for the prime 2 below.
    odd = np.ones(limit // 2, dtype=np.bool_)
    for i in range(1, (math.isqrt(limit - 1) + 1) // 2):
        if odd[i]:
            odd[2 * i * (i + 1) :: 2 * i + 1] = False
    primes = 2 * np.flatnonzero(odd) + 1
    primes[0] = 2
    return primes.astype(np.int64, copy=False)


def first_primes(count: int) -> list[int]:
    """The first `count` primes: first_primes(4) == [2, 3, 5, 7]."""
    if count < 0:
        raise UserError(f"could not list {count} primes", "a count cannot be negative", "give 0 or more")
    # Rosser & Schoenfeld 1962: p_n < n (ln n + ln ln n) for n >= 6; 13 covers the five below.
    n = max(count, 6)
    limit = max(13, math.ceil(n * (math.log(n) + math.log(math.log(n))))) + 1
    return [int(prime) for prime in primes_below(limit)[:count]]


def nth_prime(n: int) -> int:
    """The n-th prime, counted from 1: nth_prime(1) == 2."""
    if n < 1:
        raise UserError(f"could not find prime number {n}", "primes are counted from 1", "give 1 or more")
    return first_primes(n)[-1]


def next_prime(n: int) -> int:
    """The smallest prime greater than `n`."""
    if n < 2:
        return 2
    candidate = n + 1 | 1
    while not is_prime(candidate):
        candidate += 2
    return candidate


def prime_class(n: int) -> int:
    """n mod 12, from 0 to 11. Every prime above 3 is in class 1, 5, 7 or 11."""
    return n % 12
