"""`cllm lattice factor, primes, spiral, clock` as a person and as a script meet them."""

import json
import re
import xml.etree.ElementTree as ElementTree

import pytest

from crystalline.errors import EXIT_FAILED, EXIT_OK, EXIT_USAGE

HARD = str((2**107 - 1) * (2**127 - 1))
LONG = "9" * 10_000


@pytest.mark.parametrize(
    ("words", "out"),
    [
        (["factor", "144001"], "144001 = 11 × 13 × 19 × 53\n"),
        (["factor", "144,000"], "144000 = 2^7 × 3^2 × 5^3\n"),
        (["primes", "test", "143999"], "143999 is prime, in class 11 of 12\n"),
        (["primes", "test", "144001"], "144001 is not prime\n"),
        (["primes", "test", "-7"], "-7 is not prime\n"),
        (["primes", "count", "144000"], "13,343 primes up to 144,000\n"),
        (["primes", "count", "144000", "--by-class"],
         "13,343 primes up to 144,000, by class mod 12\n  class  1  3,306\n  class  2  1\n  class  3  1\n"
         "  class  5  3,348\n  class  7  3,337\n  class 11  3,350\n"),
        (["primes", "nth", "13343"], "prime number 13,343 is 143999\n"),
        (["primes", "next", "144000"], "144013\n"),
        (["primes", "next", "144000", "--class", "1"], "144013\n"),
        (["primes", "next", "144000", "--class", "7"], "144031\n"),
        (["primes", "twins", "144000"], "below  143879 and 143881\nabove  144071 and 144073\n"),
        (["primes", "twins", "2"], "below  none\nabove  3 and 5\n"),
        (["primes", "list", "144000", "144040"], "144013\n144031\n144037\n"),
        (["primes", "list", "1", "14", "--by-class"], "class  1  13\nclass  2  2\nclass  3  3\nclass  5  5\n"
         "class  7  7\nclass 11  11\n"),
        (["primes", "list", "24", "28"], ""),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_answers(cllm, words, out):
    assert cllm("lattice", *words) == (EXIT_OK, out, "")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["factor", "72"], {"number": 72, "factors": [{"prime": 2, "exponent": 3}, {"prime": 3, "exponent": 2}],
                            "class_mod_12": 0}),
        (["primes", "test", str(2**1279 - 1)], {"number": 2**1279 - 1, "prime": None, "class_mod_12": 7}),
        (["primes", "count", "100", "--by-class"],
         {"up_to": 100, "count": 25, "by_class_mod_12": [0, 5, 1, 1, 0, 6, 0, 6, 0, 0, 0, 6]}),
        (["primes", "twins", "5"], {"near": 5, "below": [3, 5], "above": [5, 7]}),
        (["primes", "list", "10", "20"], {"low": 10, "high": 20, "primes": [11, 13, 17, 19]}),
        (["primes", "next", "7"], {"after": 7, "prime": 11, "class_mod_12": 11}),
        (["primes", "nth", "6"], {"n": 6, "prime": 13}),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)  # fmt: skip
def test_json(cllm, words, told):
    code, out, _ = cllm("lattice", *words, "--json")
    assert code == EXIT_OK
    assert json.loads(out) == told


def test_spiral(cllm):
    _, out, _ = cllm("lattice", "spiral", "144000", "--places", "6")
    assert out.splitlines() == [
        "144000",
        "  Ulam         (190, 169), layer 190",
        "  Golden       (298.934410, 233.748195)",
        "  Logarithmic  ([1.47290e+3009 +/- 2.14e+3003], [2.19397e+3009 +/- 2.11e+3003])",
        "  Archimedean  (6387.147131, 9514.021522)",
        "  Hilbert      (295, 359) on the curve of order 9",
    ]
    assert cllm("lattice", "spiral", "--at", "190", "169", "--places", "6")[1] == out
    _, out, _ = cllm("lattice", "spiral", "--at", "-180", "-190", "--json")
    assert json.loads(out)["ulam"] == [-180, -190]
    _, out, _ = cllm("lattice", "spiral", "--at", "-180", "190", "--fold", "144")
    assert "  Torus        (108, 46) modulo 144\n" in out
    _, out, _ = cllm("lattice", "spiral", str(10**60), "--json")
    assert json.loads(out)["logarithmic"] is None  # its radius has more digits than there are atoms


def test_clock(cllm):
    _, out, _ = cllm("lattice", "clock", "144")
    assert out.splitlines() == [
        "144 is on place 12 of 100 in ring 3",
        "  radius    1",
        "  angle     46.8°",
        "  hands     0 of 12, 24 of 60, 44 of 100",
        "  group     0 of 12, at 0°, quadrant 0",
        "  residues  0 0 4 4 1 1 8 11 6 28 20 33 21 15 3  (modulo 2, 3, 5, ... 47)",
    ]
    assert cllm("lattice", "clock", "--at", "3", "12")[1] == out
    told = json.loads(cllm("lattice", "clock", "144000", "--json")[1])
    assert told["hands"] == {"12": 0, "60": 0, "100": 0}
    assert (told["ring"], told["place"], told["radius"]) == (147, 768, "37")


