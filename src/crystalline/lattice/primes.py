"""Prime numbers, exactly: test, factorisation, sieve, neighbours, residue class mod 12.

The first room of the lattice: token codes are products of the primes made here. Single numbers are FLINT's work
(proven primality, complete factorisation), ranges are a sieve of Eratosthenes in numpy. Counts that need no list are
in `prime_counts`. Every call ends within seconds and in bounded memory; what would not raises UserError.
"""

from __future__ import annotations

import math

import numpy as np
from flint import fmpz
from numpy.typing import NDArray

from crystalline.errors import UserError
from crystalline.lattice.numbers import brief, decimal_digits

SIEVE_LIMIT = 10**9  # a sieve up to n takes n/2 bytes of memory
WINDOW_LIMIT = 10**14  # of the numbers in a window; its sieve needs the primes up to the square root
WINDOW_LENGTH = 10**8  # of a window: its primes take at most 50 MB
_SEGMENT = 2**21  # numbers sieved at once: their odd half fits the processor's cache
PROOF_DIGITS = 300  # FLINT's proof (APR-CL, or Pocklington and Morrison) takes a second or two at this length
TEST_DIGITS = 4_000  # a test takes a second or so at this length
FACTOR_DIGITS = 60  # of a product of two large primes: factoring takes seconds, and doubles every few digits
TWIN_DIGITS = 100  # the next twins are some (ln n)² away
RESIDUE_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47)


# --- one number -------------------------------------------------------------------------------------------


def is_prime(n: int) -> bool:
    """Is `n` prime? A proof. Numbers below 2 are not. Raises UserError for a probable prime of too many digits."""
    verdict = primality(n)
    if verdict is None:
        raise UserError(
            f"could not prove that {brief(n)} is prime",
            f"a proof takes too long above {PROOF_DIGITS} digits; it passes tests that no composite is known to pass",
            "a program for elliptic-curve proofs, such as CM or Primo, can do it",
        )
    return verdict


def primality(n: int) -> bool | None:
    """Whether `n` is prime: True and False are proved, None is undecided.

    Undecided is a number of more than 300 digits that passes the Baillie-PSW test; no composite is known to pass it.
    Raises UserError above 4,000 digits, where even that takes long.
    """
    if n < 2:
        return False
    number = fmpz(n)
    digits = decimal_digits(n)
    if digits > TEST_DIGITS:
        raise UserError(
            f"could not test whether {brief(n)} is prime",
            f"numbers of up to {TEST_DIGITS:,} digits are tested",
            "give a smaller number",
        )
    if not number.is_probable_prime():
        return False
    return bool(number.is_prime()) if digits <= PROOF_DIGITS else None


def factor(n: int) -> list[tuple[int, int]]:
    """The factorisation of `n` as (prime, exponent), primes ascending; factor(1) == [].

    Raises UserError for n < 1: zero has no factorisation, and a sign is no prime; and for a number with more than one
    large prime factor and too many digits. What is left when small factors are divided out counts.
    """
    if n < 1:
        raise UserError(
            f"could not factor {brief(n)}", "only whole numbers from 1 up have prime factors", "give 1 or more"
        )
    if decimal_digits(n) > TEST_DIGITS:
        raise UserError(
            f"could not factor {brief(n)}", f"it has more than {TEST_DIGITS:,} digits", "give a smaller number"
        )
    found: dict[int, int] = {}
    for part, exponent in fmpz(n).factor_smooth():  # divides out what is small; the last part may be composite
        whole = int(part)
        if decimal_digits(whole) <= FACTOR_DIGITS or not part.is_probable_prime():
            if decimal_digits(whole) > FACTOR_DIGITS:
                raise UserError(
                    f"could not factor {brief(n)}",
                    f"a part of {decimal_digits(whole)} digits has large factors only, which can take hours; "
                    f"up to {FACTOR_DIGITS} digits are tried",
                    "give a smaller number",
                )
            powers = [(int(prime), int(power)) for prime, power in part.factor()]
        else:
            is_prime(whole)  # proves it, or says that it cannot
            powers = [(whole, 1)]
        for prime, power in powers:
            found[prime] = found.get(prime, 0) + power * int(exponent)
    return sorted(found.items())


def next_prime(n: int, residue: int | None = None) -> int:
    """The smallest prime greater than `n`; with `residue`, the smallest of that class mod 12.

    Raises UserError for a class that has no prime above n: there are infinitely many in 1, 5, 7 and 11 (Dirichlet),
    one each in 2 and 3, and none elsewhere.
    """
    if residue is not None and not 0 <= residue < 12:
        raise UserError(f"there is no class {brief(residue)} of 12", "the classes are 0 to 11", "use 1, 5, 7 or 11")
    if residue is not None and math.gcd(residue, 12) != 1:
        if residue in (2, 3) and n < residue:
            return residue
        raise UserError(
            f"there is no prime above {brief(n)} in class {residue} of 12",
            "primes above 3 lie in the classes 1, 5, 7 and 11 only",
            "use one of those classes",
        )
    _refuse_long(n, PROOF_DIGITS, "find the next prime after")
    if n < 2 and residue is None:
        return 2
    if residue is None:
        candidate, step = n + 1 | 1, 2
    else:
        above = max(n, 1) + 1
        candidate, step = above + (residue - above) % 12, 12
    while not is_prime(candidate):
        candidate += step
    return candidate


