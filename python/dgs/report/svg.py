# SPDX-License-Identifier: Apache-2.0
"""Figures as inline SVG, whose colours are the page's."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from .axes import Axis
from .read import Curve

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 440, 250, 54, 14, 12, 42
_MOST = 100  # points of a line


def lines(curves: Sequence[Curve], x: Axis, y: Axis) -> str:
    """Curves against each other, each in its run's colour and dashes; "" where there is nothing to draw."""
    seen = [[(a, b) for a, b in curve if x.shows(a) and y.shows(b)] for curve in curves]
    if all(len(curve) < 2 for curve in seen):
        return ""
    across = x.over([a for curve in seen for a, _ in curve], _LEFT, _WIDTH - _RIGHT)
    up = y.over([b for curve in seen for _, b in curve], _HEIGHT - _BOTTOM, _TOP)
    body = _axes(across.marks(), up.marks())
    for number, curve in enumerate(seen):
        thin = _thinned(curve)
        points = [(across(a), up(b)) for a, b in thin]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        body += f'<polyline class="run{number % 6}" points="{path}"/>' if len(points) > 1 else ""
        if points:
            value = escape(f"{up.write(curve[-1][1])} at {across.write(curve[-1][0])}")
            (a, b), kind = points[-1], f'class="dot run{number % 6}"'
            body += f'<circle {kind} cx="{a:.1f}" cy="{b:.1f}" r="3.2"><title>{value}</title></circle>'
    return _figure(body, across.title, y.title)


def bars(series: Sequence[Sequence[float]], names: Sequence[str], x: str, y: Axis) -> str:
    """Groups of bars: series[run][place], under `names`; "" where all are 0."""
    if not any(v > 0 for values in series for v in values):
        return ""
    up = y.over([0.0, *(v for values in series for v in values)], _HEIGHT - _BOTTOM, _TOP)
    step = (_WIDTH - _LEFT - _RIGHT) / len(names)
    width = min(0.8 * step / len(series), 40.0)
    centres = [_LEFT + (i + 0.5) * step for i in range(len(names))]
    body = _axes(list(zip(centres, names, strict=True)), up.marks())
    for number, values in enumerate(series):
        for centre, value in zip(centres, values, strict=False):
            at, top = centre + (number - len(series) / 2) * width, up(value)
            body += f'<rect class="run{number % 6}" x="{at:.1f}" y="{top:.1f}" width="{0.9 * width:.1f}" '
            body += f'height="{_HEIGHT - _BOTTOM - top:.1f}"><title>{escape(up.write(value))}</title></rect>'
    return _figure(body, x, y.title)


def _thinned(curve: Curve) -> Curve:
    """Means of neighbours, where there are more points than eyes tell apart; the last stays as it is."""
    size = -(-len(curve) // _MOST)
    if size <= 1:
        return curve
    parts = [curve[i : i + size] for i in range(0, len(curve) - 1, size)]
    return [(sum(a for a, _ in p) / len(p), sum(b for _, b in p) / len(p)) for p in parts] + [curve[-1]]


def _axes(across: Sequence[tuple[float, str]], up: Sequence[tuple[float, str]]) -> str:
    floor, text = _HEIGHT - _BOTTOM, ""
    for at, name in up:
        text += f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
        text += f'<text x="{_LEFT - 7}" y="{at + 4:.1f}" text-anchor="end">{escape(name)}</text>'
    for at, name in across:
        text += f'<text x="{at:.1f}" y="{floor + 16}" text-anchor="middle">{escape(name)}</text>'
    return f'{text}<line class="floor" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{floor}" y2="{floor}"/>'


def _figure(body: str, x: str, y: str) -> str:
    place = f'x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 5}" text-anchor="middle"'
    return (
        f'<figure><figcaption>{escape(y)}</figcaption><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(y)} against {escape(x)}">{body}'
        f'<text class="axis" {place}>{escape(x)}</text></svg></figure>'
    )