@pytest.mark.parametrize(
    "words",
    [
        ["spiral", "144000"],
        ["spiral", "99", "--points", "400"],
        ["spiral", "144", "--kind", "golden"],
        ["spiral", "144", "--kind", "logarithmic"],
        ["spiral", "144", "--kind", "archimedean", "--points", "300"],
        ["spiral", "144", "--kind", "hilbert"],
        ["clock", "144"],
        ["clock", "144000"],
    ],
    ids=" ".join,
)
def test_plot(cllm, tmp_path, words):
    code, out, _ = cllm("lattice", *words, "--plot", tmp_path / "picture.svg")
    assert code == EXIT_OK
    assert out.endswith(f"wrote {tmp_path / 'picture.svg'}\n")
    assert ElementTree.parse(tmp_path / "picture.svg").getroot().tag.endswith("svg")
    code, out, _ = cllm("lattice", *words, "--plot", tmp_path / "again.svg", "--json")
    assert json.loads(out)["number"] == int(words[1])
    assert (tmp_path / "again.svg").read_bytes() == (tmp_path / "picture.svg").read_bytes()


@pytest.mark.parametrize(
    ("words", "expected", "hint"),
    [
        (["factor", HARD], EXIT_FAILED, "60 digits"),
        (["factor", "0"], EXIT_FAILED, "from 1 up"),
        (["factor", LONG], EXIT_USAGE, "10,000"),
        (["factor", "1.5"], EXIT_USAGE, "whole number"),
        (["primes"], EXIT_USAGE, "test, count, nth"),
        (["primes", "cuont", "5"], EXIT_USAGE, "invalid choice"),
        (["primes", "test", LONG], EXIT_USAGE, "10,000"),
        (["primes", "count", "10000000000000"], EXIT_FAILED, "1,000,000,000,000"),
        (["primes", "nth", "0"], EXIT_FAILED, "counted from 1"),
        (["primes", "nth", "99999999999999"], EXIT_FAILED, "37,607,912,018"),
        (["primes", "next", "100", "--class", "4"], EXIT_FAILED, "1, 5, 7 and 11"),
        (["primes", "next", "100", "--class", "13"], EXIT_FAILED, "0 to 11"),
        (["primes", "list", "0", "1000000000"], EXIT_FAILED, "100,000,000"),
        (["spiral"], EXIT_USAGE, "neither"),
        (["spiral", "5", "--at", "1", "1"], EXIT_USAGE, "both"),
        (["spiral", "0"], EXIT_FAILED, "begins with 1"),
        (["spiral", "-5"], EXIT_FAILED, "begins with 1"),
        (["spiral", "5", "--kind", "square"], EXIT_USAGE, "invalid choice"),
        (["spiral", "1000000", "--kind", "golden", "--plot", "x.svg"], EXIT_FAILED, "100,000"),
        (["spiral", "5", "--points", "1000000", "--plot", "x.svg"], EXIT_FAILED, "100,000"),
        (["spiral", "1" + "0" * 60, "--plot", "x.svg"], EXIT_FAILED, "10^40"),
        (["clock", "-1"], EXIT_FAILED, "begin with 0"),
        (["clock", "--at", "0", "12"], EXIT_FAILED, "0 to 11"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_mistakes_are_told_with_their_fix(cllm, tmp_path, monkeypatch, words, expected, hint):
    monkeypatch.chdir(tmp_path)
    code, _, err = cllm("lattice", *words)
    assert code == expected
    assert "fix: " in err
    assert hint in err
    assert len(err) < 1000
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "action", ["factor", "primes", "spiral", "clock", "reduce", "closest", "shortest", "spheres"]
)
def test_every_action_is_explained_with_examples_that_are_understood(cllm, action, tmp_path, monkeypatch):
    code, out, _ = cllm("lattice", action, "--help")
    assert code == EXIT_OK
    assert out.startswith(f"usage: cllm lattice {action}")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "basis.txt").write_text("1 2 0\n0 3 1\n4 0 0\n")
    (tmp_path / "plane.txt").write_text("201 37\n1648 297\n")
    examples = [
        re.split(r"  +", line.split("  cllm ")[1])[0]
        for line in out.splitlines()
        if line.startswith("  cllm lattice ")
    ]
    assert examples
    for example in examples:
        code, _, err = cllm(*example.split())
        assert (code, err) == (EXIT_OK, ""), example
