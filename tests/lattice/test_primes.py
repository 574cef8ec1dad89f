"""Primes against sympy and against a sieve that anyone can check."""

import pytest
import sympy

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


def test_nth_and_first():
    assert primes.first_primes(0) == []
    for count in range(1, 200):
        assert primes.first_primes(count) == list(sympy.primerange(sympy.prime(count) + 1))
    assert primes.nth_prime(1) == 2
    assert primes.nth_prime(78498) == 999983
    assert primes.nth_prime(100_000) == 1299709


def test_next_prime_equals_sympy():
    for n in [-7, 0, 1, 2, 3, 4, 7, 113, 1327, 143_998, 143_999, 2**32, 2**64]:
        assert primes.next_prime(n) == sympy.nextprime(n)


def test_the_facts_around_144000():
    assert primes.is_prime(143_999)
    assert primes.factor(144_001) == [(11, 1), (13, 1), (19, 1), (53, 1)]
    assert primes.prime_class(143_999) == 11


@pytest.mark.parametrize(
    "call",
    [
        lambda: primes.factor(0),
        lambda: primes.factor(-12),
        lambda: primes.nth_prime(0),
        lambda: primes.first_primes(-1),
        lambda: primes.primes_below(10**12),
    ],
)
def test_what_has_no_answer_is_said_clearly(call):
    with pytest.raises(UserError) as error:
        call()
    assert error.value.why
    assert error.value.fix
