"""Draws throughput over time with the faults marked, as SVG: two panels, one over the other, and the list of faults."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from statistics import median
from typing import Final

from signer.drill.evidence import ENTRANCES, Event
from signer.drill.exercise import Kind
from signer.drill.trial import Trial

_WIDTH: Final = 1600
_LEFT: Final = 70
_RIGHT: Final = 20
_PANEL: Final = 220
_GAP: Final = 70
_TOP: Final = 160
_ROW: Final = 22
_COLUMNS: Final = 4
_TICK_S: Final = 20
_THIN: Final = 2.0
_SIGNED: Final = "#222"
_FAILED: Final = "#d62728"
_TITLES: Final = {"http": "HTTP: signatures per second", "sqs": "SQS: transactions forwarded per second"}
_HOW_TO_READ: Final = (
    "Black: what came out. Red: tries that failed; whoever failed came again. Shaded, or a stripe if it was over at "
    "once: a fault, by its number below. The peak after it is what had waited, cut off at the top."
)
_TAKES: Final = {
    Kind.SESSION: "sessions lost",
    Kind.LOGIN: "login lost",
    Kind.REBUILD: "module to be rebuilt",
    Kind.THROTTLE: "throttled or slow",
    Kind.HANG: "calls hang",
    Kind.CRASH: "process dies",
    Kind.SIGNATURE: "wrong signature",
    Kind.OPERATOR: "a person has to act",
}
_COLOURS: Final = {
    Kind.SESSION: "#4c78a8",
    Kind.LOGIN: "#72b7b2",
    Kind.REBUILD: "#f58518",
    Kind.THROTTLE: "#eeca3b",
    Kind.HANG: "#b279a2",
    Kind.CRASH: "#9d755d",
    Kind.SIGNATURE: "#54a24b",
    Kind.OPERATOR: "#7f7f7f",
}


@dataclass(frozen=True, slots=True)
class _Scale:
    """From seconds since the beginning, and counts, to pixels."""

    since_s: float
    seconds: int
    most: int

    @property
    def step(self) -> float:
        return (_WIDTH - _LEFT - _RIGHT) / self.seconds

    def x(self, second: float) -> float:
        return _LEFT + second * self.step

    def height(self, count: int) -> float:
        return _PANEL * min(count, self.most) / self.most


def draw(trials: Sequence[Trial], events: Sequence[Event], result: str) -> str:
    """Give the picture of a drill, with its result in words."""
    moments = [event.at_s for event in events] + [at_s for trial in trials for at_s in (trial.began_s, trial.ended_s)]
    rows = -(-len(trials) // _COLUMNS)
    names_top = _TOP + len(ENTRANCES) * (_PANEL + _GAP)
    height = names_top + rows * _ROW
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" font-family="sans-serif">',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
        _text(_LEFT, 30, "Throughput while the HSM fails", size=20),
        _text(_LEFT, 54, result, size=15),
        _text(_LEFT, 76, _HOW_TO_READ, colour="#555"),
        *_legend(90),
    ]
    for number, entrance in enumerate(ENTRANCES):
        ours = [event for event in events if event.entrance == entrance]
        top = _TOP + number * (_PANEL + _GAP)
        lines += [_text(_LEFT, top - 30, _TITLES[entrance]), *_panel(top, ours, trials, min(moments), max(moments))]
    lines += _names(names_top, trials, rows)
    return "\n".join([*lines, "</svg>", ""])


def _panel(top: int, events: Sequence[Event], trials: Sequence[Trial], since_s: float, until_s: float) -> Iterator[str]:
    signed, failed = _per_second(events, since_s, failures=False), _per_second(events, since_s, failures=True)
    # A queue that is worked off after an outage would flatten everything else: what is beyond is cut off.
    usual = median(signed.values()) if signed else 1
    scale = _Scale(since_s, int(until_s - since_s) + 1, max(1, round(2.5 * usual)))
    bottom = top + _PANEL
    for number, trial in enumerate(trials, start=1):
        yield from _mark(number, trial, scale, top)
    for second, count in failed.items():
        height = scale.height(count)
        yield _box(scale.x(second), bottom - height, scale.step, height, f'fill="{_FAILED}"')
    points = (f"{scale.x(n + 0.5):.1f},{bottom - scale.height(signed[n]):.1f}" for n in range(scale.seconds))
    yield f'<polyline points="{" ".join(points)}" fill="none" stroke="{_SIGNED}" stroke-width="1.6"/>'
    yield from _axes(scale, top)


def _per_second(events: Sequence[Event], since_s: float, *, failures: bool) -> Counter[int]:
    counts: Counter[int] = Counter()
    for event in events:
        if (event.code is not None) is failures:
            counts[int(event.at_s - since_s)] += event.transactions
    return counts


def _mark(number: int, trial: Trial, scale: _Scale, top: int) -> Iterator[str]:
    """Shade the time of a fault, and number it."""
    x = scale.x(trial.began_s - scale.since_s)
    width = scale.x(trial.ended_s - scale.since_s) - x
    colour = _COLOURS[trial.exercise.kind]
    if width < _THIN:
        yield _box(x, top, _THIN, _PANEL, f'fill="{colour}"')
    else:
        yield _box(x, top, width, _PANEL, f'fill="{colour}" fill-opacity="0.35"')
    # Every other number stands higher: short faults come closer than their numbers are wide.
    yield _text(x, top - 3 - 11 * (number % 2), str(number), size=11, colour="#555")


def _axes(scale: _Scale, top: int) -> Iterator[str]:
    bottom = top + _PANEL
    yield f'<path d="M{_LEFT} {top} V{bottom} H{_WIDTH - _RIGHT}" fill="none" stroke="#888"/>'
    for count in (0, scale.most // 2, scale.most):
        yield _text(_LEFT - 8, bottom - scale.height(count) + 4, str(count), anchor="end", colour="#555")
    for second in range(0, scale.seconds, _TICK_S):
        yield _text(scale.x(second), bottom + 16, f"{second} s", anchor="middle", size=11, colour="#555")


def _legend(top: int) -> Iterator[str]:
    x = _LEFT
    entries = [
        ("signed", _SIGNED),
        ("failed tries", _FAILED),
        *((_TAKES[kind], colour) for kind, colour in _COLOURS.items()),
    ]
    for name, colour in entries:
        yield _box(x, top, 12, 12, f'fill="{colour}"')
        yield _text(x + 17, top + 11, name)
        x += 34 + 8 * len(name)


def _names(top: int, trials: Sequence[Trial], rows: int) -> Iterator[str]:
    column = (_WIDTH - _LEFT) / _COLUMNS
    for index, trial in enumerate(trials):
        x, y = _LEFT + index // rows * column, top + index % rows * _ROW
        yield _box(x, y - 10, 10, 10, f'fill="{_COLOURS[trial.exercise.kind]}"')
        yield _text(x + 16, y, f"{index + 1}  {trial.exercise.name}")


def _box(x: float, y: float, width: float, height: float, style: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" {style}/>'


def _text(x: float, y: float, words: str, *, size: int = 13, anchor: str = "start", colour: str = "#111") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}"'
    return f'<text {place} fill="{colour}">{escape(words)}</text>'
