# SPDX-License-Identifier: Apache-2.0
"""What the kernels' benchmark leaves: the machine in words, tables, JSON and a plot."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from harness import table
from kernels_plot import draw

if TYPE_CHECKING:
    from kernels import Row

COLUMNS = ("step", "density", "ms", "GB/s", "floor ms", "x floor", "x streams", "topk ms", "kthvalue ms", "faster")
LIMITS = {"dgs": (1.2, 40), "gd": (1.3, None), "dgc": (1.3, None), "pull": (1.3, None)}  # × floor, × faster


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    return next(
        (line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor()
    )


def _caches() -> dict[str, str]:
    found = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = ((index / name).read_text().strip() for name in ("level", "type", "size"))
        if kind != "Instruction":
            found[f"L{level}"] = size
    return found


def machine(device: torch.device) -> dict[str, Any]:
    """The machine as it is now."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "caches": _caches(),
        "architecture": platform.machine(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "load": os.getloadavg()[0],
    }


def _cells(row: Row) -> tuple[object, ...]:
    others = (row.others.get(name, row.others.get("torch", "-")) for name in ("topk", "kthvalue"))
    density = "-" if row.density is None else f"{100 * row.density:g} %"
    faster = "-" if row.faster is None else row.faster
    return row.step, density, row.ms, row.gb_per_s, row.floor_ms, row.times_floor, row.times_streams, *others, faster


def show(began: dict[str, Any], rows: Sequence[Row]) -> None:
    """Prints a table for each model and number of threads, and what is asked of the kernels."""
    caches = ", ".join(f"{level} {size}" for level, size in began["caches"].items())
    on = "" if began["device"] == "cpu" else f"{began['device']}; "
    print(
        f"{on}{began['cpu']}, {began['cores']} cores, {caches}, torch {began['torch']}, load {began['load']:.2f}"
    )
    order = list(dict.fromkeys(row.step for row in rows))
    ordered = sorted(rows, key=lambda r: (r.numel, r.threads, order.index(r.step), -(r.density or 0)))
    for (model, numel, threads), group in groupby(ordered, lambda row: (row.model, row.numel, row.threads)):
        how = f"{threads} thread{'s' * (threads > 1)}" if began["device"] == "cpu" else began["device"]
        print(table(f"\n{model}: {numel:,} parameters, {how}", COLUMNS, [_cells(row) for row in group]))
    asked = [row for row in rows if row.model == "resnet18" and row.density == 0.01 and row.step in LIMITS]
    if asked:
        print("\nAsked of ResNet-18 at 1 %:")
    for row in sorted(asked, key=lambda r: (order.index(r.step), r.threads)):
        print(_asked(row))


def _asked(row: Row) -> str:
    limit, faster = LIMITS[row.step]
    met = row.times_floor <= limit
    threads = f"{row.threads} thread{'s' * (row.threads > 1)}"
    text = f"  {row.step}, {threads}: {row.times_floor:.2f} × the floor (<= {limit})"
    if row.times_streams < row.times_floor:
        text += f", {row.times_streams:.2f} × the loop that writes where the step does"
    if faster is not None and row.faster is not None:
        met &= row.faster >= faster
        text += f", {row.faster:.0f} × faster than plain torch (>= {faster})"
    return f"{text}: {'met' if met else 'NOT met'}"


def save(folder: Path, began: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Writes kernels.json and kernels.png into `folder`; returns what the JSON holds."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = {"machine": began | {"load at the end": os.getloadavg()[0]}, "rows": rows}
    (folder / "kernels.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    drawn = draw(rows, began, folder / "kernels.png")
    print(f"\n{folder / 'kernels.json'}" + f", {folder / 'kernels.png'}" * drawn)
    return whole
