"""Draws lines as SVG, to stand inside a page that asks nobody for anything."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

Point = tuple[float, float]

COLOURS: Final = ("#33658a", "#f26419", "#86bb5b", "#8e4a8e")
_WIDTH: Final = 720
_HEIGHT: Final = 260
_LEFT: Final = 64
_RIGHT: Final = 16
_TOP: Final = 40
_BOTTOM: Final = 40
_TICKS: Final = 5


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a plot, with the name that stands in its legend."""

    name: str
    points: Sequence[Point]
    dashed: bool = False


def draw(title: str, x_name: str, y_name: str, lines: Sequence[Line]) -> str:
    """Draw lines over common axes that begin at zero."""
    points = [point for line in lines for point in line.points]
    x_most = _round_up(max((x for x, _ in points), default=1.0))
    y_most = _round_up(max((y for _, y in points), default=1.0))
    drawn = [_axes(x_most, y_most, x_name, y_name)]
    for number, line in enumerate(lines):
        drawn.append(_line(line, COLOURS[number % len(COLOURS)], x_most, y_most))
        drawn.append(_legend(number, line.name))
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        f'font-size="11" role="img" aria-label="{escape(title)}"><rect width="100%" height="100%" fill="white"/>'
        f'<text x="{_LEFT}" y="16" font-size="13" font-weight="bold">{escape(title)}</text>'
    )
    return head + "".join(drawn) + "</svg>"


def _axes(x_most: float, y_most: float, x_name: str, y_name: str) -> str:
    parts = []
    for tick in range(_TICKS + 1):
        x, y = _place(x_most * tick / _TICKS, y_most * tick / _TICKS, x_most, y_most)
        parts.append(
            f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{_WIDTH - _RIGHT}" y2="{y:.1f}" stroke="#dddddd"/>'
            f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{y_most * tick / _TICKS:g}</text>'
            f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 15}" text-anchor="middle">{x_most * tick / _TICKS:g}</text>'
        )
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(x_name)}</text>')
    parts.append(f'<text x="{_WIDTH - _RIGHT}" y="16" text-anchor="end" fill="#555555">{escape(y_name)}</text>')
    return "".join(parts)


def _line(line: Line, colour: str, x_most: float, y_most: float) -> str:
    places = (_place(x, y, x_most, y_most) for x, y in line.points)
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dash = ' stroke-dasharray="5 4"' if line.dashed else ""
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"{dash}/>'


def _legend(number: int, name: str) -> str:
    x = _LEFT + 160 * number
    colour = COLOURS[number % len(COLOURS)]
    return (
        f'<rect x="{x}" y="{_TOP - 16}" width="10" height="10" fill="{colour}"/>'
        f'<text x="{x + 14}" y="{_TOP - 7}">{escape(name)}</text>'
    )


def _place(x: float, y: float, x_most: float, y_most: float) -> Point:
    across, down = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    return _LEFT + across * x / x_most, _HEIGHT - _BOTTOM - down * y / y_most


def _round_up(value: float) -> float:
    if value <= 0:
        return 1.0
    unit = 10.0 ** math.floor(math.log10(value))
    return math.ceil(value / unit * 2) / 2 * unit
