# SPDX-License-Identifier: Apache-2.0
"""The plot of the server's benchmark: where an exchange's time goes, and how many there are in a second."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from exchange_stages import STAGES
from server_page import name_of, workers_of

COLOURS = ("#9ecae1", "#e5e5e5", "#6baed6", "#d9822b", "#0b6fb8", "#3182bd", "#c6dbef")


def draw(rows: Sequence[dict[str, Any]], machine: dict[str, Any], path: Path) -> None:
    """Writes the plot to `path`."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(
        1, 2, figsize=(9.5, 0.9 + 0.42 * len(rows)), sharey=True, width_ratios=(3, 1), layout="constrained"
    )
    names = [f"{name_of(r)}, {workers_of(r)}" for r in rows]
    begin = [0.0] * len(rows)
    for stage, colour in zip(STAGES, COLOURS, strict=True):
        widths = [r["milliseconds"][stage] for r in rows]
        left.barh(names, widths, left=begin, color=colour, label=stage, height=0.7)
        begin = [b + w for b, w in zip(begin, widths, strict=True)]
    left.set(xlabel="milliseconds of an exchange, by stage", xlim=(0, 1.02 * max(begin)))
    left.invert_yaxis()
    figure.legend(loc="outside lower center", ncols=len(STAGES), frameon=False, fontsize=8)
    rates = right.barh(names, [r["exchanges/s"] for r in rows], color="#0b6fb8", height=0.7)
    right.bar_label(rates, fmt="%.3g", padding=3, size=8)
    right.set(xlabel="exchanges a second", xlim=(0, 1.2 * max(r["exchanges/s"] for r in rows)))
    for axis in (left, right):
        axis.tick_params(axis="y", length=0)
        for side in ("top", "right", "left"):
            axis.spines[side].set_visible(False)
    one = rows[0]
    figure.suptitle(
        f"{one['model']}, {100 * one['density']:g} %, over loopback, server and workers on {machine['cores']} cores"
        f" of {machine['cpu']}",
        size=10,
    )
    figure.savefig(path, dpi=110)
    plt.close(figure)
