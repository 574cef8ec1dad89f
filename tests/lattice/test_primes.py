"""Primes against sympy and against a sieve that anyone can check."""

import math

import numpy as np
import pytest
import sympy
from flint import fmpz
from timing import least

from crystalline.errors import UserError
from crystalline.lattice import primes

EDGES = [2**31 - 1, 2**32 - 5, 2**61 - 1, 2**63 - 25, 2**64 - 59, 2**64 + 13, 2**89 - 1]
# Composites that fool weak tests: Carmichael numbers, strong pseudoprimes to many bases, squares of primes.
LIARS = [561, 1729, 41041, 3215031751, 3825123056546413051, 318665857834031151167461, (2**31 - 1) ** 2]


def naive_primes(limit):
    return [n for n in range(2, limit) if all(n % d for d in range(2, int(n**0.5) + 1))]


def test_every_small_number_is_sorted_right():
    expected = set(naive_primes(5000))
    assert {n for n in range(-5, 5000) if primes.is_prime(n)} == expected


@pytest.mark.parametrize("limit", [0, 1, 2, 3, 4, 5, 9, 10, 25, 26, 120, 121, 122, 5000])
def test_sieve_equals_trial_division(limit):
    assert primes.primes_below(limit).tolist() == naive_primes(limit)


def test_sieve_counts_and_sum():
    found = primes.primes_below(10**6)
    assert len(found) == 78498
    assert int(found.sum()) == 37550402023
    assert set(found[2:] % 12) == {1, 5, 7, 11}


@pytest.mark.parametrize("n", EDGES)
def test_large_primes(n):
    assert primes.is_prime(n)
    assert primes.factor(n) == [(n, 1)]
    assert primes.factor(6 * n) == [(2, 1), (3, 1), (n, 1)]


@pytest.mark.parametrize("n", LIARS)
def test_pseudoprimes_are_found_out(n):
    assert not primes.is_prime(n)
    assert dict(primes.factor(n)) == sympy.factorint(n)


def test_factors_equal_sympy():
    for n in [*range(1, 2000), *range(2**64 - 8, 2**64 + 8), 2**200, 30**20]:
        powers = primes.factor(n)
        assert dict(powers) == sympy.factorint(n)
        assert powers == sorted(powers)
    assert all(type(part) is int for power in primes.factor(360) for part in power)


def test_first_primes():
    assert primes.first_primes(0) == []
    for count in range(1, 200):
        assert primes.first_primes(count) == list(sympy.primerange(sympy.prime(count) + 1))


@pytest.mark.parametrize("low", [*range(-3, 30), 10**6, 10**9, 10**12 - 50])
def test_a_window_equals_sympy(low):
    for length in (0, 1, 2, 3, 10, 31, 1000):
        assert primes.primes_between(low, low + length).tolist() == list(sympy.primerange(low, low + length))


def test_windows_longer_than_a_segment_fit_together():
    low, high = 10**7, 10**7 + 3 * 2**21 + 5
    found = primes.primes_between(low, high)
    expected = primes.primes_below(high)
    assert np.array_equal(found, expected[expected >= low])


def test_next_prime_equals_sympy():
    for n in [-7, 0, 1, 2, 3, 4, 7, 113, 1327, 143_998, 143_999, 2**32, 2**64]:
        assert primes.next_prime(n) == sympy.nextprime(n)


@pytest.mark.parametrize("residue", [1, 5, 7, 11])
def test_next_prime_of_a_class(residue):
    for n in [-5, 0, 1, 6, 13, 100, 143_999, 10**15]:
        prime = primes.next_prime(n, residue)
        assert prime > n
        assert prime % 12 == residue
        assert sympy.isprime(prime)
        assert not any(sympy.isprime(k) for k in range(max(n + 1, 2), prime) if k % 12 == residue)


def test_the_classes_2_and_3_have_one_prime_each():
    assert primes.next_prime(-9, 2) == 2
    assert primes.next_prime(2, 3) == 3


def test_twins_equal_sympy():
    twins = [p for p in sympy.primerange(2, 2000) if sympy.isprime(p + 2)]
    for n in range(-3, 1000):
        below, above = primes.twins_near(n)
        assert below == max(((p, p + 2) for p in twins if p + 2 <= n), default=None)
        assert above == min((p, p + 2) for p in twins if p >= n)


def test_primality_is_decided_or_said_to_be_undecided():
    mersenne = 2**1279 - 1  # 386 digits: too long for a proof here
    assert primes.primality(mersenne) is None
    assert primes.primality(mersenne + 2) is False
    assert primes.primality(2**521 - 1) is True
    assert primes.factor(2**1000 * 3) == [(2, 1000), (3, 1)]  # long, but easy


def test_residues_are_a_code():
    assert len({primes.residue_code(n) for n in range(0, 50_000)}) == 50_000
    assert primes.residue_code(144_000)[:4] == (0, 0, 0, 3)
    assert math.prod(primes.RESIDUE_PRIMES) == 614889782588491410


def test_the_facts_around_144000():
    assert primes.is_prime(143_999)
    assert primes.factor(144_001) == [(11, 1), (13, 1), (19, 1), (53, 1)]
    assert primes.prime_class(143_999) == 11
    assert primes.twins_near(144_000) == ((143_879, 143_881), (144_071, 144_073))


@pytest.mark.parametrize(
    "call",
    [
        lambda: primes.factor(0),
        lambda: primes.factor(-12),
        lambda: primes.first_primes(-1),
        lambda: primes.primes_below(10**12),
        lambda: primes.primes_between(0, 10**9),
        lambda: primes.primes_between(10**15, 10**15 + 5),
        lambda: primes.next_prime(3, 3),
        lambda: primes.next_prime(10, 4),
        lambda: primes.next_prime(10**301),
        lambda: primes.twins_near(10**101),
        lambda: primes.is_prime(2**1279 - 1),
        lambda: primes.primality(10**10_000 + 1),
        lambda: primes.factor(10**10_000),
        lambda: primes.factor(-(10**10_000)),
        lambda: primes.factor((2**107 - 1) * (2**127 - 1)),
    ],
)
def test_what_has_no_answer_is_said_clearly(call):
    with pytest.raises(UserError) as error:
        call()
    assert error.value.why
    assert error.value.fix


def test_single_numbers_take_as_long_as_in_the_library():
    n = 10**90 + 289  # a proof takes milliseconds; ours is that, and the reading of the number
    assert least(lambda: primes.is_prime(n)) < 5 * least(lambda: fmpz(n).is_prime())
    hard = (10**12 + 39) * (10**20 + 39)
    assert least(lambda: primes.factor(hard)) < 5 * least(lambda: fmpz(hard).factor())
