# SPDX-License-Identifier: Apache-2.0
"""Figures as inline SVG, whose colours are the page's."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

from .read import Curve

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 460, 250, 52, 12, 10, 40
_MOST = 400  # points of a line
Label = Callable[[float], str]


def short(value: float) -> str:
    """A number of an axis."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:g}{unit}"
    return f"{value:.3g}"


def lines(curves: Sequence[Curve], x: str, y: str, *, log: bool = False, label: Label = short) -> str:
    """Curves against each other; the n-th has the n-th run's colour. Empty where there is nothing to draw."""
    seen = [[(a, b) for a, b in curve if not log or a > 0] for curve in curves]
    points = [p for curve in seen for p in curve]
    if len(points) < 2:
        return ""
    left, right = min(a for a, _ in points) if log else 0.0, max(a for a, _ in points)
    low, high = min(b for _, b in points), max(b for _, b in points)
    low = 0.0 if 0 <= low < 0.5 * high else low
    scale = math.log10 if log else float
    across = _span(scale(left), scale(right), _LEFT, _WIDTH - _RIGHT)
    up = _span(low, high, _HEIGHT - _BOTTOM, _TOP)
    marks = _decades(left, right) if log else _ticks(left, right)
    body = _axes(
        [(across(scale(v)), label(v)) for v in marks], [(up(v), short(v)) for v in _ticks(low, high)]
    )
    for number, curve in enumerate(seen):
        path = " ".join(f"{across(scale(a)):.1f},{up(b):.1f}" for a, b in _thinned(curve))
        body += f'<polyline class="run{number % 6}" points="{path}"/>'
    return _figure(body, x, y)


def bars(series: Sequence[Sequence[float]], names: Sequence[str], x: str, y: str) -> str:
    """Groups of bars: series[run][place], under `names`."""
    high = max((v for values in series for v in values), default=0.0)
    if high <= 0:
        return ""
    up = _span(0.0, high, _HEIGHT - _BOTTOM, _TOP)
    step = (_WIDTH - _LEFT - _RIGHT) / len(names)
    width = 0.8 * step / len(series)
    centres = [_LEFT + (i + 0.5) * step for i in range(len(names))]
    body = _axes(list(zip(centres, names, strict=True)), [(up(v), short(v)) for v in _ticks(0.0, high)])
    for number, values in enumerate(series):
        for centre, value in zip(centres, values, strict=True):
            at, top = centre - 0.4 * step + number * width, up(value)
            body += f'<rect class="run{number % 6}" x="{at:.1f}" y="{top:.1f}" width="{width:.1f}" '
            body += f'height="{_HEIGHT - _BOTTOM - top:.1f}"><title>{value:.4g}</title></rect>'
    return _figure(body, x, y)


def _span(low: float, high: float, begin: float, end: float) -> Callable[[float], float]:
    size = high - low or 1.0
    return lambda value: begin + (value - low) / size * (end - begin)


def _ticks(low: float, high: float) -> list[float]:
    """Some five round numbers."""
    if high <= low:
        return [low]
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * n for n in (1, 2, 5, 10) if power * n >= raw)
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step + 1e-9) + 1)]


def _decades(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    few = [10.0**p for p in powers if low <= 10.0**p <= high]
    many = [n * 10.0**p for p in powers for n in (1, 2, 5) if low <= n * 10.0**p <= high]
    return few if len(few) > 2 else many


def _thinned(curve: Curve) -> Curve:
    """Means of neighbours, where there are more points than pixels tell apart."""
    size = -(-len(curve) // _MOST)
    parts = [curve[i : i + size] for i in range(0, len(curve), size)] if size else []
    return [(sum(a for a, _ in p) / len(p), sum(b for _, b in p) / len(p)) for p in parts]


def _axes(across: Sequence[tuple[float, str]], up: Sequence[tuple[float, str]]) -> str:
    floor, text = _HEIGHT - _BOTTOM, ""
    for at, name in up:
        text += f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
        text += f'<text x="{_LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{escape(name)}</text>'
    for at, name in across:
        text += f'<text x="{at:.1f}" y="{floor + 15}" text-anchor="middle">{escape(name)}</text>'
    return text


def _figure(body: str, x: str, y: str) -> str:
    place = f'x="{(_LEFT + _WIDTH) / 2}" y="{_HEIGHT - 4}" text-anchor="middle"'
    return (
        f'<figure><figcaption>{escape(y)}</figcaption><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(y)} against {escape(x)}">{body}'
        f'<text class="axis" {place}>{escape(x)}</text></svg></figure>'
    )
