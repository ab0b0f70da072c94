# SPDX-License-Identifier: Apache-2.0
"""The plot of the kernels' benchmark: each step's time between its floor and plain torch's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from plain_torch import PICKS

TITLES = {"resnet18": "ResNet-18", "resnet50": "ResNet-50", "gpt2": "GPT-2 small", "million": "one tensor"}
SHOWN = ("dgs", "gd", "dgc", "pull", "select")
INK, QUIET = "#1a1a1a", "#8a8a8a"
MARKS = {  # who: (colour, marker, size)
    "memory floor": ("#5b5b5b", "|", 13),
    "this library": ("#0b6fb8", "o", 7),
    "torch, topk": ("#d9822b", "D", 5),
    "torch, kthvalue": ("#b0413e", "s", 5),
}


def _times(row: dict[str, Any]) -> dict[str, float]:
    """Milliseconds by who took them; plain torch only where it was timed."""
    times = {"memory floor": row["floor_ms"], "this library": row["ms"]}
    return times | {f"torch, {pick}": row["others"][pick] for pick in PICKS if pick in row["others"]}


def chosen(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """What is shown: the density nearest 1 % and the most threads, a list for each model, the smallest first."""
    rows = [row for row in rows if row["step"] in SHOWN]
    if not rows:
        return []
    density = min({row["density"] for row in rows}, key=lambda d: abs(d - 0.01))
    threads = max(row["threads"] for row in rows)
    rows = [row for row in rows if row["density"] == density and row["threads"] == threads]
    models = sorted(
        {row["model"] for row in rows}, key=lambda m: next(r["numel"] for r in rows if r["model"] == m)
    )
    return [[row for row in rows if row["model"] == model] for model in models]


def draw(rows: list[dict[str, Any]], machine: dict[str, Any], path: Path) -> bool:
    """Writes the plot to `path`; returns whether there was anything to draw."""
    groups = chosen(rows)
    if not groups:
        return False
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(
        1,
        len(groups),
        figsize=(max(6.6, 1.2 + 2.7 * len(groups)), 3.1),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axis, group in zip(axes[0], groups, strict=True):
        for y, row in enumerate(group):
            times = _times(row)
            axis.plot([min(times.values()), max(times.values())], [y, y], color="#dddddd", zorder=1)
            for who, ms in times.items():
                colour, marker, size = MARKS[who]
                wide = 2.5 if marker == "|" else 1
                axis.plot(
                    ms, y, marker, color=colour, markersize=size, markeredgewidth=wide, label=who, zorder=2
                )
            if row["faster"]:
                text = f"{row['faster']:.0f} ×"
                axis.annotate(
                    text, (row["ms"], y), (0, 6), textcoords="offset points", ha="center", color=INK, size=8
                )
        axis.set(xscale="log", xlabel="milliseconds")
        axis.xaxis.set_major_formatter("{x:g}")
        axis.set_title(
            f"{TITLES.get(group[0]['model'], group[0]['model'])}, {group[0]['numel'] / 1e6:.3g} M", size=10
        )
        axis.set_yticks(range(len(group)), [row["step"] for row in group])
        axis.set_ylim(len(group) - 0.5, -0.7)
        axis.grid(axis="x", color="#eeeeee")
        axis.tick_params(axis="y", length=0)
        for side in ("top", "right", "left"):
            axis.spines[side].set_visible(False)
    one = groups[0][0]
    threads = f"{machine['cpu']}, {one['threads']} thread{'s' * (one['threads'] > 1)}"
    who = threads if machine["device"] == "cpu" else machine["device"]
    handles, labels = axes[0][0].get_legend_handles_labels()
    named = dict(zip(labels, handles, strict=True))
    figure.legend(
        named.values(), named.keys(), loc="outside lower center", ncols=4, frameon=False, fontsize=9
    )
    figure.suptitle(
        f"A step at {100 * one['density']:g} % on {who}; × = times faster than plain torch", size=10
    )
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return True
