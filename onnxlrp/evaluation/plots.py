"""Plots as SVG text: curves of several methods, and bars with intervals. Nothing outside the text is needed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape

import numpy as np

from onnxlrp.evaluation.case import Array
from onnxlrp.evaluation.summary import Cell, Line, short

#: Colours that people with colour-blindness tell apart (Okabe and Ito 2008), and darker ones for more methods.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5195", "#5f6b6d", "#8c510a", "#222222")
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 640, 320, 84, 24, 12, 44
_ROW, _LABELS, _VALUES = 24, 190, 190


def colour_of(place: int) -> str:
    """The colour of a method by its place in the run."""
    return COLOURS[place % len(COLOURS)]


def curve_chart(means: Mapping[str, Array], order: Sequence[str], x_title: str, y_title: str) -> str:
    """The mean curve of each method over the share that was taken away, with a legend."""
    finite = np.concatenate([m[np.isfinite(m)] for m in means.values()] or [np.zeros(1)])
    low, high = _limits(finite)
    legend = _LEFT + 8
    rows = -(-len(means) // 3)
    height = _HEIGHT + 20 * rows
    lines = [f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(y_title, quote=True)}">']
    lines += _axes(low, high, x_title, y_title)
    for index, (name, mean) in enumerate(means.items()):
        colour = colour_of(order.index(name))
        points = " ".join(
            f"{_x(i / max(1, len(mean) - 1)):.1f},{_y(v, low, high):.1f}" for i, v in enumerate(mean) if np.isfinite(v)
        )
        lines.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        x, y = legend + (index % 3) * 190, _HEIGHT + 10 + 20 * (index // 3)
        lines.append(f'<line x1="{x}" y1="{y}" x2="{x + 22}" y2="{y}" stroke="{colour}" stroke-width="3"/>')
        lines.append(f'<text x="{x + 28}" y="{y + 4}">{escape(name)}</text>')
    return "\n".join([*lines, "</svg>"])


def bar_chart(line: Line, order: Sequence[str]) -> str:
    """The mean of each method as a bar from zero, its interval as a line across the end."""
    cells = [cell for cell in line.cells if cell.count]
    ends = [v for c in cells for v in (c.mean, c.low, c.high) if math.isfinite(v)]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    span = (high - low) or 1.0
    room = _WIDTH - _LABELS - _VALUES

    def x(value: float) -> float:
        return _LABELS + (value - low) / span * room

    height = _ROW * len(cells) + 6
    lines = [f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(line.title, quote=True)}">']
    for index, cell in enumerate(cells):
        top = _ROW * index + 3
        left, right = sorted((x(0.0), x(cell.mean)))
        colour, middle = colour_of(order.index(cell.method)), top + 9
        weight = ' font-weight="bold"' if cell.best else ""
        lines.append(f'<text x="{_LABELS - 8}" y="{top + 13}" text-anchor="end"{weight}>{escape(cell.method)}</text>')
        lines.append(
            f'<rect x="{left:.1f}" y="{top}" width="{max(0.5, right - left):.1f}" height="18" fill="{colour}"'
            ' fill-opacity="0.75"/>'
        )
        if cell.count > 1:
            ends_at = f'x1="{x(cell.low):.1f}" y1="{middle}" x2="{x(cell.high):.1f}" y2="{middle}"'
            lines.append(f'<line {ends_at} stroke="#222" stroke-width="1.5"/>')
        lines.append(f'<text x="{_WIDTH - _VALUES + 8}" y="{top + 13}"{weight}>{escape(_value(cell))}</text>')
    lines.append(f'<line x1="{x(0.0):.1f}" y1="0" x2="{x(0.0):.1f}" y2="{height}" stroke="#888"/>')
    return "\n".join([*lines, "</svg>"])


def _value(cell: Cell) -> str:
    return short(cell.mean) + (f"  [{short(cell.low)}, {short(cell.high)}]" if cell.count > 1 else "")


def _limits(values: Array) -> tuple[float, float]:
    low, high = float(values.min(initial=math.inf)), float(values.max(initial=-math.inf))
    if not math.isfinite(low) or not math.isfinite(high):
        return 0.0, 1.0
    if low >= 0.0 and high <= 1.0:  # probabilities
        return 0.0, 1.0
    margin = 0.05 * ((high - low) or abs(high) or 1.0)
    return low - margin, high + margin


def _x(share: float) -> float:
    return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)


def _y(value: float, low: float, high: float) -> float:
    return _HEIGHT - _BOTTOM - (value - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)


def _axes(low: float, high: float, x_title: str, y_title: str) -> Iterator[str]:
    bottom = _HEIGHT - _BOTTOM
    for part in (0.0, 0.25, 0.5, 0.75, 1.0):
        value = low + part * (high - low)
        y = _y(value, low, high)
        yield f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{_WIDTH - _RIGHT}" y2="{y:.1f}" stroke="#e2e2e2"/>'
        yield f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{short(value)}</text>'
        yield f'<text x="{_x(part):.1f}" y="{bottom + 16}" text-anchor="middle">{part:.0%}</text>'
    yield f'<text x="{_x(0.5):.1f}" y="{bottom + 34}" text-anchor="middle">{escape(x_title)}</text>'
    yield (
        f'<text x="14" y="{(_TOP + bottom) / 2:.0f}" text-anchor="middle" '
        f'transform="rotate(-90 14 {(_TOP + bottom) / 2:.0f})">{escape(y_title)}</text>'
    )
