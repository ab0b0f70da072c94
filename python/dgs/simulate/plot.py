# SPDX-License-Identifier: Apache-2.0
"""A picture of simulated runs. Needs matplotlib, which is imported with this module."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .result import Result

_COLOURS = ("#0b6e4f", "#c8553d", "#5c6b8a", "#8f6fb5", "#b08900")
_STYLE: dict[Any, Any] = {
    "font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
    "grid.color": "#e4e4e4", "axes.axisbelow": True,
}  # fmt: skip


def draw(results: Mapping[str, Result], metric: str, title: str, path: Path) -> None:
    """Writes a PNG: `metric` against virtual time and bytes, staleness, and what was busy, of each named run."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(11, 7.4), layout="constrained")
        (by_time, by_bytes), (ages, busy) = figure.subplots(2, 2)
        for number, (name, result) in enumerate(results.items()):
            colour = _COLOURS[number % len(_COLOURS)]
            _curves(by_time, by_bytes, name, result, metric, colour)
            total = sum(result.staleness.values())
            if total:
                counts = sorted(result.staleness.items())
                ages.step([a for a, _ in counts], [n / total for _, n in counts], where="mid", color=colour)
            _bars(busy, result, number, len(results), colour)
        by_time.set(xlabel="virtual seconds", ylabel=metric, xlim=(0, None))
        by_time.legend(frameon=False)
        by_bytes.set(xlabel="bytes sent, both ways, all workers (MB)", ylabel=metric, xscale="log")
        by_bytes.xaxis.set_major_formatter(mpl.ticker.StrMethodFormatter("{x:,g}"))
        ages.set(xlabel="staleness (versions)", ylabel="part of the pushes")
        busy.set(ylabel="part of the time", ylim=(0, 1.02))
        figure.suptitle(title)
        figure.savefig(path, dpi=130)


def _curves(by_time: Axes, by_bytes: Axes, name: str, result: Result, metric: str, colour: str) -> None:
    values = [p.measured[metric] for p in result.points]
    look: dict[str, Any] = {"color": colour, "marker": "o", "markersize": 3, "linewidth": 1.6}
    by_time.plot([p.time for p in result.points], values, label=name, **look)
    sent = [(p.bytes_up + p.bytes_down) / 1e6 for p in result.points]
    if sent[-1]:
        by_bytes.plot(sent, values, **look)


def _bars(axes: Axes, result: Result, number: int, runs: int, colour: str) -> None:
    workers = [use.utilisation for use in result.workers]
    heights = [max(workers), min(workers), result.server_in, result.server_out, result.server]
    width = 0.8 / runs
    places = [i + (number - (runs - 1) / 2) * width for i in range(len(heights))]
    axes.bar(places, heights, width, color=colour)
    axes.set_xticks(
        range(len(heights)), ["busiest\nworker", "idlest\nworker", "server's\nlink in", "link out", "server"]
    )
