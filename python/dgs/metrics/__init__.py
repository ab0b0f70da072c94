# SPDX-License-Identifier: Apache-2.0
"""What a run shows and keeps: progress, files, TensorBoard, Prometheus (docs/metrics.md)."""

from __future__ import annotations

from .collect import Collector
from .record import Evaluation, Event, Record, Summary, WorkerSummary
from .run import Run, collector

__all__ = ["Collector", "Evaluation", "Event", "Record", "Run", "Summary", "WorkerSummary", "collector"]
