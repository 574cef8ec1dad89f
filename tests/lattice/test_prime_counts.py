"""Counts of primes against sympy, against published values, and against sieves."""

import numpy as np
import pytest
import sympy

from crystalline.errors import UserError
from crystalline.lattice import prime_counts
from crystalline.lattice.primes import primes_below, primes_between


def test_small_counts():
    expected = np.searchsorted(primes_below(3000), np.arange(3000), side="right")
    assert [prime_counts.prime_count(x) for x in range(3000)] == expected.tolist()
    assert prime_counts.prime_count(-5) == 0


# OEIS A006880
@pytest.mark.parametrize(("power", "count"), [(6, 78498), (7, 664579), (8, 5761455), (9, 50847534), (10, 455052511)])
def test_published_counts(power, count):
    assert prime_counts.prime_count(10**power) == count


def test_counts_at_odd_places_equal_sympy():
    for x in [999_999, 1_000_003, 123_456_789, 2**27, 10**8 + 7, 9973**2 - 1, 9973**2]:
        assert prime_counts.prime_count(x) == sympy.primepi(x)


def test_classes_up_to_144000():
    counts = prime_counts.counts_by_class(0, 144_001)
    assert counts == np.bincount(np.array(list(sympy.primerange(144_001))) % 12, minlength=12).tolist()
    assert {k: n for k, n in enumerate(counts) if n} == {1: 3306, 2: 1, 3: 1, 5: 3348, 7: 3337, 11: 3350}
    assert sum(counts) == 13_343


def test_classes_by_characters_equal_classes_by_sieve():
    for high in [1, 2, 3, 4, 5, 12, 13, 100, 9999, 2_000_003]:
        assert prime_counts._classes_up_to(high - 1) == prime_counts.counts_by_class(0, high)
    low, high = 3 * 10**7, 5 * 10**7  # long enough for the characters
    sieved = np.bincount(primes_between(low, high) % 12, minlength=12)
    assert prime_counts.counts_by_class(low, high) == sieved.tolist()
    assert prime_counts.counts_by_class(10, 3) == [0] * 12


def test_partition_divides_a_range():
    for low, high in [(0, 144), (7, 1000), (-30, 30), (5, 5)]:
        parts = prime_counts.partition(low, high)
        assert sorted(n for part in parts for n in part) == list(range(low, high))
        assert all(n % 12 == k for k, part in enumerate(parts) for n in part)


def test_nth_prime():
    listed = primes_below(200_000).tolist()
    for n in [*range(1, 60), 1000, 9999, 17_984]:
        assert prime_counts.nth_prime(n) == listed[n - 1]
    assert prime_counts.nth_prime(13_343) == 143_999
    assert prime_counts.nth_prime(10**7) == 179_424_673
    assert prime_counts.nth_prime(10**8) == 2_038_074_743


@pytest.mark.slow
def test_the_last_prime_that_is_counted():
    assert prime_counts.prime_count(10**12) == prime_counts.LAST_RANK == 37_607_912_018  # OEIS A006880
    assert prime_counts.nth_prime(prime_counts.LAST_RANK) == 999_999_999_989


@pytest.mark.parametrize(
    "call",
    [
        lambda: prime_counts.nth_prime(0),
        lambda: prime_counts.nth_prime(10**11),
        lambda: prime_counts.prime_count(10**13),
        lambda: prime_counts.counts_by_class(0, 10**13),
        lambda: prime_counts.prime_count(10**10_000),
    ],
)
def test_what_would_take_too_long_is_refused(call):
    with pytest.raises(UserError) as error:
        call()
    assert error.value.fix
