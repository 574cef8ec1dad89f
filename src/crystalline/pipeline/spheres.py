"""The sphere tree of a run: Node Zero, the workers and the positions they did; as text, Graphviz DOT or a picture.

A sphere that touches Node Zero is a position of a step; its colour is the busy share of the worker that did it in the
last step that was recorded.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from crystalline.lattice.sphere_tree import GROWTH, Point, SphereTree
from crystalline.pipeline.markup import clean
from crystalline.pipeline.status import Standing

DEFAULT_POSITIONS = 12


def describe(standing: Standing | None, positions: int | None = None) -> dict[str, Any]:
    """The tree as data, for a run or, when that is None, by itself.

    run, state, step, steps, as in `Standing.facts`; positions: for each its number, its path in the tree, its centre
    (whole numbers; √2 is one sphere's width), the positions that it touches, and the number of the worker that did
    it, if known; spheres: the workers as last recorded, each with its busy share.
    Raises ValueError when there is no tree with so many positions.
    """
    facts: dict[str, Any] = {"run": None, "state": None, "step": None, "steps": None}
    workers: list[dict[str, Any]] = []
    if standing is not None:
        facts = {name: value for name, value in standing.facts().items() if name in facts}
        workers = standing.spheres()
        recipe = standing.recipe()
        positions = positions or (recipe["settings"]["training"]["positions"] if recipe else None)
    tree = SphereTree.of(positions or DEFAULT_POSITIONS)
    done_by = {place: worker["number"] for worker in workers for place in worker.get("places", [])}
    return {
        **facts,
        "levels": tree.levels,
        "positions": [
            {
                "number": leaf,
                "path": list(tree.path(leaf)),
                "centre": list(tree.centre(tree.path(leaf))),
                "touches": tree.contacts(leaf),
                "sphere": done_by.get(leaf),
            }
            for leaf in range(tree.leaves)
        ],
        "spheres": workers,
    }


# --- text and DOT -----------------------------------------------------------------------------------------


def ranges(numbers: Sequence[int]) -> str:
    """[0, 1, 2, 5, 7, 8] -> "0-2 5 7-8"."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return " ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def text(found: dict[str, Any]) -> str:
    """The tree for a terminal of 80 columns."""
    lines = []
    if found["run"] is not None:
        step = f", step {found['step']:,} of {found['steps']:,}" if found["steps"] else ""
        lines.append(f"{found['run']}: {found['state']}{step}")
    count = len(found["positions"])
    lines.append(f"Node Zero hands out the {count} positions of a step and computes none of them")
    branches = list(_workers(found)) if found["spheres"] else list(_groups(found))
    for number, (head, *more) in enumerate(branches):
        last = number == len(branches) - 1
        lines.append(f"{'└─' if last else '├─'} {head}")
        lines += [f"{'  ' if last else '│ '}   {line}" for line in more]
    if found["run"] is not None and not found["spheres"]:
        lines.append("(no worker has been recorded in this run)")
    return "\n".join(lines)


def _workers(found: dict[str, Any]) -> Iterator[list[str]]:
    """For each worker its line and, below it, what it did last."""
    for worker in found["spheres"]:
        told = [f"sphere {worker['number']}"]
        if worker["share"] is not None:
            told.append(f"{worker['share']:4.0%} busy")
        if "positions" in worker:
            told.append(f"{worker['positions']:,} positions")
        for name, words in (("steals", "taken over"), ("errors", "errors")):
            if worker.get(name):
                told.append(f"{worker[name]:,} {words}")
        if worker.get("memory"):
            told.append(f"{worker['memory'] / 1e6:,.0f} MB")
        if worker.get("pid"):
            told.append(f"pid {worker['pid']}")
        lines = ["  ".join(told)]
        times = [f"{name} {worker[name]:,.1f} s" for name in ("busy", "update", "idle", "sync") if name in worker]
        if worker.get("loss") is not None:
            times.append(f"loss {worker['loss']:.3f}")
        if times:
            lines.append(", ".join(times))
        if "places" in worker:
            lines.append(f"in the last step: {ranges(worker['places']) or 'none'}")
        yield lines


def _groups(found: dict[str, Any]) -> Iterator[list[str]]:
    """For each of the twelve around the middle its line: where it is, and what it touches or holds."""
    tree = SphereTree(found["levels"])
    for group in tree.children(()):
        x, y, z = tree.centre(group)
        inside = tree.leaves_below(group)
        if len(inside) == 1:
            (leaf,) = inside
            head = f"position {leaf:2}  at ({x:2}, {y:2}, {z:2})  touches {ranges(tree.contacts(leaf))}"
        else:
            head = f"sphere {group[0]:2}  at ({x:2}, {y:2}, {z:2})  positions {inside[0]} to {inside[-1]}"
        yield [head]


def dot(found: dict[str, Any]) -> str:
    """The tree in Graphviz's language: Node Zero, below it the workers (or the groups), below them the positions."""
    lines = [
        "digraph spheres {",
        "  rankdir=LR;",
        '  node [shape=circle, style=filled, fillcolor="#eef2f7", fontname="sans-serif"];',
        '  node_zero [label="Node Zero", shape=doublecircle];',
    ]
    tree = SphereTree(found["levels"])
    named = {place["number"]: place["sphere"] for place in found["positions"]}
    for worker in found["spheres"]:
        share = worker["share"]
        label = f"sphere {worker['number']}" + (f"\\n{share:.0%} busy" if share is not None else "")
        colour, ink = fill(share)
        lines.append(
            f'  sphere_{worker["number"]} [label="{label}", shape=box, fillcolor="{colour}", fontcolor="{ink}"];'
        )
        lines.append(f"  node_zero -> sphere_{worker['number']};")
    if not found["spheres"] and tree.levels > 1:
        for path in tree.visit():
            if 0 < len(path) < tree.levels:
                lines.append(f'  {_node(path)} [label="{path[-1]}"];')
                lines.append(f"  {_node(path[:-1])} -> {_node(path)};")
    for leaf, worker_number in named.items():
        path = tree.path(leaf)
        lines.append(f'  position_{leaf} [label="{leaf}"];')
        if worker_number is not None:
            lines.append(f"  sphere_{worker_number} -> position_{leaf};")
        elif found["spheres"]:
            lines.append(f"  node_zero -> position_{leaf} [style=dotted];")
        else:
            lines.append(f"  {_node(path[:-1])} -> position_{leaf};")
    return "\n".join([*lines, "}"])


def _node(path: Sequence[int]) -> str:
    return "group_" + "_".join(map(str, path)) if path else "node_zero"


# --- the picture ------------------------------------------------------------------------------------------

SIDE = 560.0  # of the square that the spheres stand in
MARGIN = 14.0
# Light to dark with the busy share; the last is the colour of a position that nobody is known to have done.
RAMP = ("#e3edf6", "#c3daee", "#9cc3e3", "#6ea6d3", "#3f83bb", "#1f659f")
UNKNOWN = "#d9dce1"
OPACITY = ' fill-opacity="0.88"'
STYLE = """
.sp-ink{fill:#1d232b}.sp-soft{fill:#5b6673}.sp-line{stroke:#1d232b}
@media (prefers-color-scheme:dark){.sp-ink{fill:#e8ebef}.sp-soft{fill:#9aa6b4}.sp-line{stroke:#e8ebef}}
"""


def fill(share: float | None) -> tuple[str, str]:
    """The colour for a busy share, and that of text on it."""
    if share is None:
        return UNKNOWN, "#1d232b"
    step = min(len(RAMP) - 1, int(max(0.0, share) * len(RAMP)))
    return RAMP[step], "#ffffff" if step >= 4 else "#10202f"


def project(point: Point) -> tuple[float, float, float]:
    """Where a point of the lattice is on the page, and how near to the eye: seen along (1, 1, 1).

    From there the twelve stand as 3 + 6 + 3, and no centre hides another.
    """
    x, y, z = point
    return (x - y) / math.sqrt(2), (2 * z - x - y) / math.sqrt(6), (x + y + z) / math.sqrt(3)


def svg(found: dict[str, Any], prefix: str = "spheres") -> str:
    """The tree as a self-contained SVG picture. prefix: of the names in it, different for two on one page."""
    tree = SphereTree(found["levels"])
    unit = math.sqrt(2) / 2  # radius of a leaf
    scale = (SIDE / 2 - MARGIN) / (unit * GROWTH**tree.levels)
    shares = {worker["number"]: worker["share"] for worker in found["spheres"]}
    done_by = {place["number"]: place["sphere"] for place in found["positions"]}
    balls = []
    for path in tree.visit():
        u, v, depth = project(tree.centre(path))
        leaf = tree.leaf(path) if len(path) == tree.levels else None
        # An inner sphere is drawn as the thirteenth in the middle of its twelve, of their size.
        size = unit * GROWTH ** (tree.levels - len(path) - (leaf is None))
        balls.append((depth, SIDE / 2 + scale * u, SIDE / 2 - scale * v, scale * size, path, leaf))
    balls.sort(key=lambda ball: ball[0])
    solid = tree.levels > 1  # with twelve one can look through to those behind; with more one could not read it
    shapes: list[str] = []
    labels: list[str] = []
    for _, x, y, radius, path, leaf in balls:
        worker = done_by.get(leaf) if leaf is not None else None
        name = f"position {leaf}" if leaf is not None else ("Node Zero" if not path else f"sphere {path[0]}")
        colour, ink = ("#f2c14e", "#2b2104") if leaf is None else fill(shares.get(worker))
        told = name + (f", done by sphere {worker}" if worker is not None else "")
        if shares.get(worker) is not None:
            told += f", {shares[worker]:.0%} busy"
        shapes.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="{colour}"{"" if solid else OPACITY}/>'
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="url(#{prefix}-light)" class="sp-line"'
            f' stroke-opacity="0.35"><title>{clean(told)}</title></circle>'
        )
        words = ["Node", "Zero"] if not path else [str(path[0] if leaf is None else leaf)]
        if worker is not None and not solid:
            words.append(f"sphere {worker}")
        (shapes if solid else labels).append(_label(x, y, radius, words, ink))
    height = SIDE + 54
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SIDE:g} {height:g}" width="{SIDE:g}" '
        f'height="{height:g}" role="img" aria-labelledby="{prefix}-title {prefix}-about" '
        f'font-family="system-ui, sans-serif" text-anchor="middle">'
        f'<title id="{prefix}-title">{clean(_title(found))}</title>'
        f'<desc id="{prefix}-about">{clean(_about(found))}</desc>'
        f"<style>{STYLE}</style>"
        f'<defs><radialGradient id="{prefix}-light" cx="0.36" cy="0.32" r="0.75">'
        '<stop offset="0" stop-color="#fff" stop-opacity="0.55"/>'
        '<stop offset="0.55" stop-color="#fff" stop-opacity="0"/>'
        '<stop offset="1" stop-color="#000" stop-opacity="0.28"/></radialGradient></defs>'
        f"{''.join(shapes)}{''.join(labels)}{_legend(bool(found['spheres']))}</svg>"
    )


