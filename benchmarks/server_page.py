# SPDX-License-Identifier: Apache-2.0
"""The server's figures as a page shows them (docs/benchmarks.md), between two marks of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pages
from exchange_stages import STAGES
from pages import Rows, head, line


def name_of(row: dict[str, Any]) -> str:
    """Whose exchanges they are."""
    of = "plain torch" if row["plain"] else "this library"
    density = f" at {100 * row['density_down']:g} %" if row.get("density_down") else ""
    return of if row["codec_down"] is None else f"{of}, {row['codec_down']}{density} down"


def workers_of(row: dict[str, Any]) -> str:
    """How many workers' they are."""
    return f"{row['workers']} worker{'s' * (row['workers'] > 1)}"


def _exchange(rows: Rows) -> str:
    text = head(
        ["exchange", *STAGES, "whole, ms", "a second", "CPU, ms", "MB up", "MB down", "memory", "besides, MB"]
    )
    for row in rows:
        stages = [f"{ms:.2f}" for ms in row["milliseconds"].values()]
        text += line(
            [f"{name_of(row)}, {workers_of(row)}", *stages, f"{row['latency ms']:.1f}", f"{row['exchanges/s']:.1f}",
             f"{row['server CPU ms']:.1f}", f"{row['MB up']:.2f}", f"{row['MB down']:.2f}",
             f"{row['memory']:.2f}", f"{row['MB besides']:.0f}"]
        )  # fmt: skip
    return text


def _pull(rows: Rows) -> str:
    text = head(
        ["threads", "pull, ms", "with its frame, ms", "floor, ms", "× floor", "plain torch, ms", "× faster"]
    )
    for row in rows:
        whole = row["with_frame_ms"]
        text += line(
            [row["threads"], f"{row['pull_ms']:.2f}", f"{whole:.2f}", f"{row['floor_ms']:.2f}",
             f"{whole / row['floor_ms']:.2f}", f"{row['plain_ms']:.0f}", f"{row['plain_ms'] / whole:.0f}"]
        )  # fmt: skip
    return text


def _transport(rows: Rows) -> str:
    text = head(["bytes", "raw gloo, ms", "a frame, ms", "MB/s", "share of raw"])
    for row in rows:
        size, raw, link = row["size"], row["raw_ms"], row["link_ms"]
        text += line(
            [f"{size:,}", f"{raw:.3f}", f"{link:.3f}", f"{size / link / 1e3:,.0f}", f"{raw / link:.2f}"]
        )
    return text


_TABLES: dict[str, Callable[[Rows], str]] = {"exchange": _exchange, "pull": _pull, "transport": _transport}


def write(page: Path, record: dict[str, Any]) -> None:
    """Writes the tables into `page`, which has the marks."""
    about = record["machine"]
    text = f"{about['cores']} cores of {about['cpu']}, torch {about['torch']}, {pages.loads(about)}:\n"
    for part, table in _TABLES.items():
        if part in record:
            text += f"\n{table(record[part])}"
    pages.write(page, "server", text)
