# SPDX-License-Identifier: Apache-2.0
"""The run's numbers as TensorBoard's events."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .extras import needed
from .record import Evaluation, Event, Record, Summary

_TAGS = {
    "samples": "training/samples",
    "loss": "training/loss",
    "samples_per_second": "training/samples_per_second",
    "steps_per_second": "training/steps_per_second",
    "staleness": "exchange/staleness",
    "waiting": "exchange/waiting",
    "bytes_up": "bytes/up",
    "bytes_down": "bytes/down",
    "compression_up": "bytes/compression_up",
    "compression_down": "bytes/compression_down",
    "workers": "workers",
}


class Board:
    """Scalars over the server's version. Raises ConfigError where tensorboard is not installed.

    Args:
        folder: of the events.
        about: what is shown as text.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        module = needed("torch.utils.tensorboard", "tensorboard", "tensorboard")
        self._writer = module.SummaryWriter(log_dir=str(folder))
        rows = "".join(f"| {name} | {value} |\n" for name, value in about["settings"].items())
        self._writer.add_text("settings", f"| setting | value |\n|---|---|\n{rows}")

    def record(self, record: Record, summary: Summary) -> None:
        for field, tag in _TAGS.items():
            value = getattr(record, field)
            if value is not None:
                self._writer.add_scalar(tag, value, record.version, record.time)
        self._writer.flush()

    def evaluation(self, found: Evaluation) -> None:
        for name, value in found.values.items():
            self._writer.add_scalar(f"evaluation/{name}", value, found.version, found.time)

    def event(self, event: Event) -> None:
        text = f"worker {event.rank} {event.event} {event.reason}"
        self._writer.add_text("workers", text, event.version, event.time)

    def close(self, summary: Summary) -> None:
        self._writer.close()