def _label(x: float, y: float, radius: float, words: list[str], ink: str) -> str:
    """A number and below it who, or the two words of Node Zero."""
    sizes = (
        [radius * 0.24] * 2 if words[0] == "Node" else [radius * (0.38 if len(words) == 2 else 0.42), radius * 0.19]
    )
    weights = (600, 600 if words[0] == "Node" else 400)
    baselines = [y + 0.33 * sizes[0]] if len(words) == 1 else [y + 0.02 * radius, y + 0.3 * radius]
    return "".join(
        f'<text x="{x:.1f}" y="{baseline:.1f}" font-size="{size:.1f}" font-weight="{weight}" fill="{ink}">'
        f"{word}</text>"
        for word, size, weight, baseline in zip(words, sizes, weights, baselines, strict=False)
    )


def _legend(measured: bool) -> str:
    y = SIDE + 22
    if not measured:
        return f'<text x="{SIDE / 2:g}" y="{y:g}" font-size="13" class="sp-soft">twelve spheres touch one</text>'
    width = 34
    left = SIDE / 2 - width * len(RAMP) / 2
    boxes = "".join(
        f'<rect x="{left + width * k:g}" y="{y - 11:g}" width="{width - 2}" height="12" fill="{colour}"/>'
        for k, colour in enumerate(RAMP)
    )
    return (
        f'<text x="{left - 10:g}" y="{y:g}" font-size="13" text-anchor="end" class="sp-soft">busy 0 %</text>{boxes}'
        f'<text x="{left + width * len(RAMP) + 8:g}" y="{y:g}" font-size="13" text-anchor="start" class="sp-soft">'
        "100 %</text>"
    )


def _title(found: dict[str, Any]) -> str:
    return f"The spheres of {Path(found['run']).name}" if found["run"] else "The sphere tree"


def _about(found: dict[str, Any]) -> str:
    """The picture in words."""
    words = [f"Node Zero in the middle and {len(found['positions'])} positions around it."]
    for worker in found["spheres"]:
        share = f", {worker['share']:.0%} busy" if worker["share"] is not None else ""
        places = f", positions {ranges(worker['places'])}" if worker.get("places") else ""
        words.append(f"Sphere {worker['number']}{share}{places}.")
    return " ".join(words)
