"""The twelve touch, nothing overlaps, each leaf is there once, and the order is a constant. All in whole numbers."""

import itertools
import math

import pytest

from crystalline.lattice.sphere_tree import DIRECTIONS, GROWTH, TOUCHING, SphereTree, squared_distance

ORIGIN = (0, 0, 0)


def test_twelve_spheres_touch_the_one_in_the_middle_and_none_overlaps():
    assert len(set(DIRECTIONS)) == 12
    assert {squared_distance(ORIGIN, d) for d in DIRECTIONS} == {TOUCHING}
    distances = [squared_distance(a, b) for a, b in itertools.combinations(DIRECTIONS, 2)]
    assert min(distances) == TOUCHING
    # A cuboctahedron: 24 edges, and the angles 60, 90, 120 and 180 degrees.
    assert [distances.count(d) for d in (2, 4, 6, 8)] == [24, 12, 24, 6]


def test_they_are_the_shortest_vectors_of_the_lattice_of_even_sums():
    """Against a search of the whole neighbourhood: D3 has no shorter vector and no further one of this length."""
    points = [p for p in itertools.product(range(-3, 4), repeat=3) if sum(p) % 2 == 0 and p != ORIGIN]
    shortest = min(squared_distance(ORIGIN, p) for p in points)
    assert [p for p in points if squared_distance(ORIGIN, p) == shortest] == list(DIRECTIONS)


def test_the_arrangement_is_symmetric():
    assert [tuple(-c for c in d) for d in DIRECTIONS] == list(reversed(DIRECTIONS))
    for order in itertools.permutations(range(3)):
        assert {tuple(d[i] for i in order) for d in DIRECTIONS} == set(DIRECTIONS)
    for sign in itertools.product((1, -1), repeat=3):
        assert {tuple(s * c for s, c in zip(sign, d, strict=True)) for d in DIRECTIONS} == set(DIRECTIONS)
    assert [sum(column) for column in zip(*DIRECTIONS, strict=True)] == [0, 0, 0]


def test_no_thirteenth_sphere_fits_between_the_twelve():
    """The largest hole of this arrangement is over its squares, 45 degrees from their corners; a sphere needs 60."""
    grid = range(-12, 13)
    for p in itertools.product(grid, repeat=3):
        if p != ORIGIN:
            # cos(p, d) >= 1/2 for some d, in whole numbers: (p·d)² · 4 >= |p|² · 2 with p·d > 0
            nearest = max(sum(a * b for a, b in zip(p, d, strict=True)) for d in DIRECTIONS)
            assert 4 * nearest**2 > 2 * squared_distance(ORIGIN, p)


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_each_leaf_is_visited_once_and_in_order(levels):
    tree = SphereTree(levels)
    visited = list(tree.visit())
    leaves = [path for path in visited if len(path) == levels]
    assert [tree.leaf(path) for path in leaves] == list(range(12**levels)) == list(range(tree.leaves))
    assert [tree.path(n) for n in range(tree.leaves)] == leaves
    assert len(visited) == len(set(visited)) == sum(12**level for level in range(levels + 1))
    assert all(visited.index(path[:-1]) < place for place, path in enumerate(visited[:200]) if path)


def test_the_order_of_sums_is_a_constant_and_adds_each_sphere_once():
    tree = SphereTree(2)
    order = list(tree.order_of_sums())
    assert order == list(SphereTree(2).order_of_sums())
    assert [parent for parent, _ in order] == [(k,) for k in range(12)] + [()]
    assert sorted(child for _, children in order for child in children) == sorted(p for p in tree.visit() if p)
    # Adding along it: the total of the leaves, and rounded numbers give the same bits each time.
    numbers = {path: math.sin(n) * 10.0 ** (n % 17) for n, path in enumerate(p for p in tree.visit() if len(p) == 2)}
    for parent, children in order:
        total = 0.0
        for child in children:
            total += numbers[child]
        numbers[parent] = total
    assert math.isclose(numbers[()], math.fsum(v for k, v in numbers.items() if len(k) == 2), rel_tol=1e-9)


@pytest.mark.parametrize("levels", [1, 2])
def test_spheres_of_the_whole_tree_never_overlap(levels):
    """All leaves, and the leaf-sized sphere in the middle of each inner one, are apart by the touching distance."""
    tree = SphereTree(levels)
    centres = [tree.centre(path) for path in tree.visit()]
    assert len(set(centres)) == len(centres)
    assert all(sum(centre) % 2 == 0 for centre in centres), "each is a point of the lattice"
    assert min(squared_distance(a, b) for a, b in itertools.combinations(centres, 2)) == TOUCHING
    for leaf in range(tree.leaves):
        path = tree.path(leaf)
        assert squared_distance(tree.centre(path), tree.centre(path[:-1])) == TOUCHING, "it touches its parent"


def test_twelve_of_the_next_level_lie_exactly_inside_one_of_this_level():
    """A leaf reaches to |centre| + radius = (1 + 1/2)·√2 from the middle, three radii: the larger sphere's radius."""
    assert GROWTH == 3
    tree = SphereTree(2)
    for group in tree.children(()):
        middle = tree.centre(group)
        assert squared_distance(ORIGIN, middle) == GROWTH**2 * TOUCHING
        assert {squared_distance(middle, tree.centre(leaf)) for leaf in tree.children(group)} == {TOUCHING}


def test_contacts_are_mutual_and_right():
    tree = SphereTree(2)
    contacts = [tree.contacts(leaf) for leaf in range(tree.leaves)]
    centres = [tree.centre(tree.path(leaf)) for leaf in range(tree.leaves)]
    for leaf, touched in enumerate(contacts):
        assert touched == [n for n, c in enumerate(centres) if squared_distance(c, centres[leaf]) == TOUCHING]
    assert all(leaf in contacts[other] for leaf, touched in enumerate(contacts) for other in touched)
    assert {len(SphereTree(1).contacts(leaf)) for leaf in range(12)} == {4}, "a corner of a cuboctahedron has 4 edges"


def test_family_of_a_sphere():
    tree = SphereTree(2)
    assert tree.children((3,))[0] == (3, 0)
    assert tree.children((3, 0)) == [] == tree.siblings(())
    assert len(tree.siblings((3, 0))) == 11
    assert (3, 0) not in tree.siblings((3, 0))
    assert tree.leaves_below((3,)) == range(36, 48)
    assert tree.leaves_below((3, 1)) == range(37, 38)
    assert tree.leaves_below(()) == range(144)


@pytest.mark.parametrize(("leaves", "levels"), [(12, 1), (144, 2), (1728, 3)])
def test_the_tree_of_so_many_leaves(leaves, levels):
    assert SphereTree.of(leaves) == SphereTree(levels)


@pytest.mark.parametrize("leaves", [0, 1, 11, 13, 24, 143])
def test_other_numbers_of_leaves_have_no_tree(leaves):
    with pytest.raises(ValueError, match="power of 12"):
        SphereTree.of(leaves)


def test_what_is_not_in_the_tree_is_refused():
    for wrong in (-1, 12):
        with pytest.raises(ValueError, match="leaves 0 to 11"):
            SphereTree().path(wrong)
    for path in ((), (12,), (0, 0), (-1,)):
        with pytest.raises(ValueError, match="no leaf"):
            SphereTree().leaf(path)
    with pytest.raises(ValueError, match="at least one level"):
        SphereTree(0)
