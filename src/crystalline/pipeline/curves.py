"""Curves of a run as inline SVG: thinned to the page's pixels, with axes, units, and a text for who cannot see."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from crystalline.pipeline.markup import clean

WIDE, NARROW, HEIGHT = 720, 460, 240  # of a drawing, in its own units
LEFT, RIGHT, TOP, BOTTOM = 66, 18, 10, 40  # room for the axes


@dataclass(frozen=True)
class Course:
    """What was measured over the steps. x: steps, rising; y: as many numbers, NaN where there is none."""

    x: np.ndarray
    y: np.ndarray

    @property
    def sound(self) -> Course:
        """Without what is no number."""
        keep = np.isfinite(self.y)
        return Course(self.x[keep], self.y[keep])


def smooth(y: np.ndarray, window: int) -> np.ndarray:
    """The mean of `window` values around each; fewer at the ends, always as many on both sides."""
    sums = np.concatenate([[0.0], np.cumsum(y, dtype=np.float64)])
    index = np.arange(len(y))
    half = np.minimum(window // 2, np.minimum(index, len(y) - 1 - index))
    return np.asarray((sums[index + half + 1] - sums[index - half]) / (2 * half + 1))


def thin(course: Course, columns: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(x, lowest y, highest y) in at most so many equal columns of x: nothing that stands out is lost."""
    x, y = course.x, course.y
    if len(x) <= columns:
        return x, y, y
    column = np.minimum((x - x[0]) * columns // max(1, x[-1] - x[0]), columns - 1)
    starts = np.flatnonzero(np.diff(column, prepend=-1))
    ends = np.append(starts[1:], len(x))
    return (x[starts] + x[ends - 1]) / 2, np.minimum.reduceat(y, starts), np.maximum.reduceat(y, starts)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from `low` to `high`, about so many: multiples of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * k for k in (1, 2, 5, 10) if power * k >= 0.8 * rough)
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten from `low` to `high`; over less than two decades their 2- and 5-folds too."""
    factors = (1, 2, 5) if math.log10(high / low) < 2 else (1,)
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found = [k * 10.0**e for e in exponents for k in factors]
    return [value for value in found if low * 0.999 <= value <= high * 1.001]


@dataclass(frozen=True)
class Scale:
    """From a measure to the place on the drawing."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: np.ndarray | float) -> np.ndarray:
        low, high = self.low, self.high
        if self.logarithmic:
            value, low, high = np.log(value), math.log(low), math.log(high)
        return np.asarray(self.start + (value - low) / ((high - low) or 1.0) * (self.end - self.start))


def number(value: float) -> str:
    """A number at an axis or in a table: 0.00125, 12.3, 1,250, 42.9 k."""
    if value == 0:
        return "0"
    if abs(value) >= 1e5:
        for limit, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
            if abs(value) >= limit:
                return f"{value / limit:.4g}{unit}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def chart(
    name: str, title: str, unit: str, course: Course, *, window: int = 1, dots: bool = False, width: int = NARROW
) -> str:
    """A drawing of one course.

    name: of the ids in it. window: steps that the strong line is the mean of, with all values as a pale band behind
    it; 1: the values themselves. dots: mark each value. width: of the drawing. The vertical axis is logarithmic
    where values differ a hundredfold.
    """
    course = course.sound
    if len(course.x) == 0:
        return ""
    if len(course.x) == 1:
        dots = True
    bands = thin(course, width - LEFT - RIGHT)
    low, high = float(course.y.min()), float(course.y.max())
    logarithmic = low > 0 and high > 100 * low
    if not logarithmic:
        room = 0.04 * (high - low) or abs(high) * 0.1 or 1.0
        low, high = (0.0 if low >= 0 and low < 0.3 * high else low - room), high + room
    across = Scale(0.0, max(1.0, float(course.x[-1])), LEFT, width - RIGHT)
    up = Scale(low, high, HEIGHT - BOTTOM, TOP, logarithmic)
    parts = [_axes(across, up, unit)]
    if window > 1:
        parts.append(_band(across(bands[0]), up(bands[1]), up(bands[2])))
        line = Course(course.x, smooth(course.y, window))
    else:
        line = course
    x, y_low, y_high = thin(line, width - LEFT - RIGHT)
    parts.append(f'<path class="line" d="{_path(across(x), up((y_low + y_high) / 2))}"/>')
    if dots:
        for at, value, step in zip(across(x), up(y_low), x, strict=True):
            told = f"step {step:,.0f}: {number(float(y_low[x == step][0]))} {unit}"
            parts.append(
                f'<circle class="dot" cx="{at:.1f}" cy="{value:.1f}" r="3.5"><title>{clean(told)}</title></circle>'
            )
    about = (
        f"{title}, from step {course.x[0]:,.0f} to {course.x[-1]:,.0f}: first {number(float(line.y[0]))}, "
        f"last {number(float(line.y[-1]))}, lowest {number(float(course.y.min()))}, "
        f"highest {number(float(course.y.max()))} {unit}."
    )
    return (
        f'<svg class="chart{" big" if width == WIDE else ""}" viewBox="0 0 {width} {HEIGHT}" role="img" '
        f'aria-labelledby="{name}-title {name}-about">'
        f'<title id="{name}-title">{clean(title)}</title><desc id="{name}-about">{clean(about)}</desc>'
        f"{''.join(parts)}</svg>"
    )


def _axes(across: Scale, up: Scale, unit: str) -> str:
    parts, right = [], across.end
    bottom = HEIGHT - BOTTOM
    for value in log_ticks(up.low, up.high) if up.logarithmic else ticks(up.low, up.high):
        y = float(up(value))
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{right:g}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{number(round(value, 12))}</text>')
    for value in ticks(across.low, across.high, 6 if right > 500 else 4):
        x = float(across(value))
        if float(value).is_integer():  # there is no half step
            parts.append(f'<path class="tick" d="M{x:.1f} {bottom}v4"/>')
            parts.append(f'<text x="{x:.1f}" y="{bottom + 17}" text-anchor="middle">{number(value)}</text>')
    parts.append(f'<path class="axis" d="M{LEFT} {bottom}H{right:g}"/>')
    parts.append(f'<text class="name" x="{(LEFT + right) / 2:g}" y="{HEIGHT - 6}" text-anchor="middle">step</text>')
    middle = (TOP + bottom) / 2
    scale = " (logarithmic)" if up.logarithmic else ""
    parts.append(
        f'<text class="name" transform="translate(13 {middle:.0f}) rotate(-90)" text-anchor="middle">'
        f"{clean(unit + scale)}</text>"
    )
    return "".join(parts)


def _band(x: np.ndarray, low: np.ndarray, high: np.ndarray) -> str:
    return f'<path class="band" d="{_path(x, high)}L{_path(x[::-1], low[::-1])[1:]}Z"/>'


def _path(x: np.ndarray, y: np.ndarray) -> str:
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x.tolist(), y.tolist(), strict=True))
