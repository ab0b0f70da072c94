# SPDX-License-Identifier: Apache-2.0
"""What came out of the demo's runs, as a table and as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from demo_processes import Event
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

_COLOURS = ("#0b6e4f", "#c8553d", "#5c6b8a")
_TEST: dict[str, Any] = {"marker": "o", "markersize": 3, "linewidth": 1.8}
_TRAINING: dict[str, Any] = {"alpha": 0.45, "linewidth": 1}
_SMOOTH = 30.0  # steps


@dataclass(frozen=True)
class Run:
    """What one mode's processes told."""

    mode: str
    told: Mapping[str, Sequence[Event]]

    def _kind(self, kind: str) -> list[list[Event]]:
        lists = ([e for e in events if e["kind"] == kind] for events in self.told.values())
        return [events for events in lists if events]

    @cached_property
    def training(self) -> list[list[Event]]:
        """Of each worker."""
        return self._kind("train")

    @cached_property
    def tests(self) -> list[Event]:
        """Of the server's model, or of the only one."""
        return self._kind("test")[0]

    @property
    def title(self) -> str:
        return f"{self.mode}, {'one process' if self.mode == 'sgd' else plural(len(self.training))}"

    @property
    def dense(self) -> int:
        """Bytes of all parameters in float32."""
        return 4 * int(self._kind("model")[0][0]["parameters"])

    @property
    def began(self) -> float:
        return float(min(events[0]["time"] for events in self.training))

    @property
    def seconds(self) -> float:
        return float(max(events[-1]["time"] for events in self.training)) - self.began

    @property
    def rate(self) -> float:
        """Images per second, of all workers together."""
        return self._total("images") / self.seconds

    def per_step(self, way: str) -> float:
        """Bytes of a push ("up") or of what comes back ("down"); 0 where nothing is sent."""
        return self._total(way) / self._total("steps")

    def _total(self, what: str) -> float:
        return float(sum(events[-1][what] for events in self.training))

    def sent(self, times: np.ndarray) -> np.ndarray:
        """Bytes that all workers had sent and received by then, first snapshots included; [n] for times [n]."""
        total = np.zeros(len(times))
        for events in self.training:
            when = [e["time"] for e in events]
            total += np.interp(times, when, [e["up"] + e["down"] + e["other"] for e in events])
        return total

    def test_curve(self) -> tuple[np.ndarray, np.ndarray]:
        """Times (clipped to the training) and losses on the test images."""
        times = np.array([e["time"] for e in self.tests]).clip(self.began, self.began + self.seconds)
        return times, np.array([e["loss"] for e in self.tests])

    def training_curve(self) -> tuple[np.ndarray, np.ndarray]:
        """Times, and losses on the workers' own batches, smoothed over some 30 steps."""
        pairs = (pair for events in self.training for pair in pairwise(events) if pair[1]["loss"] is not None)
        told = sorted((now["time"], now["loss"], now["steps"] - before["steps"]) for before, now in pairs)
        times, losses, steps = np.array(told).T
        newest = 1 - (1 - 1 / _SMOOTH) ** steps
        for i in range(1, len(losses)):
            losses[i] = newest[i] * losses[i] + (1 - newest[i]) * losses[i - 1]
        return times, losses


def plural(workers: int) -> str:
    return "1 worker" if workers == 1 else f"{workers} workers"


def table(runs: Sequence[Run]) -> str:
    """The runs in Markdown, aligned to be read as it is."""
    rows = [["", "test accuracy", "images/s", "bytes/step up / down", "compression up / down"]]
    for run in runs:
        sent = [run.per_step("up"), run.per_step("down")]
        rows.append(
            [
                run.title,
                f"{run.tests[-1]['accuracy']:.1%}",
                f"{run.rate:,.0f}",
                " / ".join(f"{s:,.0f}" for s in sent) if all(sent) else "nothing",
                " / ".join(f"{run.dense / s:.1f}×" for s in sent) if all(sent) else "-",
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * widths[0], *("-" * (w - 1) + ":" for w in widths[1:])])
    return "\n".join(
        "| " + " | ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) + " |"
        for row in rows
    )


def draw(runs: Sequence[Run], title: str, path: Path) -> None:
    """Loss against bytes sent and against time, of all runs, as a PNG."""
    style: dict[Any, Any] = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
             "grid.color": "#e4e4e4", "axes.axisbelow": True}  # fmt: skip
    with mpl.rc_context(style):
        figure, (by_bytes, by_time) = plt.subplots(1, 2, figsize=(11, 4.4), sharey=True, layout="constrained")
        for run, colour in zip(runs, _COLOURS, strict=False):
            _against_bytes(by_bytes, run, colour)
            _against_time(by_time, run, colour)
        by_bytes.set(
            xscale="log", yscale="log", xlabel="bytes sent, both ways, all workers (MB)", ylabel="loss"
        )
        by_bytes.xaxis.set_major_formatter(mpl.ticker.StrMethodFormatter("{x:,g}"))
        by_bytes.yaxis.set_major_formatter(mpl.ticker.StrMethodFormatter("{x:g}"))
        by_bytes.margins(x=0.15, y=0.1)  # room for the labels
        by_time.plot([], [], color="black", label="test loss of the server's model", **_TEST)
        by_time.plot([], [], color="black", label="training loss", **_TRAINING)
        by_time.set(xlabel="time (s)", xlim=(0, None))
        by_time.legend(frameon=False, loc="upper right")
        figure.suptitle(title)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
        plt.close(figure)


def _against_bytes(axes: Axes, run: Run, colour: str) -> None:
    times, losses = run.test_curve()
    megabytes = run.sent(times) / 1e6
    if not megabytes[-1]:
        axes.axhline(losses[-1], color=colour, linestyle="--", linewidth=1.2)
        axes.annotate(f"{run.mode} sends nothing and ends here", (0.01, losses[-1]), (0, -5), color=colour, va="top",
                      xycoords=("axes fraction", "data"), textcoords="offset points", fontsize=9)  # fmt: skip
        return
    axes.plot(megabytes, losses, color=colour, **_TEST)
    axes.annotate(f"{megabytes[-1]:,.0f} MB", (megabytes[-1], losses[-1]), (6, 0), color=colour, va="center",
                  textcoords="offset points", fontsize=9, fontweight="bold")  # fmt: skip
    times, losses = run.training_curve()
    axes.plot(run.sent(times) / 1e6, losses, color=colour, **_TRAINING)


def _against_time(axes: Axes, run: Run, colour: str) -> None:
    times, losses = run.test_curve()
    axes.plot(times - run.began, losses, color=colour, label=run.title, **_TEST)
    times, losses = run.training_curve()
    axes.plot(times - run.began, losses, color=colour, **_TRAINING)
