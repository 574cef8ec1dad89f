"""A picture of a vocabulary: every token at its place, by its code or by what a model has learned.

By the code: roots on the golden-angle spiral, the frequent ones in the middle, forms close around their root. By the
learned vectors: the two directions in which they differ most (principal components). Pointed at, a token tells its
text, code and family, which stands out. Made of what the browser has: no script, no other file.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crystalline.pipeline.markup import clean
from crystalline.tokens.codes import TokenCodes
from crystalline.tokens.positions import Positions
from crystalline.tokens.tokenizer import SPECIAL_TOKENS

SIDE, MARGIN, LEGEND = 1000.0, 22.0, 60.0  # of the picture, in its own units
# What a token is -> its words and its colours on light and on dark ground. Told apart also where colours are not:
# they differ in lightness.
CLASSES = {
    "root": ("a root with a family", "#b45309", "#fbbf24"),
    "form": ("a form by space, case or sign", "#2563eb", "#60a5fa"),
    "derived": ("a form by an ending", "#047857", "#34d399"),
    "alone": ("alone: no other token has its root", "#a1a8b3", "#6b7480"),
    "special": ("a special token", "#be123c", "#fb7185"),
}
LABELS_FROM = 11.0  # units of the picture to a unit of the spiral from which there is room for names
LARGEST = 20  # families in the overview


def overview(codes: TokenCodes) -> dict[str, Any]:
    """The vocabulary in numbers.

    tokens, roots; families: roots with two tokens or more; in_families: tokens that are in them; largest: the largest
    families, each with its root and its members' ids; operators: each factor that is no root with its tokens.
    """
    size = codes.vocabulary_size
    families = {codes.root(id_): codes.family(id_) for id_ in range(size)}
    shared = {root: members for root, members in families.items() if len(members) > 1}
    uses = Counter(factor for id_ in range(size) for factor in codes.factors(id_)[1:])
    largest = sorted(shared.items(), key=lambda item: (-len(item[1]), item[0].prime))[:LARGEST]
    return {
        "tokens": size,
        "roots": len(families),
        "families": len(shared),
        "in_families": sum(map(len, shared.values())),
        "largest": [{"root": vars(root), "members": members} for root, members in largest],
        "operators": [{"factor": factor, "tokens": uses[factor]} for factor in sorted(uses)],
    }


def class_of(codes: TokenCodes, id_: int) -> str:
    """Which of CLASSES a token is in."""
    if id_ < len(SPECIAL_TOKENS) and codes.root(id_).name == SPECIAL_TOKENS[id_]:  # an imported one has others
        return "special"
    if len(codes.family(id_)) == 1:
        return "alone"
    kinds = {factor.kind for factor in codes.factors(id_)[1:]}
    return "root" if not kinds else "derived" if "suffix" in kinds else "form"


def spiral_places(codes: TokenCodes) -> NDArray[np.float64]:
    """(V, 2): the roots' exact places, rounded; forms around theirs.

    In the plane there is no direction for each operator, so each gets a golden angle, and a form stands in the
    direction of its operators' sum: near enough to its root to be seen as its own.
    """
    positions = Positions(codes)
    angles = np.arange(1, len(positions.axes) + 1) * math.pi * (3 - math.sqrt(5))
    turned = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    moved = positions.operators.astype(np.float64) @ turned.reshape(-1, 2)
    lengths = np.linalg.norm(moved, axis=1, keepdims=True)
    # From 0.4, for one operator, towards 0.75: neighbouring roots are 1.6 apart.
    far = 0.75 - 0.35 / np.maximum(positions.operators.sum(axis=1, keepdims=True), 1)
    return np.asarray(positions.plane + np.where(lengths > 1e-9, moved / np.maximum(lengths, 1e-9), 0.0) * far)


def main_directions(vectors: NDArray[np.floating[Any]]) -> tuple[NDArray[np.float64], float]:
    """Principal components (Pearson 1901): (V, 2) coordinates along the first two, and their share of variance."""
    centred = np.asarray(vectors, dtype=np.float64)
    centred = centred - centred.mean(axis=0)
    values, directions = np.linalg.eigh(centred.T @ centred)
    two = directions[:, ::-1][:, :2]
    # An eigenvector has no sign of its own: its largest entry is made positive.
    two = two * np.sign(two[np.abs(two).argmax(axis=0), [0, 1][: two.shape[1]]])
    total = float(values.sum())
    return centred @ two, float(values[-2:].sum()) / total if total > 0 else 0.0


def svg(codes: TokenCodes, text: Callable[[int], str], vectors: NDArray[np.floating[Any]] | None = None) -> str:
    """The map as a self-contained SVG picture.

    text: a token's text. vectors: (V, D) learned ones to draw instead of the spiral.
    """
    if vectors is None:
        places, how = spiral_places(codes), "Roots on the golden-angle spiral, frequent ones in the middle."
    else:
        places, share = main_directions(vectors)
        how = f"The two main directions of the learned vectors: {share:.0%} of their variance."
    low, high = places.min(axis=0), places.max(axis=0)
    unit = (SIDE - 2 * MARGIN) / max(float((high - low).max()), 1e-9)
    at = SIDE / 2 + (places - (low + high) / 2) * unit * (1, -1)
    spacing = unit * 1.77 if vectors is None else 0.9 * SIDE / math.sqrt(len(places))
    radius = min(6.0, max(0.7, 0.17 * spacing))
    groups, names, seen = [], [], Counter[str]()
    for members in {codes.root(id_).prime: codes.family(id_) for id_ in range(codes.vocabulary_size)}.values():
        dots = []
        for id_ in members:
            kind = class_of(codes, id_)
            seen[kind] += 1
            primes = " × ".join(str(factor.prime) for factor in sorted(codes.factors(id_)))
            product = f" = {primes}" if len(codes.factors(id_)) > 1 else ""
            told = f"{text(id_)!r}: {codes.code(id_)}{product}"
            if len(members) > 1:
                told += f", one of {len(members)} of {codes.root(id_).name!r}"
            x, y = at[id_]
            size = radius if kind != "alone" else 0.75 * radius
            dots.append(
                f'<circle class="m-{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{size:.2f}">'
                f"<title>{clean(told)}</title></circle>"
            )
        groups.append(f"<g>{''.join(dots)}</g>")
        if vectors is None and unit >= LABELS_FROM:
            x, y = at[members[0]]
            label = clean(codes.root(members[0]).name[:12])
            names.append(f'<text class="m-name" x="{x:.1f}" y="{y - 1.3 * radius:.1f}">{label}</text>')
    about = f"{codes.vocabulary_size:,} tokens. {how}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SIDE:g} {SIDE + LEGEND:g}" role="img" '
        f'aria-labelledby="map-title map-about" font-family="system-ui, sans-serif" font-size="13">'
        f'<title id="map-title">Map of the vocabulary</title><desc id="map-about">{clean(about)}</desc>'
        f'<style>{_style()}</style><rect class="m-ground" width="{SIDE:g}" height="{SIDE + LEGEND:g}"/>'
        f"{''.join(groups)}{''.join(names)}{_legend(seen, about)}</svg>\n"
    )


def _style() -> str:
    """Colours for light and for dark surroundings; the family that is pointed at stands out."""
    light = "".join(f".m-{kind}{{fill:{colour}}}" for kind, (_, colour, _) in CLASSES.items())
    dark = "".join(f".m-{kind}{{fill:{colour}}}" for kind, (_, _, colour) in CLASSES.items())
    return (
        f".m-ground{{fill:#fff}}.m-ink{{fill:#1d232b}}.m-name{{fill:#1d232b;font-size:8px;text-anchor:middle}}{light}"
        "g:hover circle{stroke:#1d232b;stroke-width:1.5}"
        "@media (prefers-color-scheme:dark){.m-ground{fill:#14181d}.m-ink,.m-name{fill:#e8ebef}"
        f"{dark}g:hover circle{{stroke:#fff}}}}"
    )


def _legend(seen: Counter[str], about: str) -> str:
    parts = [f'<text class="m-ink" x="{MARGIN:g}" y="{SIDE + 20:g}">{clean(about)}</text>']
    x, y = MARGIN, SIDE + 42
    for kind, (words, _, _) in CLASSES.items():
        if seen[kind]:
            label = f"{words} ({seen[kind]:,})"
            parts.append(f'<circle class="m-{kind}" cx="{x + 5:g}" cy="{y - 4.5:g}" r="5"/>')
            parts.append(f'<text class="m-ink" x="{x + 14:g}" y="{y:g}" font-size="11">{clean(label)}</text>')
            x += 24 + 5.6 * len(label)
    return "".join(parts)
