# SPDX-License-Identifier: Apache-2.0
"""Reads the folder of a run, over or going on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..metrics.files import ABOUT, EVALUATIONS, EVENTS, METRICS, SUMMARY

Row = dict[str, Any]
Curve = list[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class RunData:
    """What a run's folder holds."""

    name: str
    about: Row
    summary: Row
    records: Sequence[Row]
    evaluations: Sequence[Row]
    events: Sequence[Row]

    def curve(self, x: str, y: str) -> Curve:
        """Pairs of two fields of the records, where both are known; x "bytes" is the sum of both ways."""
        pairs = ((_field(row, x), row.get(y)) for row in self.records)
        return [(a, b) for a, b in pairs if a is not None and b is not None]

    def measured(self, x: str, name: str) -> Curve:
        """The same of what evaluations gave under `name`."""
        pairs = ((_field(row, x), row["values"].get(name)) for row in self.evaluations)
        return [(a, b) for a, b in pairs if a is not None and b is not None]

    @property
    def names(self) -> list[str]:
        """Of everything that evaluations gave."""
        return sorted({name for row in self.evaluations for name in row["values"]})


def _field(row: Row, name: str) -> float | None:
    if name == "bytes":
        return float(row["bytes_up"] + row["bytes_down"])
    value = row.get(name)
    return None if value is None else float(value)


def read(folder: Path) -> RunData:
    """A run's folder. Raises ConfigError when it holds none."""
    try:
        about = json.loads((folder / ABOUT).read_text())
        records, evaluations, events = (_lines(folder / name) for name in (METRICS, EVALUATIONS, EVENTS))
        summary = folder / SUMMARY
        told = json.loads(summary.read_text()) if summary.exists() else {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder} is no run's folder (a run_dir): {error}") from error
    return RunData(folder.name, about, told, records, evaluations, events)


def _lines(path: Path) -> list[Row]:
    """Whole lines: the last may be under way."""
    text = path.read_text()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
