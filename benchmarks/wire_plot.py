# SPDX-License-Identifier: Apache-2.0
"""The plot of the packer's benchmark: bytes of a kept entry by density, and how fast messages are made and read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

Rows = Sequence[dict[str, Any]]

OURS = {
    "float32": "#0b6fb8",
    "bfloat16": "#3f97d4",
    "int8": "#7bb8e2",
    "level4": "#58a3a0",
    "sign": "#7d6bb0",
}
OTHERS = {"int32 + float32": "#d9822b", "zlib": "#b0413e", "zstd": "#c98a86", "torch.save": "#8a8a8a"}
COLOURS = OURS | OTHERS


def _bytes(axis: Any, rows: Rows) -> None:
    """Bytes of an entry against the density; the line below float32's is the entropy of an index and 32 bits."""
    for name, colour in COLOURS.items():
        part = [row for row in rows if row["message"] == name]
        x, y = [100 * row["density"] for row in part], [row["bytes_per_kept"] for row in part]
        axis.plot(x, y, "o-", markersize=4, color=colour)
        if part:
            axis.annotate(name, (x[0], y[0]), (6, -3), textcoords="offset points", size=8, color=colour)
    part = [row for row in rows if row["message"] == "float32"]
    least = [4 + row["entropy"] / 8 for row in part]
    axis.plot([100 * row["density"] for row in part], least, ":", color="#1a1a1a", linewidth=1)
    axis.set(xscale="log", xlabel="density, % (random; the dotted line: float32 and entropy)", ylim=(0, None))
    axis.margins(x=0.22)
    axis.xaxis.set_major_formatter("{x:g}")
    axis.set_title("bytes of a kept entry, whole message", size=10)


def _rates(axis: Any, rows: Rows) -> None:
    """Packing and unpacking of each message, at the density nearest 1 %."""
    nearest = min((row["density"] for row in rows), key=lambda d: abs(d - 0.01))
    part = [row for row in rows if row["density"] == nearest]
    for y, row in enumerate(part):
        pack, unpack = (row["kept"] / row[ms] / 1e3 for ms in ("pack_ms", "unpack_ms"))
        axis.plot([pack, unpack], [y, y], color="#dddddd", zorder=1)
        axis.plot(pack, y, "o", color="#0b6fb8", markersize=6, label="pack", zorder=2)
        axis.plot(unpack, y, "D", color="#d9822b", markersize=5, label="unpack", zorder=2)
    axis.set_yticks(range(len(part)), [row["message"] for row in part])
    axis.set_ylim(len(part) - 0.5, -0.5)
    axis.set(xscale="log", xlabel=f"million entries a second at {100 * nearest:g} %")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.axvline(300, color="#8a8a8a", linestyle=":", linewidth=1)
    handles, labels = axis.get_legend_handles_labels()
    axis.legend(handles[:2], labels[:2], frameon=False, fontsize=8)
    axis.set_title("checks and checksum included; dotted: what is asked of float32", size=10)


def draw(rows: Rows, about: str, path: Path) -> None:
    """Writes the plot of the random selections to `path`."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    rows = [row for row in rows if row["indices"] == "random"]
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    _bytes(axes[0], rows)
    _rates(axes[1], rows)
    for axis in axes:
        axis.grid(color="#eeeeee")
        axis.set_axisbelow(True)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    figure.suptitle(about, size=10)
    figure.savefig(path, dpi=110)
    plt.close(figure)
