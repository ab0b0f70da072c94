# SPDX-License-Identifier: Apache-2.0
"""The kernels' figures as a page shows them (docs/kernels.md), between two marks of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pages
from kernels_plot import SHOWN, TITLES
from pages import Rows, head, line


def _short(value: float | None, digits: int = 1) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 20 else f"{value:.{digits}f}"


def _threads(threads: int) -> str:
    return f"{threads} thread{'s' * (threads > 1)}"


def _main(rows: Rows) -> Rows:
    """Every step of the model that targets are set for, as near 1 % as there is one."""
    model = "resnet18" if any(row["model"] == "resnet18" for row in rows) else rows[0]["model"]
    rows = [row for row in rows if row["model"] == model]
    nearest = min(
        (row["density"] for row in rows if row["density"]), key=lambda d: abs(d - 0.01), default=None
    )
    return [row for row in rows if row["density"] in (None, nearest)]


def _figures(row: dict[str, Any]) -> str:
    ms, rate, faster = _short(row["ms"], 2), _short(row["gb_per_s"]), _short(row["faster"])
    return f"{ms} | {rate} | {row['times_floor']:.2f} | {row['times_streams']:.2f} | {faster}"


def _steps(rows: Rows) -> str:
    threads = sorted({row["threads"] for row in rows})
    text = line(
        ["", *(f"{_threads(t)}: ms | GB/s | × floor | × streams | × faster than torch" for t in threads)]
    )
    text += "|---|" + "---:|---:|---:|---:|---:|" * len(threads) + "\n"
    for step in dict.fromkeys(row["step"] for row in rows):
        at = {row["threads"]: row for row in rows if row["step"] == step}
        text += line([f"`{step}`", *(_figures(at[t]) for t in threads)])
    return text


def _models(rows: Rows) -> str:
    """Milliseconds, and in brackets how often the floor, of each model and density in one thread."""
    threads = min(row["threads"] for row in rows)
    rows = [row for row in rows if row["threads"] == threads and row["step"] in SHOWN]
    shown = [step for step in SHOWN if any(row["step"] == step for row in rows)]
    text = head([f"{_threads(threads)}, ms (× floor)", "density", *(f"`{step}`" for step in shown)])
    for model, density in dict.fromkeys((row["model"], row["density"]) for row in rows):
        part = {row["step"]: row for row in rows if (row["model"], row["density"]) == (model, density)}
        cells = [
            f"{_short(part[s]['ms'], 2)} ({part[s]['times_floor']:.2f})" if s in part else "" for s in shown
        ]
        text += line([TITLES.get(model, model), f"{100 * density:g} %", *cells])
    return text


def _machine(began: dict[str, Any], rows: Rows) -> str:
    caches = ", ".join(f"{level} {size}" for level, size in began["caches"].items())
    where = began["cpu"] if began["device"] == "cpu" else f"{began['device']}; {began['cpu']}"
    main = _main(rows)[0]
    name = TITLES.get(main["model"], main["model"])
    return (
        f"{where}, {began['cores']} cores, {caches}, torch {began['torch']}, {pages.loads(began)}. {name}, "
        f"{main['numel']:,} parameters, {100 * (main['density'] or 1):g} %, float32, medians of up to "
        f"{max(row['runs'] for row in rows)}:"
    )


def write(page: Path, record: dict[str, Any]) -> None:
    """Writes the tables into `page`, which has the marks."""
    rows = record["rows"]
    text = f"{_machine(record['machine'], rows)}\n\n{_steps(_main(rows))}\n{_models(rows)}"
    pages.write(page, "kernels", text)


def quoted(rows: Rows) -> str:
    """What README.md and docs/benchmarks.md quote, in their words, for whoever renews them."""
    main = _main(rows)
    most = max(row["threads"] for row in main)
    at = {row["step"]: row for row in main if row["threads"] == most and row["faster"]}
    text = "Quoted in README.md and docs/benchmarks.md:"
    for step in (step for step in ("dgs", "pull") if step in at):
        plain = at[step]["ms"] * at[step]["faster"]
        text += f"\n  {step}: {at[step]['ms']:.1f} ms, where plain torch takes {plain:.0f} ({_threads(most)})"
    ratios = [row["times_floor"] for row in main if row["step"] in SHOWN]
    return text + f"\n  {min(ratios):.1f} to {max(ratios):.1f} times the memory floor"
