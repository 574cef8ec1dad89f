"""Pictures of numbers and lattices: spirals with their primes, clock rings, bases in the plane, touching spheres.

Each is one self-contained SVG document that can be read on a light and a dark screen. Primes have the colour of their
class mod 12.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from crystalline.errors import UserError
from crystalline.lattice import clock, packings, spirals
from crystalline.lattice.packings import Packing
from crystalline.lattice.primes import is_prime, primes_below
from crystalline.lattice.reduction import Basis
from crystalline.pipeline.markup import clean
from crystalline.pipeline.spheres import project

SIDE, MARGIN, FOOT = 720.0, 24.0, 34.0  # of the square that is drawn in, and the line below it
MOST_POINTS = 100_000
ULAM_POINTS, CURVE_POINTS = 101**2, 2000  # unless others are asked for
LABELLED = 21  # numbers on a side up to which they are written out
FAR = 10**40  # beyond, testing the numbers around takes long
REACH = 60  # how many lattice points to each side are drawn in the plane
CLASSES = (1, 5, 7, 11)
STYLE = """
.paper{fill:#fff}.ink{fill:#1d232b}.soft{fill:#5b6673}.dot{stroke:#b4bcc6}.faint{stroke:#d5dae0}.mark{stroke:#1d232b}
.k1{stroke:#0072b2}.k5{stroke:#d55e00}.k7{stroke:#00815d}.k11{stroke:#a6589a}
.before{stroke:#d55e00}.after{stroke:#0072b2}.cell{fill:#0072b2;fill-opacity:.14}
@media (prefers-color-scheme:dark){.paper{fill:#14181d}.ink{fill:#e8ebef}.soft{fill:#9aa6b4}.dot{stroke:#5a6470}
.faint{stroke:#333b45}.mark{stroke:#e8ebef}.k1{stroke:#56b4e9}.k5{stroke:#ef8b4a}.k7{stroke:#3fc79a}.k11{stroke:#d9a0cf}
.before{stroke:#ef8b4a}.after{stroke:#56b4e9}.cell{fill:#56b4e9}}
"""
Places = NDArray[np.float64]


# --- spirals ----------------------------------------------------------------------------------------------


def spiral(kind: str, n: int, points: int | None = None) -> str:
    """The number n among others on Ulam's spiral or a curve ("golden", "hilbert", ...); the primes stand out.

    points: how many numbers are drawn. Ulam's spiral is drawn around its middle, or around n where that is far out.
    """
    points = points or (ULAM_POINTS if kind == "ulam" else max(CURVE_POINTS, min(n + 1, MOST_POINTS)))
    if kind == "hilbert":
        points = 4 ** max(1, math.ceil(math.log2(points) / 2))  # the whole curve
    if points > MOST_POINTS or (kind != "ulam" and n >= points) or n >= FAR:
        raise UserError(
            f"could not draw {n if n < FAR else 'so large a number'} on the spiral",
            f"up to {MOST_POINTS:,} points are drawn, and the number must be among them"
            + (" or, on Ulam's spiral, below 10^40" if n >= FAR else ""),
            "give a smaller number, or --kind ulam",
        )
    if kind == "ulam":
        return _ulam(n, points)
    numbers = np.arange(points)
    if kind == "golden":
        places, title = spirals.golden_points(numbers), "Points at the golden angle"
    elif kind == "logarithmic":
        numbers = numbers[: spirals.LARGEST_LOGARITHMIC]
        # Equally far apart to the eye: the radius is drawn by its logarithm.
        places, title = spirals.logarithmic_points(numbers), "Logarithmic spiral, the radius by its logarithm"
        radius = np.linalg.norm(places, axis=-1, keepdims=True)
        places = places / radius * (1 + np.log(radius))
    elif kind == "archimedean":
        places, title = spirals.archimedean_points(numbers), "Archimedean spiral"
    else:
        order = points.bit_length() // 2
        places, title = spirals.hilbert_points(numbers, order).astype(float), f"Hilbert's curve of order {order}"
    x, y = _fit(places)
    dots = max(1.0, min(6.0, 0.42 * SIDE / math.sqrt(len(numbers))))
    line = f'<path class="faint" fill="none" d="{_line(x, y)}"/>' if kind != "golden" else ""
    body = line + _primes(numbers.tolist(), x, y, dots, others=True)
    body += _ring(x[n], y[n], max(7.0, dots), str(n)) if n < len(x) else ""
    return _document(
        f"{title}: 0 to {len(numbers) - 1:,}", "Primes in the colour of their class mod 12.", body, _legend()
    )


def _ulam(n: int, points: int) -> str:
    half = max(1, math.isqrt(points - 1) // 2) if points > 1 else 0
    x, y = spirals.ulam_point(n)
    left, low = (0, 0) if max(abs(x), abs(y)) <= half else (x, y)
    grid = [(a, b) for b in range(low - half, low + half + 1) for a in range(left - half, left + half + 1)]
    numbers = [spirals.ulam_number(a, b) for a, b in grid]
    side = 2 * half + 1
    step = (SIDE - 2 * MARGIN) / side
    across = np.array([MARGIN + step * (a - left + half + 0.5) for a, _ in grid])
    down = np.array([MARGIN + step * (low + half - b + 0.5) for _, b in grid])
    body = ""
    if (left, low) == (0, 0) and side <= LABELLED * 3:
        order = np.argsort(numbers)
        body = f'<path class="faint" fill="none" d="{_line(across[order], down[order])}"/>'
    if side <= LABELLED:
        body += _primes(numbers, across, down, 0.86 * step, opacity=0.35)
        size = min(14.0, 1.5 * step / max(2, len(str(max(numbers)))))
        body += "".join(
            f'<text class="ink" x="{a:.1f}" y="{b + size / 3:.1f}" font-size="{size:.1f}">{k}</text>'
            for k, a, b in zip(numbers, across, down, strict=True)
        )
    else:
        body += _primes(numbers, across, down, 0.72 * step)
    body += _ring(
        across[grid.index((x, y))], down[grid.index((x, y))], max(0.6 * step, 5.0), "" if side <= LABELLED else str(n)
    )
    about = f"{side} by {side} numbers around ({left}, {low}); primes in the colour of their class mod 12."
    return _document("Ulam's spiral" + ("" if (left, low) == (0, 0) else f" around {n}"), about, body, _legend())


def _primes(
    numbers: list[int], x: Places, y: Places, size: float, *, others: bool = False, opacity: float = 1.0
) -> str:
    """A dot for each prime, in the colour of its class, and small ones for the other numbers if wanted."""
    top = max(numbers)
    if top < 10 * MOST_POINTS:
        prime = np.zeros(top + 1, dtype=bool)
        prime[primes_below(top + 1)] = True
        chosen = prime[np.array(numbers)]
    else:
        chosen = np.array([is_prime(number) for number in numbers])
    classes = np.array([number % 12 for number in numbers])
    groups = [("dot", ~chosen, 0.35 * size)] if others else []
    groups += [(f"k{k}", chosen & (classes == k), size) for k in CLASSES]
    groups.append(("mark", chosen & np.isin(classes, (2, 3)), size))  # the primes 2 and 3 are in no other's class
    return "".join(
        f'<path class="{name}" fill="none" stroke-linecap="round" stroke-width="{width:.1f}" '
        f'stroke-opacity="{opacity:g}" d="{_dots(x[which], y[which])}"/>'
        for name, which, width in groups
        if which.any()
    )


# --- clock ------------------------------------------------------------------------------------------------


def clock_face(n: int) -> str:
    """The four rings with the numbers 0 to 231, the primes among them, and the hands of n."""
    at = clock.place(n)
    numbers = list(range(clock.FACE))
    found = [clock.place(k) for k in numbers]
    x, y, radius = _fit_circle([(float(p.radius), float(p.turn)) for p in found])
    body = "".join(
        f'<circle class="faint" fill="none" cx="{SIDE / 2:g}" cy="{SIDE / 2:g}" r="{radius * k / 4:.1f}"/>'
        for k in range(1, 5)
    )
    for residue, ring, width in zip(clock.hands(n), (0, 1, 3), (5.0, 3.0, 1.5), strict=True):
        start = sum(clock.RINGS[:ring]) + residue
        body += (
            f'<path class="mark" stroke-linecap="round" stroke-width="{width:g}" stroke-opacity="0.75" '
            f'd="M{SIDE / 2:g} {SIDE / 2:g}L{x[start]:.1f} {y[start]:.1f}"/>'
        )
    body += _primes(numbers, x, y, 9.0, others=True)
    body += "".join(
        f'<text class="soft" font-size="13" x="{SIDE / 2 + 0.8 * (x[k] - SIDE / 2):.1f}" '
        f'y="{SIDE / 2 + 0.8 * (y[k] - SIDE / 2) + 4:.1f}">{k}</text>'
        for k in range(12)
    )
    if n < clock.FACE:
        body += _ring(x[n], y[n], 9.0, str(n))
    where = f"{n if n < FAR else 'The number'} is on place {at.place} of {at.size} in ring {at.ring}"
    return _document(
        "Clock rings of 12, 60, 60 and 100", f"{where}; the hands show it modulo 12, 60 and 100.", body, _legend()
    )


# --- a lattice in the plane -------------------------------------------------------------------------------


def plane(
    before: Basis, after: Basis, target: Sequence[Fraction] | None = None, found: Sequence[Fraction] | None = None
) -> str:
    """A lattice of two vectors in the plane, before and after its reduction; a point and the vector nearest to it."""
    if (before.rank, before.dimension) != (2, 2):
        raise UserError(
            "could not draw this lattice",
            f"it has {before.rank} vectors in {before.dimension} dimensions",
            "draw a lattice of two vectors with two coordinates, or leave out --plot",
        )
    focus = [[Fraction(0), Fraction(0)], *after.vectors, *([target] if target else []), *([found] if found else [])]
    longest = max(abs(value) for vector in after.vectors for value in vector)
    middle = [(min(p[i] for p in focus) + max(p[i] for p in focus)) / 2 for i in (0, 1)]
    reach = max(max(abs(p[i] - middle[i]) for p in focus for i in (0, 1)) * Fraction(5, 4), 3 * longest)

    def at(vector: Sequence[Fraction]) -> tuple[float, float]:
        """Exactly until it is a place on the page; what is far off it is brought near, in the same direction."""
        u, v = ((value - centre) / reach for value, centre in zip(vector, middle, strict=True))
        far = max(abs(u), abs(v), Fraction(50)) / 50
        return SIDE / 2 * (1 + float(u / far)), SIDE / 2 * (1 - float(v / far))

    (a, b), (c, d) = after.vectors
    determinant = a * d - b * c
    corner = [
        round((middle[0] * d - middle[1] * c) / determinant), round((middle[1] * a - middle[0] * b) / determinant)
    ]  # fmt: skip
    steps = range(-REACH, REACH + 1)
    points = [at([(corner[0] + i) * a + (corner[1] + j) * c, (corner[0] + i) * b + (corner[1] + j) * d])
              for i in steps for j in steps]  # fmt: skip
    seen = np.array([(x, y) for x, y in points if 0 <= x <= SIDE and 0 <= y <= SIDE])
    origin = at([Fraction(0), Fraction(0)])
    first, second = (at(vector) for vector in after.vectors)
    opposite = at([a + c, b + d])
    cell = "L".join(f"{x:.1f} {y:.1f}" for x, y in (origin, first, opposite, second))
    body = f'<clipPath id="page"><rect width="{SIDE:g}" height="{SIDE:g}"/></clipPath><g clip-path="url(#page)">'
    body += f'<path class="cell" d="M{cell}Z"/>'
    dots = _dots(seen[:, 0], seen[:, 1])
    body += f'<path class="mark" stroke-opacity="0.5" stroke-linecap="round" stroke-width="5" d="{dots}"/>'
    for name, basis, width in (("before", before, 2.5), ("after", after, 4.5)):
        body += "".join(
            f'<path class="{name}" stroke-width="{width}" stroke-linecap="round" '
            f'd="M{origin[0]:.1f} {origin[1]:.1f}L{x:.1f} {y:.1f}"/>'
            for x, y in (at(vector) for vector in basis.vectors)
        )
    body += _ring(*origin, 5.0, "0")
    if found is not None:
        (x, y), (u, v) = at(found), at(target) if target else at(found)
        body += f'<path class="mark" stroke-dasharray="4 3" d="M{u:.1f} {v:.1f}L{x:.1f} {y:.1f}"/>'
        body += _ring(x, y, 9.0, "closest" if target else "shortest")
        if target:
            body += f'<path class="mark" stroke-width="2" d="M{u - 6:.1f} {v - 6:.1f}l12 12m0 -12l-12 12"/>'
    body += "</g>"
    key = _entry("before", "the basis as given", SIDE / 2 - 220) + _entry("after", "reduced", SIDE / 2 + 40)
    return _document("A lattice and its bases", "Lines from 0 are the vectors of the two bases.", body, key)


# --- touching spheres -------------------------------------------------------------------------------------


def twelve() -> str:
    """Twelve spheres around one, as a cuboctahedron, where they touch each other, and as an icosahedron."""
    body = ""
    directions = packings.packing("d3").vectors.tolist()
    left = np.array([project((a, b, c)) for a, b, c in directions]) / math.sqrt(2)
    right = packings.icosahedron() @ _towards_a_face()
    for centre, points, words in (
        (SIDE / 4, left, "cuboctahedron: 60°, they touch"),
        (3 * SIDE / 4, right, "icosahedron: 63.43°, room between"),
    ):
        radius = (SIDE / 4 - MARGIN / 2) / 3  # of a sphere; the outermost reach three of them far
        balls = sorted(
            [(*(2 * radius * points[k]), "k1") for k in range(12)] + [(0.0, 0.0, 0.0, "k5")], key=lambda b: b[2]
        )
        body += "".join(
            f'<g transform="translate({centre + u:.1f} {SIDE / 2 - v:.1f})">'
            f'<circle class="paper" r="{radius:.1f}" fill-opacity="0.55"/>'
            f'<circle class="{name}" r="{radius:.1f}" fill="url(#ball)" stroke-width="1.6"/></g>'
            for u, v, _, name in balls
        )
        body += f'<text class="ink" font-size="16" x="{centre:g}" y="{SIDE / 2 + 3 * radius + 34:.1f}">{words}</text>'
    shade = (
        '<radialGradient id="ball" cx="0.36" cy="0.32" r="0.8">'
        '<stop offset="0" stop-color="#fff" stop-opacity="0.5"/>'
        '<stop offset="0.6" stop-color="#9cc3e3" stop-opacity="0.35"/>'
        '<stop offset="1" stop-color="#1f4a6b" stop-opacity="0.5"/></radialGradient>'
    )
    return _document(
        "Twelve spheres touch one", "In two arrangements, seen from outside.", f"<defs>{shade}</defs>{body}", ""
    )


def _towards_a_face() -> Places:
    """Turns the icosahedron so that a face looks at the eye: columns are right, up and to the eye."""
    face = packings.icosahedron()
    first = face[0]
    second, third = (face[k] for k in np.argsort(-(face @ first))[1:3])
    towards = first + second + third
    towards /= np.linalg.norm(towards)
    up = first - (first @ towards) * towards
    up /= np.linalg.norm(up)
    return np.stack([np.cross(up, towards), up, towards], axis=1)


def projection(packing: Packing) -> str:
    """The vectors of least length in the Coxeter plane, those 60° apart joined by a line."""
    if packing.roots is None:
        raise UserError(
            f"could not draw {packing.name}", f"{packing.kissing_number:,} points are too many", "leave out --plot"
        )
    places = packing.vectors @ packings.coxeter_plane(packing.roots).T
    x, y = _fit(places)
    table = packing.vectors.astype(np.int64) @ packing.vectors.astype(np.int64).T
    pairs = np.argwhere(np.triu(2 * table == packing.squared_length * packing.unit))
    edges = "".join(f"M{x[i]:.1f} {y[i]:.1f}L{x[j]:.1f} {y[j]:.1f}" for i, j in pairs.tolist())
    width = 1.5 if len(pairs) < 500 else 0.35
    rings = np.unique(np.round(np.linalg.norm(places, axis=1), 6), return_inverse=True)[1]
    body = f'<path fill="none" stroke="#7d8894" stroke-opacity="0.6" stroke-width="{width}" d="{edges}"/>'
    for ring in range(rings.max() + 1):
        which, name = rings == ring, f"k{CLASSES[ring % 4]}"
        body += f'<path class="{name}" stroke-linecap="round" stroke-width="9" d="{_dots(x[which], y[which])}"/>'
    about = (
        f"The {packing.kissing_number} points where spheres touch one, in the Coxeter plane; neighbours are joined."
    )
    return _document(f"{packing.name}: {packing.kissing_number} spheres touch one", about, body, "")


# --- parts ------------------------------------------------------------------------------------------------


def _document(title: str, about: str, body: str, foot: str) -> str:
    height = SIDE + FOOT
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SIDE:g} {height:g}" width="{SIDE:g}" '
        f'height="{height:g}" role="img" aria-labelledby="title about" font-family="system-ui, sans-serif" '
        f'text-anchor="middle"><title id="title">{clean(title)}</title><desc id="about">{clean(about)}</desc>'
        f'<style>{STYLE}</style><rect class="paper" width="{SIDE:g}" height="{height:g}"/>{body}{foot}</svg>'
    )


def _fit(places: Places) -> tuple[Places, Places]:
    """Places of the plane on the page, as large as it allows."""
    low, high = places.min(axis=0), places.max(axis=0)
    unit = (SIDE - 2 * MARGIN) / max(1e-9, float((high - low).max()))
    centred = (places - (low + high) / 2) * unit
    return SIDE / 2 + centred[:, 0], SIDE / 2 - centred[:, 1]


def _fit_circle(polar: Iterable[tuple[float, float]]) -> tuple[Places, Places, float]:
    """Points (radius up to 1, part of a turn) on the page, and the length of the radius 1 there."""
    size = SIDE / 2 - MARGIN
    radius, turn = np.array(list(polar)).T
    return (
        SIDE / 2 + size * radius * np.cos(2 * np.pi * turn),
        SIDE / 2 - size * radius * np.sin(2 * np.pi * turn),
        size,
    )


def _dots(x: Places, y: Places) -> str:
    """A path of lines without length, which round ends make dots."""
    return "".join(f"M{a:.1f} {b:.1f}h0" for a, b in zip(x.tolist(), y.tolist(), strict=True))


def _line(x: Places, y: Places) -> str:
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x.tolist(), y.tolist(), strict=True))


def _ring(x: float, y: float, radius: float, words: str) -> str:
    """A circle around a place, and its name beside it, on the side where there is room."""
    right = x < 0.8 * SIDE
    return (
        f'<circle class="mark" fill="none" stroke-width="2" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"/>'
        f'<text class="ink" font-size="14" font-weight="600" x="{x + (radius + 4) * (1 if right else -1):.1f}" '
        f'y="{y - radius:.1f}" text-anchor="{"start" if right else "end"}">{clean(words)}</text>'
    )


def _legend() -> str:
    """What the colours of primes mean."""
    entries = "".join(_entry(f"k{k}", f"{k} mod 12", SIDE / 2 - 250 + 130 * i) for i, k in enumerate(CLASSES))
    return f"<g>{entries}</g>"


def _entry(name: str, words: str, x: float) -> str:
    y = SIDE + 16
    return (
        f'<path class="{name}" stroke-linecap="round" stroke-width="9" d="M{x:g} {y:g}h0"/>'
        f'<text class="soft" font-size="14" text-anchor="start" x="{x + 12:g}" y="{y + 5:g}">{words}</text>'
    )
