"""The sphere tree: a sphere touched by twelve, each of which holds such a thirteen again. All in whole numbers.

Twelve equal spheres can touch one of the same size and no more: the kissing number of three dimensions is 12
(Schütte & van der Waerden 1953, "Das Problem der dreizehn Kugeln"; Conway & Sloane, "Sphere Packings, Lattices and
Groups", chapter 1). Here they stand as in the densest packing, the face-centred cubic lattice D3: the points of whole
numbers with an even sum. Its shortest vectors are the twelve (±1, ±1, 0), (±1, 0, ±1), (0, ±1, ±1), the corners of a
cuboctahedron. Their squared length is 2, so spheres of radius √2/2 around lattice points touch and never overlap.

A ball three times as large holds a sphere and the twelve around it exactly: the outermost points lie at 1 + 2 = 3
radii. So a sphere of one level becomes thirteen of the next when all distances are made three times as long, and the
whole tree stays inside the lattice: 12 leaves, 144, 1,728. Leaves are the positions of a training step; the inner
spheres stand for who hands them out and compute nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

Point = tuple[int, int, int]
Path = tuple[int, ...]  # which of the twelve to take at each level; () is the root

KISSING = 12
TOUCHING = 2  # squared distance of the centres of two spheres that touch
GROWTH = 3  # how much farther apart spheres of one level stand than those of the next


def _shortest() -> tuple[Point, ...]:
    ones = (-1, 0, 1)
    return tuple((x, y, z) for x in ones for y in ones for z in ones if x * x + y * y + z * z == TOUCHING)


# The twelve directions, in lexicographic order: direction 11 - k is opposite to direction k. Divided by √2 they
# are unit vectors.
DIRECTIONS: tuple[Point, ...] = _shortest()


def squared_distance(a: Point, b: Point) -> int:
    """Of two points, exactly."""
    x, y, z = (p - q for p, q in zip(a, b, strict=True))
    return x * x + y * y + z * z


@dataclass(frozen=True)
class SphereTree:
    """The tree with 12 ** levels leaves; leaf n is found by the digits of n to the base 12."""

    levels: int = 1

    def __post_init__(self) -> None:
        if self.levels < 1:
            raise ValueError(f"a sphere tree has at least one level, not {self.levels}")

    @classmethod
    def of(cls, leaves: int) -> SphereTree:
        """The tree with that many leaves: 12, 144, 1,728, ... Raises ValueError for another number."""
        levels, count = 1, KISSING
        while count < leaves:
            levels, count = levels + 1, count * KISSING
        if count != leaves:
            raise ValueError(f"no sphere tree has {leaves} leaves: a power of 12 is needed")
        return cls(levels)

    @property
    def leaves(self) -> int:
        return int(KISSING**self.levels)

    def path(self, leaf: int) -> Path:
        """From the root to leaf `leaf`, 0 <= leaf < leaves."""
        if not 0 <= leaf < self.leaves:
            raise ValueError(f"the tree has leaves 0 to {self.leaves - 1}, not {leaf}")
        digits = []
        for _ in range(self.levels):
            leaf, digit = divmod(leaf, KISSING)
            digits.append(digit)
        return tuple(reversed(digits))

    def leaf(self, path: Path) -> int:
        """The number of the leaf at the end of `path`: the inverse of `path`."""
        if len(path) != self.levels or not all(0 <= digit < KISSING for digit in path):
            raise ValueError(f"{path} leads to no leaf")
        number = 0
        for digit in path:
            number = number * KISSING + digit
        return number

    def children(self, path: Path) -> list[Path]:
        """The twelve spheres inside the sphere at `path`; of a leaf none."""
        return [] if len(path) == self.levels else [(*path, k) for k in range(KISSING)]

    def siblings(self, path: Path) -> list[Path]:
        """The other eleven of the twelve; of the root none."""
        return [other for other in self.children(path[:-1]) if other != path] if path else []

    def leaves_below(self, path: Path) -> range:
        """The numbers of the leaves inside the sphere at `path`."""
        size = KISSING ** (self.levels - len(path))
        first = 0
        for digit in path:
            first = first * KISSING + digit
        return range(first * size, (first + 1) * size)

    def visit(self) -> Iterator[Path]:
        """Every sphere once, each before those inside it, the leaves in the order of their numbers."""
        waiting: list[Path] = [()]
        while waiting:
            path = waiting.pop()
            yield path
            waiting.extend(reversed(self.children(path)))

    def order_of_sums(self) -> Iterator[tuple[Path, list[Path]]]:
        """Every inner sphere with the twelve that are added up in it, each after those inside it.

        A constant of the tree: whoever follows it adds the same numbers in the same order, so even a sum of rounded
        numbers has the same bits. (The exact sums of training do not need it: whole numbers have no order.)
        """
        inner = [path for path in self.visit() if len(path) < self.levels]
        for path in sorted(inner, key=lambda path: (-len(path), path)):
            yield path, self.children(path)

    def centre(self, path: Path) -> Point:
        """Of the sphere at `path`, in units in which leaves that touch are √2 apart.

        An inner sphere is the ball around its twelve and, of their size, the thirteenth in their middle: the one that
        hands out.
        """
        x = y = z = 0
        for level, digit in enumerate(path, start=1):
            dx, dy, dz = DIRECTIONS[digit]
            scale = GROWTH ** (self.levels - level)
            x, y, z = x + scale * dx, y + scale * dy, z + scale * dz
        return x, y, z

    def contacts(self, leaf: int) -> list[int]:
        """The leaves that touch `leaf`, also those in a neighbouring twelve, in the order of their numbers."""
        centres = {self.centre(self.path(other)): other for other in range(self.leaves)}
        x, y, z = self.centre(self.path(leaf))
        around = ((x + dx, y + dy, z + dz) for dx, dy, dz in DIRECTIONS)
        return sorted(centres[point] for point in around if point in centres)
