"""Draws bars as SVG: one group for each path, one bar for each module."""

from collections.abc import Mapping, Sequence
from typing import Final
from xml.sax.saxutils import escape

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
