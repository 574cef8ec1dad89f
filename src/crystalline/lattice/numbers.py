"""Exact numbers, and real numbers with a guaranteed bound.

Integers are Python's, rationals `Fraction`. A real number is a *ball*: a midpoint and a radius, proved to hold the
number (Arb, now part of FLINT; Johansson 2017, "Arb: efficient arbitrary-precision midpoint-radius interval
arithmetic"). `x.mid()` and `x.rad()` are the two; arithmetic between balls is python-flint's.

python-flint works with 53 bits unless told otherwise. The functions here say how many bits of the result are
certain, and raise UserError where that cannot be reached, rather than to give fewer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction

from flint import arb, ctx, fmpq, fmpz

from crystalline.errors import UserError

Number = int | float | Fraction | arb  # a float stands for the binary fraction that it is, exactly
Compute = Callable[[], arb]  # computes with the working bits of the moment

BITS = 256  # of a result that are certain, unless more or fewer are asked for
MOST_BITS = 2**20  # about 315,000 decimal digits
MOST_DIGITS = 10**5  # of a number that is read
_TRIES = 8  # each with twice the working precision of the one before
_NUMBER = re.compile(r"([+-]?)(\d*)(?:\.(\d*))?(?:[eE]([+-]?\d+))?|([+-]?\d+)/(\d+)", re.ASCII)


# --- reading and showing exact numbers --------------------------------------------------------------------


def rational(text: str) -> Fraction:
    """The exact value of "12", "-0.25", "1e-3" or "22/7". Raises ValueError, which says why, for anything else."""
    found = _NUMBER.fullmatch(text)
    if len(text) > MOST_DIGITS:
        raise ValueError(f"a number of {len(text):,} signs is too long: at most {MOST_DIGITS:,}")
    if found is None or not any(found.group(k) for k in (2, 3, 5)):
        raise ValueError(f"{quote(text)} is no whole number, decimal number or fraction")
    sign, whole, part, exponent, numerator, denominator = found.groups()
    if numerator is not None:
        if not denominator.strip("0"):
            raise ValueError(f"{quote(text)} divides by zero")
        return Fraction(int(fmpz(numerator)), int(fmpz(denominator)))
    part = part or ""
    if exponent is not None and (len(exponent) > 9 or abs(int(exponent)) > MOST_DIGITS):
        raise ValueError(f"the exponent of {quote(text)} is too large: at most {MOST_DIGITS:,}")
    power = int(exponent or 0) - len(part)
    digits = int(fmpz(f"{whole}{part}")) * (-1 if sign == "-" else 1)
    return Fraction(digits * 10**power) if power >= 0 else Fraction(digits, 10**-power)


def integer(text: str) -> int:
    """The whole number in `text`, also with many digits: "144000", "144_000", "144,000". Raises ValueError."""
    plain = re.sub(r"(?<=\d)[,_](?=\d{3}(?!\d))", "", text.strip())
    if not re.fullmatch(r"[+-]?\d+", plain, re.ASCII):
        raise ValueError(f"{quote(text)} is no whole number")
    if len(plain) > MOST_DIGITS:
        raise ValueError(f"a number of {len(plain):,} digits is too long: at most {MOST_DIGITS:,}")
    return int(fmpz(plain.lstrip("+")))


def text(x: int | Fraction) -> str:
    """`x` in full, exactly: "144000", "-1/4". Python's own `str` refuses more than 4,300 digits."""
    return fmpq(x.numerator, x.denominator).str()


def decimal_digits(n: int) -> int:
    """How many decimal digits |n| has; zero has one."""
    return len(fmpz(abs(n)).str())


def brief(n: int, digits: int = 40) -> str:
    """`n` in decimal for a message: what is longer than so many digits with its middle left out."""
    text = fmpz(n).str()
    if len(text) <= digits:
        return text
    return f"{text[:12]}...{text[-12:]} ({decimal_digits(n):,} digits)"


def quote(text: str) -> str:
    """What somebody typed, for a message: in quotes, and not longer than a line."""
    return repr(text if len(text) <= 40 else f"{text[:30]}...")


# --- balls ------------------------------------------------------------------------------------------------


@contextmanager
def working_bits(bits: int) -> Iterator[None]:
    """Inside this block python-flint computes with so many bits."""
    before = ctx.prec
    ctx.prec = bits
    try:
        yield
    finally:
        ctx.prec = before


