# SPDX-License-Identifier: Apache-2.0
"""A run that is watched: one thread that makes a record now and then, and those that take it."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from ..config import Settings
from .about import about
from .board import Board
from .collect import Collector
from .extras import needed
from .files import Files, unused
from .progress import Progress
from .prometheus import Exporter
from .record import Evaluation, Event, Record, Summary

log = logging.getLogger(__name__)


class Sink(Protocol):
    """Takes what a run gives; called from one thread at a time."""

    def record(self, record: Record, summary: Summary) -> None: ...
    def evaluation(self, found: Evaluation) -> None: ...
    def event(self, event: Event) -> None: ...
    def close(self, summary: Summary) -> None: ...


def collector(settings: Settings, sizes: Sequence[int]) -> Collector | None:
    """What a Run needs to hear of; None if nothing is to be shown or written.

    Args:
        sizes: elements of each parameter that is trained.
    """
    if settings.run_dir or settings.progress or settings.prometheus_port is not None:
        return Collector(4 * sum(sizes), settings.max_version, settings.metrics_every)
    return None


class Run:
    """Owns the thread, the files, the bar and the endpoint of a run that is watched; `close` frees them.

    Args:
        collector: hears of what happens.
        settings: say what is to be shown and written.
        args: the program's own options, kept with the settings.
        sizes: elements of each parameter that is trained.

    Raises:
        ConfigError: `run_dir` holds a run already, or a package is not installed.
        PortInUseError: of `prometheus_port`.
    """

    def __init__(
        self, collector: Collector, settings: Settings, args: object | None, sizes: Sequence[int]
    ) -> None:
        facts = about(settings, args, list(sizes), time.time())
        self.collector, self._every = collector, settings.metrics_every
        self._exporter: Exporter | None = None
        # What may fail goes before the run's folder, which the next attempt would find taken.
        _check_packages(settings)
        if settings.prometheus_port is not None:
            address = settings.prometheus_address
            self._exporter = Exporter(self.collector, settings.prometheus_port, address)
        try:
            self._sinks: list[Sink] = _sinks(settings, facts)
        except BaseException:
            if self._exporter is not None:
                self._exporter.close()
            raise
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dgs-metrics", daemon=True)
        self._thread.start()

    @property
    def prometheus_port(self) -> int | None:
        """The port that is listened on, if one is."""
        return None if self._exporter is None else self._exporter.port

    def watched(
        self, function: Callable[[Any], Mapping[str, float] | None]
    ) -> Callable[[Any], Mapping[str, float] | None]:
        """`function` of a snapshot, with what it returns kept as an evaluation of that moment and version."""

        def call(snapshot: Any) -> Mapping[str, float] | None:
            evaluated = self.collector.stamp()
            values = function(snapshot)
            if values is not None:
                evaluated(snapshot.version, values)
            return values

        return call

    def _run(self) -> None:
        while not self._closing.wait(self._every):
            self._tick()

    def _tick(self) -> None:
        for news in self.collector.news():
            self._each(partial(_give, news=news))
        record = self.collector.record()
        if record is not None:
            summary = self.collector.summary()
            self._each(lambda sink: sink.record(record, summary))

    def _each(self, give: Callable[[Sink], None]) -> None:
        """A sink that fails, for a full disk say, is left out from then on: training is worth more."""
        for sink in list(self._sinks):
            try:
                give(sink)
            except Exception:
                log.exception("%s of the run failed and is left out", type(sink).__name__)
                self._sinks.remove(sink)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.close("finished" if kind is None else repr(error))

    def close(self, ended: str = "finished") -> None:
        """Takes the last record and says how the run ended; may be called twice."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._thread.join()
        if self._exporter is not None:
            self._exporter.close()
        self._tick()
        summary = self.collector.summary(ended)
        self._each(lambda sink: sink.close(summary))


def _give(sink: Sink, news: Evaluation | Event) -> None:
    if isinstance(news, Event):
        sink.event(news)
    else:
        sink.evaluation(news)


def _check_packages(settings: Settings) -> None:
    if settings.tensorboard:
        needed("torch.utils.tensorboard", "tensorboard", "tensorboard")
    if settings.progress and sys.stderr.isatty():
        needed("tqdm", "progress", "progress")


def _sinks(settings: Settings, facts: Mapping[str, Any]) -> list[Sink]:
    found: list[Sink] = []
    if settings.run_dir:
        folder = Path(settings.run_dir)
        if settings.checkpoint_resume:
            folder = unused(folder)
        found.append(Files(folder, facts))
        if settings.tensorboard:
            found.append(Board(folder, facts))
    if settings.progress:
        found.append(Progress(settings.mode, settings.max_version))
    return found
