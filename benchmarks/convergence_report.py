# SPDX-License-Identifier: Apache-2.0
"""What came out of the convergence runs, as a table and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pages

mpl.use("Agg")
from matplotlib import pyplot as plt

Record = dict[str, Any]

_COLOURS = {"sgd": "#222222", "asgd": "#5c6b8a", "gd": "#8f6fb5", "dgc": "#c8553d", "dgs": "#0b6e4f"}


def report(records: Sequence[Record], searched: Sequence[Record], folder: Path, page: Path | None) -> None:
    """Writes table.md and curves.png into `folder`, and into the page between its marks and beside it."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record["name"], []).append(record)
    if not groups:
        raise SystemExit("no final run is finished yet: there is nothing to report")
    text = f"{table(groups)}\n\n{search(searched)}\n"
    (folder / "table.md").write_text(text)
    draw(groups, folder / "curves.png")
    print(text)
    if page is not None:
        pages.write(page, "figures", text)
        draw(groups, page.with_suffix(".png"))


def search(records: Sequence[Record]) -> str:
    """The accuracy on held-out images by which the rates were chosen."""
    lengths = sorted({r["epochs"] for r in records})
    rates = sorted({r["rate"] for r in records})
    rows = [["held out, %", "epochs", *(f"{rate:g}" for rate in rates)]]
    for name in dict.fromkeys(r["name"] for r in records):
        for epochs in lengths:
            known = {
                r["rate"]: r["validation"] for r in records if (r["name"], r["epochs"]) == (name, epochs)
            }
            cells = (f"{100 * known[rate]:.1f}" if rate in known else "" for rate in rates)
            rows.append([name, f"{epochs:g}", *cells])
    return aligned(rows)


def table(groups: dict[str, list[Record]]) -> str:
    """Accuracy as mean and range over the seeds, and what a step sends."""
    rows = [["", "test accuracy", "range", "seeds", "η/(1-m)", "η", "staleness", "bytes/step up", "down"]]
    for name, runs in groups.items():
        reached = [100 * r["accuracy"] for r in runs]
        first = next((r for r in runs if r["status"] == "ok"), None)
        sent = [f"{first[way]:,.0f}" if first and first[way] else "-" for way in ("up", "down")]
        rows.append(
            [
                name,
                f"{sum(reached) / len(reached):.2f} %",
                f"{min(reached):.2f} - {max(reached):.2f}",
                str(len(runs)),
                f"{runs[0]['rate']:g}",
                f"{runs[0]['lr']:.3g}",
                f"{first['staleness']:.1f}" if first else "diverged",
                *sent,
            ]
        )
    return aligned(rows)


def aligned(rows: list[list[str]]) -> str:
    """Rows in Markdown, the first one the heading, aligned to be read as they are."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * widths[0], *("-" * (w - 1) + ":" for w in widths[1:])])
    return "\n".join(
        "| " + " | ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) + " |"
        for row in rows
    )


def draw(groups: dict[str, list[Record]], path: Path) -> None:
    """Accuracy of the server's model against passes and against bytes, every seed a line, as a PNG."""
    style: dict[Any, Any] = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
             "grid.color": "#e4e4e4", "axes.axisbelow": True}  # fmt: skip
    with mpl.rc_context(style):
        figure, (by_pass, by_bytes) = plt.subplots(1, 2, figsize=(11, 4.4), sharey=True, layout="constrained")
        for name, colour in _COLOURS.items():
            for number, run in enumerate(groups.get(name, [])):
                if run["status"] != "ok":
                    continue
                versions, up, down, _, accuracy = zip(*run["curve"], strict=True)
                passes = [v * run["epochs"] / run["steps"] for v in versions]
                look = {
                    "color": colour,
                    "linewidth": 1.6,
                    "marker": "o",
                    "markersize": 3,
                    "alpha": 1 - 0.4 * (number > 0),
                }
                by_pass.plot(passes, [100 * a for a in accuracy], label=None if number else name, **look)
                if up[-1]:
                    sent = [(u + d) / 1e6 for u, d in zip(up, down, strict=True)]
                    by_bytes.plot(sent, [100 * a for a in accuracy], **look)
        by_pass.set(xlabel="passes over the images", ylabel="test accuracy (%)")
        by_bytes.set(xlabel="bytes sent, both ways, all workers (MB)", xscale="log")
        by_bytes.xaxis.set_major_formatter(mpl.ticker.StrMethodFormatter("{x:,g}"))
        by_pass.legend(frameon=False, loc="lower right")
        figure.suptitle("CIFAR-10, small ResNet, the server's model; learning rates tuned alike")
        figure.savefig(path, dpi=150)
        plt.close(figure)