def ball(x: Number) -> arb:
    """The ball of `x`: of an integer or a float without radius, of a fraction as small as the working bits allow."""
    if isinstance(x, Fraction):
        return arb(fmpq(x.numerator, x.denominator))
    return arb(x)


def certified(compute: Compute, bits: int = BITS) -> arb:
    """What `compute` gives, with a radius of at most 2**-bits of its size; exact values have the radius 0.

    Calls it with more working precision until that is reached. Raises UserError when it is not: for a number that is
    zero without being exactly so, or where an argument is itself a ball with too large a radius.
    """
    if not 2 <= bits <= MOST_BITS:
        raise UserError(
            f"could not compute {brief(bits)} certain bits",
            f"that is not from 2 to {MOST_BITS:,}",
            f"ask for fewer; the default is {BITS}",
        )
    for attempt in range(_TRIES):
        with working_bits((bits + 32) << attempt):
            found = compute()
            if not found.is_finite() and attempt > 0:
                break  # outside of the function's domain, or astronomically large: more bits change nothing
            if found.is_exact() or found.rel_accuracy_bits() >= bits:
                return found
    raise UserError(
        f"could not certify {bits} bits of this number",
        f"what is known of it is {found.str(10)}" if found.is_finite() else "it is no real number, or far too large",
        "ask for fewer bits, or give the arguments exactly",
    )


def pi(bits: int = BITS) -> arb:
    """π = 3.14159..."""
    return certified(arb.pi, bits)


def e(bits: int = BITS) -> arb:
    """Euler's number e = 2.71828..."""
    return certified(arb.const_e, bits)


def phi(bits: int = BITS) -> arb:
    """The golden ratio φ = (1 + √5) / 2 = 1.61803..."""
    return certified(lambda: (1 + arb(5).sqrt()) / 2, bits)


def golden_angle(bits: int = BITS) -> arb:
    """2π / φ² = π (3 - √5) = 2.39996... radians, 137.5 degrees."""
    return certified(lambda: arb.pi() * (3 - arb(5).sqrt()), bits)


def exp(x: Number, bits: int = BITS) -> arb:
    """e to the power `x`."""
    return certified(lambda: ball(x).exp(), bits)


def log(x: Number, bits: int = BITS) -> arb:
    """The natural logarithm of x > 0."""
    return certified(lambda: ball(x).log(), bits)


def sin(x: Number, bits: int = BITS) -> arb:
    """The sine of `x` radians."""
    return certified(lambda: ball(x).sin(), bits)


def cos(x: Number, bits: int = BITS) -> arb:
    """The cosine of `x` radians."""
    return certified(lambda: ball(x).cos(), bits)


def sqrt(x: Number, bits: int = BITS) -> arb:
    """The square root of x >= 0."""
    return certified(lambda: ball(x).sqrt(), bits)


def power(x: Number, y: Number, bits: int = BITS) -> arb:
    """`x` to the power `y`; x > 0, or y a whole number."""
    return certified(lambda: ball(x) ** ball(y), bits)


def order(x: arb, y: arb) -> int | None:
    """-1, 0 or 1 as x < y, x = y or x > y; None when the balls do not decide it."""
    if x.is_exact() and y.is_exact() and x == y:
        return 0
    return -1 if x < y else 1 if x > y else None


def decimal(x: arb, places: int = 20) -> str:
    """`x` in decimal, correctly rounded: what is written differs from the number by at most half of its last digit.

    At most `places` digits after the point; fewer where the ball does not decide more. Raises UserError where it does
    not even decide the whole part.
    """
    if x.is_finite() and all(abs(int(part.man_exp()[1])) <= 4 * MOST_BITS for part in (x.mid(), x.rad())):
        middle, radius = fmpq(x.mid().fmpq()), fmpq(x.rad().fmpq())
        for known in range(places, -1, -1):
            scale, half = fmpz(10) ** known, fmpq(1, 2)
            low, high = (((end * scale) + half).floor() for end in (middle - radius, middle + radius))
            if low == high:
                text = abs(low).str().rjust(known + 1, "0")
                sign = "-" if low < 0 else ""
                return f"{sign}{text[:-known]}.{text[-known:]}" if known else f"{sign}{text}"
    raise UserError(
        "could not write this number in decimal",
        "what is known of it is " + x.str(10),
        "compute it with more bits",
    )
