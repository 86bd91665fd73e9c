"""Draws lines and stacked bars as SVG, to stand inside a page."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

_WIDTH: Final = 1000
_HEIGHT: Final = 300
_LEFT: Final = 70
_RIGHT: Final = 28
_TOP: Final = 40
_BOTTOM: Final = 44
_GRID: Final = "#dfe3e8"
_INK: Final = "#33404f"
_TICKS: Final = 6

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart."""

    name: str
    colour: str
    points: Points


@dataclass(frozen=True, slots=True)
class Axes:
    """What a chart shows; `ticks` are places on the x axis with their names, else it is divided evenly."""

    x: str
    y: str
    log_y: bool = False
    ticks: Sequence[tuple[float, str]] = ()
    bands: Sequence[tuple[float, float, str]] = ()
    """Stretches of the x axis, shaded in turns, with a name over each."""
    mark: tuple[float, str] | None = None
    """A place on the x axis to point at."""


class _Scale:
    """From values to pixels."""

    def __init__(self, axes: Axes, points: Points) -> None:
        self._log = axes.log_y
        self.low_x, self.high_x = min(x for x, _ in points), max(x for x, _ in points)
        high = max(y for _, y in points) or 1.0
        if self._log:
            self.low_y = 10.0 ** math.floor(math.log10(max(1e-3, min(y for _, y in points if y > 0))))
            self.high_y = 10.0 ** math.ceil(math.log10(high) + 1e-9)
        else:
            step = _nice(high / _TICKS)
            self.low_y, self.high_y = 0.0, step * math.ceil(high / step + 1e-9)

    def x(self, value: float) -> float:
        wide = self.high_x - self.low_x or 1.0
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (value - self.low_x) / wide

    def y(self, value: float) -> float:
        if self._log:
            value = max(value, self.low_y)
            part = math.log10(value / self.low_y) / math.log10(self.high_y / self.low_y)
        else:
            part = value / self.high_y
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * part

    def ticks_y(self) -> list[float]:
        if self._log:
            decades = round(math.log10(self.high_y / self.low_y))
            return [self.low_y * 10**number for number in range(decades + 1)]
        step = _nice(self.high_y / _TICKS)
        return [step * number for number in range(int(self.high_y / step + 1e-9) + 1)]

    def ticks_x(self) -> list[float]:
        step = _nice((self.high_x - self.low_x) / 10 or 1.0)
        first = math.ceil(self.low_x / step)
        return [step * number for number in range(first, int(self.high_x / step + 1e-9) + 1)]


def _nice(rough: float) -> float:
    power: float = 10.0 ** math.floor(math.log10(rough))
    return power * next(factor for factor in (1, 2, 5, 10) if factor * power >= rough - 1e-12)


def draw_lines(axes: Axes, lines: Sequence[Line]) -> str:
    """Draw lines over common axes; nothing at all gives an empty string."""
    points = [point for line in lines for point in line.points]
    if not any(y > 0 for _, y in points):
        return ""
    scale = _Scale(axes, points)
    parts = [*_head(axes.y), *_bands(axes, scale), *_grid(axes, scale)]
    for number, line in enumerate(lines):
        path = " ".join(f"{scale.x(x):.1f},{scale.y(y):.1f}" for x, y in line.points)
        parts.append(f'<polyline fill="none" stroke="{line.colour}" stroke-width="1.8" points="{path}"/>')
        parts += _legend(number, line.name, line.colour)
    if axes.mark is not None:
        x, red = scale.x(axes.mark[0]), "#c0392b"
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}" stroke="{red}" '
                     f'stroke-dasharray="5 4"/>{_text(x + 5, _TOP + 14, axes.mark[1], "start", red)}')  # fmt: skip
    return "".join([*parts, "</svg>"])


def draw_stacks(unit: str, names: Sequence[str], stacks: Sequence[Line]) -> str:
    """Draw one bar for each name: of each of `stacks` the point of the same number, one over the other."""
    totals = [sum(stack.points[at][1] for stack in stacks) for at in range(len(names))]
    if not any(totals):
        return ""
    scale = _Scale(Axes("", unit), [(-0.5, 0.0), (len(names) - 0.5, max(totals))])
    ticks = [(float(at), name) for at, name in enumerate(names)]
    parts = [*_head(unit), *_grid(Axes("phase", unit, ticks=ticks), scale)]
    base = [0.0] * len(names)
    width = min(60.0, (_WIDTH - _LEFT - _RIGHT) / len(names) * 0.7)
    for number, stack in enumerate(stacks):
        for at, (_, value) in enumerate(stack.points):
            top, bottom = scale.y(base[at] + value), scale.y(base[at])
            base[at] += value
            parts.append(f'<rect x="{scale.x(at) - width / 2:.1f}" y="{top:.1f}" width="{width:.1f}" '
                         f'height="{bottom - top:.1f}" fill="{stack.colour}"><title>{escape(stack.name)}: {value:.2f} '
                         f'{escape(unit)}</title></rect>')  # fmt: skip
        parts += _legend(number, stack.name, stack.colour)
    return "".join([*parts, "</svg>"])


def _head(title: str) -> Iterator[str]:
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="12" fill="{_INK}"><title>{escape(title)}</title>'
    )
    yield _text(4, 16, title, "start", _INK)


def _bands(axes: Axes, scale: _Scale) -> Iterator[str]:
    for number, (start, end, name) in enumerate(axes.bands):
        left, right = scale.x(start), scale.x(min(end, scale.high_x))
        colour = "#f3f6f9" if number % 2 else "#ffffff"
        yield (f'<rect x="{left:.1f}" y="{_TOP}" width="{max(0.0, right - left):.1f}" '
               f'height="{_HEIGHT - _TOP - _BOTTOM}" fill="{colour}"><title>{escape(name)}</title></rect>')  # fmt: skip
        if right - left > 8 * len(name):
            yield _text((left + right) / 2, _TOP + 13, name, "middle", "#8795a5")


def _grid(axes: Axes, scale: _Scale) -> Iterator[str]:
    for value in scale.ticks_y():
        y = scale.y(value)
        yield f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="{_GRID}"/>'
        yield _text(_LEFT - 8, y + 4, f"{value:,g}", "end", _INK)
    name_of: Callable[[float], str] = "{:g}".format
    for value, name in axes.ticks or [(value, name_of(value)) for value in scale.ticks_x()]:
        yield _text(scale.x(value), _HEIGHT - _BOTTOM + 17, name, "middle", _INK)
    yield _text((_WIDTH + _LEFT) / 2, _HEIGHT - 6, axes.x, "middle", "#66758a")


def _legend(number: int, name: str, colour: str) -> Iterator[str]:
    x = _WIDTH - _RIGHT - 130 * (number + 1)
    yield f'<rect x="{x}" y="8" width="12" height="10" fill="{colour}"/>'
    yield _text(x + 17, 17, name, "start", _INK)


def _text(x: float, y: float, text: str, anchor: str, colour: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'
