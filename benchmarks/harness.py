# SPDX-License-Identifier: Apache-2.0
"""How the benchmarks time and print: warmed up, contestants in turn, medians, ratios within one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

QUICK_MS = 100.0  # below this a contestant runs once uncounted before each counted run


@dataclass(frozen=True)
class Contestant:
    """What is timed: `run`, after `prepare` (when given), which is not."""

    name: str
    run: Callable[[], object]
    prepare: Callable[[], object] | None = None


def timed_ms(contestant: Contestant, device: torch.device) -> float:
    """Milliseconds of one run: by the clock, or by the device's events."""
    if contestant.prepare is not None:
        contestant.prepare()
    if device.type == "cuda":
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(device)
        first.record()
        contestant.run()
        last.record()
        last.synchronize()
        return float(first.elapsed_time(last))
    began = time.perf_counter()
    contestant.run()
    return 1e3 * (time.perf_counter() - began)


def in_turn(
    contestants: Sequence[Contestant], device: torch.device, repeats: int, limit_s: float
) -> dict[str, list[float]]:
    """The milliseconds of each contestant by name, in rounds in which each has its turn.

    A quick contestant runs once uncounted before each counted run, so that none pays for what the one before it
    left in the caches. Who has had `limit_s` seconds sits out the remaining rounds; all have one.
    """
    times: dict[str, list[float]] = {c.name: [] for c in contestants}
    spent = dict.fromkeys(times, 0.0)
    for _ in range(repeats):
        for c in contestants:
            if spent[c.name] > 1e3 * limit_s:
                continue
            if not times[c.name] or times[c.name][-1] < QUICK_MS:
                spent[c.name] += timed_ms(c, device)
            times[c.name].append(timed_ms(c, device))
            spent[c.name] += times[c.name][-1]
    return times


def median_ms(function: Callable[[], object], repeats: int) -> float:
    """Median milliseconds of `function` over `repeats` runs, after one that does not count."""
    function()
    return statistics.median(timed_ms(Contestant("", function), torch.device("cpu")) for _ in range(repeats))


def heavy_tailed(numel: int, seed: int, device: torch.device | str = "cpu") -> Tensor:
    """Values whose magnitudes span octaves, as gradients' do, float32 [numel]."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(numel, generator=generator) * torch.randn(numel, generator=generator).exp_()
    return values.to(device)


def _text(cell: object) -> str:
    if not isinstance(cell, float):
        return str(cell)
    return f"{cell:,.0f}" if abs(cell) >= 100 else f"{cell:.3g}"


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """An aligned text table."""
    text = [[_text(c) for c in row] for row in [columns, *rows]]
    widths = [max(len(row[i]) for row in text) for i in range(len(columns))]
    lines = [
        "  ".join(
            c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in text
    ]
    return "\n".join([title, lines[0], "-" * len(lines[0]), *lines[1:]])