def twins_near(n: int) -> tuple[tuple[int, int] | None, tuple[int, int]]:
    """The last pair of twin primes (p, p + 2) with p + 2 <= n, None if there is none, and the first with p >= n."""
    _refuse_long(n, TWIN_DIGITS, "find the twin primes near")
    below = None
    if n >= 7:
        low = n - 2 - (n - 2 - 5) % 6  # beyond (3, 5) the smaller one is in class 5 of 6
        while not _are_twins(low):
            low -= 6
        below = (low, low + 2)
    elif n >= 5:
        below = (3, 5)
    if n <= 3:
        return below, (3, 5)
    high = n + (5 - n) % 6
    while not _are_twins(high):
        high += 6
    return below, (high, high + 2)


def _are_twins(p: int) -> bool:
    return bool(fmpz(p).is_probable_prime() and fmpz(p + 2).is_probable_prime()) and is_prime(p) and is_prime(p + 2)


def _refuse_long(n: int, digits: int, doing: str) -> None:
    if decimal_digits(n) > digits:
        raise UserError(f"could not {doing} {brief(n)}", f"it has more than {digits} digits", "give a smaller number")


def prime_class(n: int) -> int:
    """n mod 12, from 0 to 11. Every prime above 3 is in class 1, 5, 7 or 11."""
    return n % 12


def residue_code(n: int) -> tuple[int, ...]:
    """n modulo each of the first 15 primes: different for any two numbers from 0 to their product, 6.1e17."""
    return tuple(n % prime for prime in RESIDUE_PRIMES)


# --- a range ----------------------------------------------------------------------------------------------


def primes_below(limit: int) -> NDArray[np.int64]:
    """All primes p < limit, ascending. Sieve of Eratosthenes over the odd numbers."""
    if limit > SIEVE_LIMIT:
        raise UserError(
            f"could not list the primes below {brief(limit)}",
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


def primes_between(low: int, high: int) -> NDArray[np.int64]:
    """All primes low <= p < high, ascending: a sieve of the window alone, wherever up to 10^14 it is."""
    if high > WINDOW_LIMIT or high - max(low, 0) > WINDOW_LENGTH:
        raise UserError(
            f"could not list the primes from {brief(low)} to {brief(high)}",
            f"a range may have {WINDOW_LENGTH:,} numbers, and end at 10^14",
            "ask for a shorter range",
        )
    low = max(low, 2)
    if high <= low:
        return np.empty(0, dtype=np.int64)
    base = primes_below(math.isqrt(high - 1) + 1)
    starts = range(low, high, _SEGMENT)
    return np.concatenate([_segment(start, min(start + _SEGMENT, high), base) for start in starts])


def _segment(low: int, high: int, base: NDArray[np.int64]) -> NDArray[np.int64]:
    """The primes 2 <= low <= p < high, given those up to the square root of high."""
    first = low | 1  # odd[i] stands for first + 2i
    odd = np.ones(max(0, (high - first + 1) // 2), dtype=np.bool_)
    divisors = base[1 : np.searchsorted(base, math.isqrt(high - 1), side="right")]
    # For each the place of its first odd multiple that is in the window and no smaller than its square.
    multiple = np.maximum(divisors * divisors, -(-first // divisors) * divisors)
    place = (multiple + divisors * (multiple % 2 == 0) - first) // 2
    few = int(np.searchsorted(divisors, len(odd)))
    for start, step in zip(place[:few].tolist(), divisors[:few].tolist(), strict=True):
        odd[start::step] = False
    once = place[few:]  # so large that it strikes at most one place
    odd[once[once < len(odd)]] = False
    found = first + 2 * np.flatnonzero(odd)
    return np.concatenate([[2], found]) if low == 2 else found


def first_primes(count: int) -> list[int]:
    """The first `count` primes: first_primes(4) == [2, 3, 5, 7]."""
    if count < 0:
        raise UserError(f"could not list {brief(count)} primes", "a count cannot be negative", "give 0 or more")
    # Rosser & Schoenfeld 1962: p_n < n (ln n + ln ln n) for n >= 6; 13 covers the five below.
    n = min(max(count, 6), SIEVE_LIMIT)
    limit = max(13, math.ceil(n * (math.log(n) + math.log(math.log(n))))) + 1
    return [int(prime) for prime in primes_below(limit)[:count]]
