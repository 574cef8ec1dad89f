"""Exact numbers and balls: bounds contain the truth (oracle: mpmath), digits shown are certain, doubts are told."""

from decimal import Decimal, localcontext
from fractions import Fraction

import mpmath
import pytest
from flint import arb, ctx
from hypothesis import given, settings
from hypothesis import strategies as st

from crystalline.errors import UserError
from crystalline.lattice import numbers

FRACTIONS = st.fractions(-50, 50, max_denominator=10**6)
ONE_ARGUMENT = ["exp", "log", "sin", "cos", "sqrt"]


def holds(ball, truth, bits):
    """The ball contains what mpmath computes with more bits, and is small enough."""
    middle, radius = (mpmath.mpf(str(part.fmpq()).split("/")[0]) / mpmath.mpf((str(part.fmpq()) + "/1").split("/")[1])
                      for part in (ball.mid(), ball.rad()))  # fmt: skip
    slack = abs(truth) * mpmath.mpf(2) ** (10 - mpmath.mp.prec)  # mpmath rounds too
    return abs(middle - truth) <= radius + slack and radius <= abs(truth) * mpmath.mpf(2) ** (1 - bits)


@pytest.fixture(autouse=True)
def _precise_oracle():
    with mpmath.workprec(700):
        yield


@pytest.mark.parametrize("bits", [2, 53, 256, 600])
def test_constants_equal_mpmath(bits):
    assert holds(numbers.pi(bits), mpmath.pi(), bits)
    assert holds(numbers.e(bits), mpmath.e(), bits)
    assert holds(numbers.phi(bits), mpmath.phi(), bits)
    assert holds(numbers.golden_angle(bits), mpmath.pi() * (3 - mpmath.sqrt(5)), bits)


@pytest.mark.parametrize("name", ONE_ARGUMENT)
@settings(max_examples=60, deadline=None)
@given(x=FRACTIONS)
def test_functions_equal_mpmath(name, x):
    if name in ("log", "sqrt"):
        x = abs(x) + Fraction(1, 1000)
    with mpmath.workprec(700):
        truth = getattr(mpmath, name)(mpmath.mpf(x.numerator) / x.denominator)
        found = getattr(numbers, name)(x)
        assert holds(found, truth, 256) if truth else found == 0


@settings(max_examples=60, deadline=None)
@given(x=st.fractions(Fraction(1, 1000), 1000, max_denominator=1000), y=FRACTIONS)
def test_power_equals_mpmath(x, y):
    with mpmath.workprec(700):
        truth = mpmath.power(mpmath.mpf(x.numerator) / x.denominator, mpmath.mpf(y.numerator) / y.denominator)
        assert holds(numbers.power(x, y), truth, 256)


def test_what_is_exact_has_no_radius():
    for ball in (numbers.sqrt(144), numbers.log(1), numbers.exp(0), numbers.power(-2, 3), numbers.ball(0.1)):
        assert ball.is_exact()
    assert numbers.ball(0.1) == arb(0.1)


def test_the_precision_of_the_library_is_left_as_it_was():
    before = ctx.prec
    numbers.pi(5000)
    with pytest.raises(UserError):
        numbers.log(-1)
    assert ctx.prec == before


@pytest.mark.parametrize(
    "call",
    [
        lambda: numbers.log(0),
        lambda: numbers.log(-1),
        lambda: numbers.sqrt(-1),
        lambda: numbers.power(-2, Fraction(1, 2)),
        lambda: numbers.sin(arb.pi()),  # zero, or very near it: the ball cannot tell
        lambda: numbers.exp(arb("1 +/- 1e-5")),
        lambda: numbers.pi(10**9),
        lambda: numbers.pi(0),
        lambda: numbers.decimal(arb.nan()),
        lambda: numbers.decimal(arb("0 +/- 10")),
        lambda: numbers.decimal(arb(2) ** (10**9)),
    ],
)
def test_what_cannot_be_certified_says_so(call):
    with pytest.raises(UserError) as error:
        call()
    assert error.value.why
    assert error.value.fix


def test_order_is_undecided_where_balls_overlap():
    assert numbers.order(numbers.pi(), numbers.ball(Fraction(355, 113))) == -1
    assert numbers.order(numbers.ball(3), numbers.e()) == 1
    assert numbers.order(numbers.ball(2), numbers.sqrt(4)) == 0
    assert numbers.order(numbers.pi(20), numbers.pi(256)) is None


@settings(max_examples=200, deadline=None)
@given(x=st.fractions(-(10**9), 10**9), places=st.integers(0, 40))
def test_decimals_are_correctly_rounded(x, places):
    shown = numbers.decimal(numbers.certified(lambda: numbers.ball(x), 300), places)
    known = len(shown.partition(".")[2])
    assert abs(Fraction(shown) - x) <= Fraction(1, 2 * 10**known)
    assert known == places or x.denominator % 2 == 0  # only a tie can leave a digit open


def test_decimals_show_no_digit_that_is_not_known():
    assert numbers.decimal(arb("2 +/- 1e-20"), 30).rstrip("0") == "2."
    assert len(numbers.decimal(arb("2 +/- 1e-20"), 30)) <= 2 + 20
    with localcontext() as context:
        context.prec = 90
        assert numbers.decimal(numbers.sqrt(2), 70) == str(Decimal(2).sqrt().quantize(Decimal(10) ** -70))
    assert numbers.decimal(numbers.golden_angle(), 6) == "2.399963"
    assert numbers.decimal(numbers.ball(-7), 0) == "-7"


@pytest.mark.parametrize(
    ("text", "value"),
    [("12", 12), ("-0.25", Fraction(-1, 4)), ("1e-3", Fraction(1, 1000)), ("22/7", Fraction(22, 7)),
     (".5", Fraction(1, 2)), ("5.", 5), ("+3E2", 300), ("-4/6", Fraction(-2, 3))],
)  # fmt: skip
def test_rational_reads_exactly(text, value):
    assert numbers.rational(text) == value


@pytest.mark.parametrize(
    "text",
    ["", ".", "-", "e5", "x", "1/0", "1/00", "--1", "²", "1,2", "nan", "inf", "0x10", "1e9999999999", "1e200000"],
)
def test_what_is_no_number_is_refused(text):
    with pytest.raises(ValueError, match=r"number|zero|exponent"):
        numbers.rational(text)


def test_long_integers():
    digits = "7" * 10_000
    n = numbers.integer(digits)
    assert numbers.decimal_digits(n) == 10_000
    assert numbers.text(n) == digits
    assert numbers.brief(n) == f"{'7' * 12}...{'7' * 12} (10,000 digits)"
    assert numbers.integer("144,000") == numbers.integer("144_000") == numbers.integer(" +144000 ") == 144_000
    for wrong in ("1,44", "12.0", "", "7" * (10**5 + 1)):
        with pytest.raises(ValueError, match="number"):
            numbers.integer(wrong)
