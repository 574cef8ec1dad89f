"""Pictures of numbers and lattices: well-formed, self-contained, and with what they say in them."""

import re
import xml.etree.ElementTree as ElementTree
from fractions import Fraction

import pytest

from crystalline.errors import UserError
from crystalline.lattice import packings
from crystalline.lattice.enumeration import closest_vector
from crystalline.lattice.primes import primes_below
from crystalline.lattice.reduction import Basis, lll
from crystalline.pipeline import lattice_pictures

SVG = "{http://www.w3.org/2000/svg}"


def dots(picture, name):
    """The places of the dots of a class."""
    found = re.findall(rf'<path class="{name}"[^>]* d="([^"]*h0)"/>', picture.split("<g>")[0])
    return [tuple(map(float, dot)) for path in found for dot in re.findall(r"M(\S+) (\S+?)h0", path)]


def everything():
    basis = Basis([[201, 37], [1648, 297]])
    target = [Fraction(111, 2), Fraction(-70)]
    yield lattice_pictures.spiral("ulam", 144_000)
    yield lattice_pictures.spiral("ulam", 1, 1)
    yield lattice_pictures.spiral("ulam", 10**30 + 57, 400)
    for kind in ("golden", "logarithmic", "archimedean", "hilbert"):
        yield lattice_pictures.spiral(kind, 100)
        yield lattice_pictures.spiral(kind, 1, 2)
    yield lattice_pictures.clock_face(144)
    yield lattice_pictures.clock_face(10**1000)
    yield lattice_pictures.plane(basis, lll(basis).basis)
    yield lattice_pictures.plane(basis, lll(basis).basis, target, closest_vector(basis, target).vector)
    yield lattice_pictures.plane(Basis([[10**400, 0], [0, 1]]), Basis([[0, 1], [10**400, 0]]))
    yield lattice_pictures.twelve()
    yield from (lattice_pictures.projection(packings.packing(name)) for name in ("a2", "d4", "e8"))


def test_each_is_one_document_for_light_and_dark():
    for picture in everything():
        root = ElementTree.fromstring(picture)
        assert root.tag == f"{SVG}svg"
        assert root.find(f"{SVG}title").text
        assert root.find(f"{SVG}desc").text
        assert "prefers-color-scheme:dark" in picture
        assert not re.search(r"(href|src|url\()=?[\"']?(?!#|http://www.w3.org)\w", picture)
        assert "nan" not in picture.replace("nance", "")
        assert "inf" not in picture
        assert len(picture) < 400_000


def test_the_primes_of_the_spiral_are_all_there():
    picture = lattice_pictures.spiral("ulam", 5, 51**2)
    primes = primes_below(51**2 + 1)
    for k in (1, 5, 7, 11):
        assert len(dots(picture, f"k{k}")) == (primes % 12 == k).sum()
    assert len(dots(picture, "mark")) == 2  # 2 and 3
    step = (lattice_pictures.SIDE - 2 * lattice_pictures.MARGIN) / 51
    middle = lattice_pictures.SIDE / 2
    assert (round(middle + step, 1), round(middle, 1)) in dots(picture, "mark")  # 2 is to the right of 1


def test_around_a_large_number_the_primes_are_those_there():
    n = 10**12 + 39
    picture = lattice_pictures.spiral("ulam", n, 900)
    assert f"around {n}" in picture
    assert sum(len(dots(picture, f"k{k}")) for k in (1, 5, 7, 11)) > 10
    assert f">{n}</text>" in picture


def test_small_spirals_have_their_numbers_written_out():
    picture = lattice_pictures.spiral("ulam", 7, 81)
    assert {int(number) for number in re.findall(r">(\d+)</text>", picture)} >= set(range(1, 82))


def test_golden_points_primes_and_others():
    picture = lattice_pictures.spiral("golden", 10, 500)
    assert len(dots(picture, "dot")) == 500 - len(primes_below(500))


def test_e8_has_240_points_and_6720_edges():
    picture = lattice_pictures.projection(packings.packing("e8"))
    assert sum(len(dots(picture, f"k{k}")) for k in (1, 5, 7, 11)) == 240
    assert len(re.findall(r"M\S+ \S+?L", picture)) == 6720


def test_twelve_and_twelve_around_one():
    assert lattice_pictures.twelve().count('fill="url(#ball)"') == 26


@pytest.mark.parametrize(
    "call",
    [
        lambda: lattice_pictures.plane(Basis([[1, 0, 0], [0, 1, 0]]), Basis([[1, 0, 0], [0, 1, 0]])),
        lambda: lattice_pictures.projection(packings.packing("leech")),
        lambda: lattice_pictures.spiral("golden", 10**6),
        lambda: lattice_pictures.spiral("ulam", 10**50),
        lambda: lattice_pictures.spiral("ulam", 5, 10**7),
    ],
)
def test_what_cannot_be_drawn_is_told(call):
    with pytest.raises(UserError) as error:
        call()
    assert error.value.fix
