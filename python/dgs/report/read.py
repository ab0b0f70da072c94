# SPDX-License-Identifier: Apache-2.0
"""Reads the folder of a run, over, going on or cut off."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..metrics.files import ABOUT, EVALUATIONS, EVENTS, METRICS, SUMMARY

Row = dict[str, Any]
Curve = list[tuple[float, float]]

_PRESENT = ("samples_per_second", "steps_per_second", "waiting")  # of a record: means over the workers there
_SILENCE = 60.0  # seconds, and ten records, without a word after which a run counts as cut off


@dataclass(frozen=True, slots=True)
class RunData:
    """What a run's folder holds."""

    name: str
    about: Row
    summary: Row  # empty before the first worker came
    records: Sequence[Row]
    evaluations: Sequence[Row]
    events: Sequence[Row]
    silent: float  # seconds since anything was written

    def curve(self, x: str, y: str) -> Curve:
        """Pairs of two fields of the records, where both are known; x "bytes" is the sum of both ways."""
        rows = (row for row in self.records if row["workers"] or y not in _PRESENT)
        pairs = ((_field(row, x), row.get(y)) for row in rows)
        return [(a, b) for a, b in pairs if a is not None and b is not None]

    def measured(self, x: str, name: str) -> Curve:
        """The same of what evaluations gave under `name`."""
        pairs = ((_field(row, x), row["values"].get(name)) for row in self.evaluations)
        return [(a, b) for a, b in pairs if a is not None and b is not None]

    @property
    def names(self) -> list[str]:
        """Of everything that evaluations gave."""
        return sorted({name for row in self.evaluations for name in row["values"]})

    def found(self, name: str) -> float | None:
        """What the last evaluation that measured `name` gave."""
        curve = self.measured("version", name)
        return curve[-1][1] if curve else None

    @property
    def mode(self) -> str:
        return str(self.about["settings"]["mode"])

    @property
    def dense_bytes(self) -> int:
        """Of all parameters in float32."""
        return int(self.about["model"]["dense_bytes"])

    @property
    def workers(self) -> Sequence[Row]:
        """Every worker that ever came."""
        return self.summary.get("workers") or []

    @property
    def last(self) -> Row:
        """The last record; zeros before the first."""
        zeros = dict.fromkeys(("version", "seconds", "samples", "bytes_up", "bytes_down"), 0)
        return self.records[-1] if self.records else zeros

    @property
    def seconds(self) -> float:
        """From the first worker's join until the last push."""
        version = self.last["version"]
        return next((float(r["seconds"]) for r in self.records if r["version"] == version), 0.0)

    def per_exchange(self, way: str) -> float | None:
        """Bytes of a push ("pushed") or of what comes back ("pulled"); None where nothing is sent."""
        exchanges = sum(w["exchanges"] for w in self.workers)
        total: float = sum(w[way] for w in self.workers)
        return total / exchanges if total else None

    @property
    def state(self) -> str:
        """How it ended, or where it stands."""
        ended = self.summary.get("ended")
        if ended:
            return str(ended)
        if self.silent > max(_SILENCE, 10 * self.about["settings"]["metrics_every"]) and self.records:
            return "cut off"
        return "goes on" if self.records else "no worker yet"


def _field(row: Row, name: str) -> float | None:
    if name == "bytes":
        return float(row["bytes_up"] + row["bytes_down"])
    value = row.get(name)
    return None if value is None else float(value)


def read(folder: Path) -> RunData:
    """A run's folder. Raises ConfigError when it holds none."""
    try:
        about = json.loads((folder / ABOUT).read_text())
        if not isinstance(about, dict) or not {"settings", "model"} <= about.keys():
            raise ValueError(f"{ABOUT} was written by something else")
        records, evaluations, events = (_lines(folder / name) for name in (METRICS, EVALUATIONS, EVENTS))
        summary = folder / SUMMARY
        told = json.loads(summary.read_text()) if summary.exists() else {}
        written = max((folder / name).stat().st_mtime for name in (ABOUT, METRICS, EVALUATIONS, EVENTS))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder} is no run's folder (a run_dir): {error}") from error
    return RunData(folder.resolve().name, about, told, records, evaluations, events, time.time() - written)


def _lines(path: Path) -> list[Row]:
    """Whole lines: the last may be under way, or cut off."""
    text = path.read_text()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
