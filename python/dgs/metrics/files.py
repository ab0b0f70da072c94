# SPDX-License-Identifier: Apache-2.0
"""A run's folder: JSON lines and CSV that grow, and a summary that is replaced."""

from __future__ import annotations

import csv
import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TextIO

from ..errors import ConfigError
from .record import Evaluation, Event, Record, Summary

ABOUT, SUMMARY = "run.json", "summary.json"
METRICS, EVALUATIONS, EVENTS = "metrics.jsonl", "evaluations.jsonl", "events.jsonl"
METRICS_CSV, EVALUATIONS_CSV = "metrics.csv", "evaluations.csv"


class Files:
    """Writes one run into a folder of its own.

    Args:
        folder: made if need be.
        about: what run.json holds.

    Raises:
        ConfigError: a run has been written there already.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / ABOUT).exists():
            raise ConfigError(f"run_dir: {folder} holds a run already: name another folder, or move that one")
        replace(folder / ABOUT, about)
        self._open: list[TextIO] = []
        self._metrics, self._evaluations = self._new(METRICS), self._new(EVALUATIONS)
        self._events = self._new(EVENTS)
        self._table, self._marks = csv.writer(self._new(METRICS_CSV)), csv.writer(self._new(EVALUATIONS_CSV))
        self._table.writerow([f.name for f in fields(Record)])
        self._marks.writerow([*(f.name for f in fields(Evaluation) if f.name != "values"), "name", "value"])

    def _new(self, name: str) -> TextIO:
        file = (self._folder / name).open("w", buffering=1, newline="")  # each line reaches whoever watches
        self._open.append(file)
        return file

    def record(self, record: Record, summary: Summary) -> None:
        row = asdict(record)
        _line(self._metrics, row)
        self._table.writerow(["" if value is None else _short(value) for value in row.values()])
        replace(self._folder / SUMMARY, asdict(summary))

    def evaluation(self, found: Evaluation) -> None:
        row = asdict(found)
        _line(self._evaluations, row)
        values = row.pop("values")
        self._marks.writerows([*map(_short, row.values()), name, value] for name, value in values.items())

    def event(self, event: Event) -> None:
        _line(self._events, asdict(event))

    def close(self, summary: Summary) -> None:
        replace(self._folder / SUMMARY, asdict(summary))
        for file in self._open:
            file.close()


def unused(folder: Path) -> Path:
    """`folder`, or if it holds a run the first of folder-2, folder-3, ... that does not: where a run goes on."""
    numbered = (folder.with_name(f"{folder.name}-{n}") for n in itertools.count(2))
    return next(f for f in itertools.chain([folder], numbered) if not (f / ABOUT).exists())


def replace(path: Path, what: Mapping[str, Any]) -> None:
    """Writes JSON in one stroke: who reads `path` sees the old text or the new."""
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps(_plain(what), indent=1, ensure_ascii=False) + "\n")
    beside.replace(path)


def _line(file: TextIO, row: Mapping[str, Any]) -> None:
    file.write(json.dumps(_plain(row), separators=(",", ":")) + "\n")


def _plain(value: Any) -> Any:
    """With floats of at most 7 digits behind the point, and null for those that JSON has no name for."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return _short(value)


def _short(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return round(value, 7) if math.isfinite(value) else None
