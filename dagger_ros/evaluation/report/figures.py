"""Figures as SVG text: the page's own colours and fonts, the same text each time."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

__all__ = ["Point", "bars", "curve"]

# Small enough that its text can be read where the figure fills a phone.
_WIDTH, _HEIGHT = 430, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 18, 46


@dataclass(frozen=True)
class Point:
    """One policy.

    Args:
        name: Stands beside it.
        x: Where.
        y: What it reached.
        low: Lower end of the interval of `y`; None: there is none.
        high: Upper end.
        chosen: Whether it is the one that is recommended.
    """

    name: str
    x: float
    y: float
    low: float | None = None
    high: float | None = None
    chosen: bool = False


def curve(points: Sequence[Point], *, x_label: str, y_label: str, top: float | None, percent: bool) -> str:
    """Points that are joined, with their intervals; the chosen one is filled and larger.

    Args:
        points: From left to right.
        x_label: Below.
        y_label: Beside.
        top: Upper end of the axis; None: the largest value.
        percent: Whether the axis is in percent.
    """
    largest = top if top is not None else 1.05 * max([p.y if p.high is None else p.high for p in points] or [0]) or 1.0
    lowest_x, highest_x = min(p.x for p in points), max(p.x for p in points)
    span = (highest_x - lowest_x) or 1.0
    lowest_x, highest_x = max(0.0, lowest_x - 0.06 * span), highest_x + 0.08 * span

    def x_of(value: float) -> float:
        return _LEFT + (value - lowest_x) / (highest_x - lowest_x) * (_WIDTH - _LEFT - _RIGHT)

    parts = _axes(largest, y_label, percent)
    for tick in _ticks(lowest_x, highest_x):
        parts.append(f'<text x="{x_of(tick):.1f}" y="{_HEIGHT - _BOTTOM + 17}" text-anchor="middle">{tick:g}</text>')
    parts.append(_x_label(x_label))
    path = " ".join(f"{x_of(p.x):.1f},{_y_of(p.y, largest):.1f}" for p in points)
    parts.append(f'<polyline class="line" points="{path}"/>')
    for p in points:
        x, y = x_of(p.x), _y_of(p.y, largest)
        if p.low is not None and p.high is not None:
            low, high = _y_of(p.low, largest), _y_of(p.high, largest)
            bar = f"M{x:.1f} {low:.1f}V{high:.1f}M{x - 4:.1f} {low:.1f}h8M{x - 4:.1f} {high:.1f}h8"
            parts.append(f'<path class="whisker" d="{bar}"/>')
        kind, radius = ("chosen", 6) if p.chosen else ("point", 4)
        parts.append(f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}"/>')
    written: list[tuple[float, float]] = []
    before = {p.name: q.y for q, p in itertools.pairwise(points)}
    for p in sorted(points, key=lambda p: not p.chosen):  # the recommended one is named in any case
        rises = p.y > before.get(p.name, 0.0)
        place = _free_place(x_of(p.x), _y_of(p.y, largest), written, rises=rises)
        if place is not None:
            written.append(place)
            parts.append(f'<text class="name" x="{place[0]:.1f}" y="{place[1]:.1f}">{escape(p.name)}</text>')
    return _svg(parts, f"{y_label} over {x_label}: " + _said(points, percent))


def bars(points: Sequence[Point], *, y_label: str, percent: bool) -> str:
    """One bar for each policy, with its figure on top; `x` does not count.

    Args:
        points: From left to right.
        y_label: Beside.
        percent: Whether the axis is in percent.
    """
    largest = 1.12 * max((p.y for p in points), default=0.0) or 1.0
    parts = _axes(largest, y_label, percent)
    step = (_WIDTH - _LEFT - _RIGHT) / len(points)
    for i, p in enumerate(points):
        x, y = _LEFT + (i + 0.5) * step, _y_of(p.y, largest)
        width = min(40.0, 0.7 * step)
        parts.append(
            f'<rect class="bar{" chosen" if p.chosen else ""}" x="{x - width / 2:.1f}" y="{y:.1f}" '
            f'width="{width:.1f}" height="{_HEIGHT - _BOTTOM - y:.1f}"/>'
        )
        text = f"{100 * p.y:.0f} %" if percent else f"{p.y:.3g}"
        parts.append(f'<text class="name" x="{x:.1f}" y="{y - 4:.1f}" text-anchor="middle">{text}</text>')
        if len(points) <= 8 or i % -(-len(points) // 8) == 0:
            parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 17}" text-anchor="middle">{escape(p.name)}</text>')
    return _svg(parts, f"{y_label}: " + _said(points, percent))


def _svg(parts: Sequence[str], description: str) -> str:
    return (
        f'<svg class="figure" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img"><title>{escape(description)}</title>'
        f"{''.join(parts)}</svg>"
    )


def _said(points: Sequence[Point], percent: bool) -> str:
    return ", ".join(f"{p.name} {f'{100 * p.y:.0f} %' if percent else f'{p.y:.3g}'}" for p in points)


def _axes(largest: float, label: str, percent: bool) -> list[str]:
    parts = []
    for tick in _ticks(0.0, largest):
        y = _y_of(tick, largest)
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>')
        text = f"{100 * tick:g} %" if percent else f"{tick:g}"
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    middle = _TOP + (_HEIGHT - _TOP - _BOTTOM) / 2
    parts.append(
        f'<text class="label" transform="translate(11 {middle:.0f}) rotate(-90)" text-anchor="middle">'
        f"{escape(label)}</text>"
    )
    return parts


def _x_label(text: str) -> str:
    middle = _LEFT + (_WIDTH - _LEFT - _RIGHT) / 2
    return f'<text class="label" x="{middle:.0f}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(text)}</text>'


def _y_of(value: float, largest: float) -> float:
    return _HEIGHT - _BOTTOM - value / largest * (_HEIGHT - _TOP - _BOTTOM)


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers between, about four."""
    raw = (high - low) / 4
    unit = 10.0 ** np.floor(np.log10(raw))
    step = float(next(unit * m for m in (1, 2, 2.5, 5, 10) if unit * m >= raw * 0.999))
    first = int(np.ceil(low / step - 1e-9))
    last = int(np.floor(high / step + 1e-9))
    return [float(f"{i * step:.10g}") for i in range(first, last + 1)]


def _free_place(
    x: float, y: float, written: Sequence[tuple[float, float]], *, rises: bool
) -> tuple[float, float] | None:
    """Where a name writes neither over another one nor, if it can be, over the line to its point; None: nowhere."""
    above_left, below_right, above_right = (x - 50, y - 5), (x + 7, y + 15), (x + 7, y - 8)
    for place in (above_left, below_right, above_right) if rises else (above_right, below_right, above_left):
        inside = _LEFT <= place[0] <= _WIDTH - 42 and place[1] > 8
        if inside and all(abs(place[0] - a) > 44 or abs(place[1] - b) > 13 for a, b in written):
            return place
    return None
