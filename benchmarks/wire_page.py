# SPDX-License-Identifier: Apache-2.0
"""The packer's figures as a page shows them (docs/benchmarks.md), between two marks of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pages
from pages import Rows, head, line

_SHOWN = ("float32", "bfloat16", "int8", "sign", "int32 + float32", "zlib", "zstd")


def _rate(row: dict[str, Any], ms: str) -> str:
    rate = row["kept"] / row[ms] / 1e3
    return f"{rate:,.1f}" if rate < 20 else f"{rate:,.0f}"


def _at_one_percent(rows: Rows) -> str:
    """Every message of a random selection, as near 1 % as there is one."""
    nearest = min((row["density"] for row in rows), key=lambda d: abs(d - 0.01))
    text = head(["message", "kept", "bytes/entry", "index bits", "entropy", "pack, M/s", "unpack, M/s"])
    for row in rows:
        if row["density"] != nearest or row["indices"] != "random":
            continue
        bits = "" if row["index_bits"] is None else f"{row['index_bits']:.2f}"
        entropy = f"{row['entropy']:.2f}" if bits else ""
        text += line(
            [f"`{row['message']}`" if bits else row["message"], f"{row['kept']:,}", f"{row['bytes_per_kept']:.3f}",
             bits, entropy, _rate(row, "pack_ms"), _rate(row, "unpack_ms")]
        )  # fmt: skip
    return text


def _by_density(rows: Rows) -> str:
    """Bytes of an entry, and float32's rates, for each selection."""
    names = [name for name in _SHOWN if any(row["message"] == name for row in rows)]
    text = head(["indices", "density", *names, "float32: pack, M/s", "unpack, M/s"])
    for indices, density in dict.fromkeys((row["indices"], row["density"]) for row in rows):
        part = {r["message"]: r for r in rows if (r["indices"], r["density"]) == (indices, density)}
        sizes = [f"{part[name]['bytes_per_kept']:.2f}" for name in names]
        rates = [_rate(part["float32"], ms) if "float32" in part else "" for ms in ("pack_ms", "unpack_ms")]
        text += line([indices, f"{100 * density:g} %", *sizes, *rates])
    return text


def write(page: Path, record: dict[str, Any]) -> None:
    """Writes the tables into `page`, which has the marks."""
    about, rows = record["machine"], record["rows"]
    machine = f"One core of {about['cpu']}, torch {about['torch']}, {pages.loads(about)}"
    pages.write(page, "packer", f"{machine}:\n\n{_at_one_percent(rows)}\n{_by_density(rows)}")
