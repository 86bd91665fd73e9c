"""Draws as SVG: one bar for each path over each module, and for each sweep how the rate grows."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final
from xml.sax.saxutils import escape

from loadtest.plots import Axes, Line, draw_lines

Rows = Sequence[Mapping[str, str | float]]

_COLOURS: Final = {"softhsm": "#33658a", "shim-cloudhsm": "#f26419", "shim-replay": "#86bb5b"}
_WIDTH: Final = 720
_ROW: Final = 18
_LEFT: Final = 190
_RIGHT: Final = 90


def draw(rows: Rows, figure: str, title: str) -> str:
    """Draw one figure of all rows."""
    most = max((float(row[figure]) for row in rows), default=1.0) or 1.0
    height = 40 + _ROW * len(rows)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" '
        f'font-size="12"><rect width="100%" height="100%" fill="white"/><text x="10" y="22" font-size="14" '
        f'font-weight="bold">{escape(title)}</text>'
    )
    return head + "".join(_bar(number, row, figure, most) for number, row in enumerate(rows)) + "</svg>\n"


def draw_sweeps(rows: Rows) -> Iterator[tuple[str, str]]:
    """Draw the rate over each quantity that was swept, with its name; the values stand at even distances."""
    for name in dict.fromkeys(str(row["sweep"]) for row in rows):
        swept = [row for row in rows if row["sweep"] == name]
        values = sorted({float(row["value"]) for row in swept})
        places = {value: float(place) for place, value in enumerate(values)}
        lines: dict[str, list[tuple[float, float]]] = {}
        for row in swept:
            entrance = str(row["path"]).partition("-")[0]
            lines.setdefault(f"{entrance}, {row['module']}", []).append(
                (places[float(row["value"])], float(row["rate"]))
            )
        ticks = [(places[value], f"{value:,.0f}") for value in values]
        drawn = [
            Line(legend, colour, points)
            for (legend, points), colour in zip(lines.items(), _COLOURS.values(), strict=False)
        ]
        yield name, draw_lines(Axes(name, f"signatures a second, by {name}", ticks=ticks), drawn)


def _bar(number: int, row: Mapping[str, str | float], figure: str, most: float) -> str:
    y, value = 36 + _ROW * number, float(row[figure])
    width = (_WIDTH - _LEFT - _RIGHT) * value / most
    name = escape(f"{row['path']}, {row['module']}")
    colour = _COLOURS.get(str(row["module"]), "#777777")
    return (
        f'<text x="{_LEFT - 8}" y="{y + 11}" text-anchor="end">{name}</text>'
        f'<rect x="{_LEFT}" y="{y}" width="{width:.1f}" height="{_ROW - 5}" fill="{colour}"/>'
        f'<text x="{_LEFT + width + 5:.1f}" y="{y + 11}">{value:g}</text>'
    )
