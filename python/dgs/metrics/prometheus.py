# SPDX-License-Identifier: Apache-2.0
"""The run's numbers for Prometheus, made when it scrapes: an exchange pays nothing for it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

from ..errors import PortInUseError
from .collect import Collector
from .extras import needed
from .record import Summary, WorkerSummary
from .tally import BOUNDS

log = logging.getLogger(__name__)

_COUNTERS = {  # name -> (field of WorkerSummary, help); all have the label `worker`
    "dgs_exchanges": ("exchanges", "Pushes that were applied and answered"),
    "dgs_received_bytes": ("bytes_up", "Bytes that the worker sent, all frames"),
    "dgs_sent_bytes": ("bytes_down", "Bytes that it was sent, all frames"),
    "dgs_samples": ("samples", "Training samples that the worker told of"),
}
_GAUGES = {  # the same, of workers that are there
    "dgs_worker_version": ("version", "Version of the weights that the worker holds"),
    "dgs_staleness": ("staleness", "Versions between its last push's pull and that push"),
    "dgs_residual_norm": (
        "residual",
        "Norm of theta - mirror, which it has not seen; measured every 64 pulls",
    ),
    "dgs_residual_pushes": ("behind", "The same in units of the norm of a push"),
    "dgs_loss": ("loss", "Mean training loss that the worker told last"),
    "dgs_samples_per_second": ("samples_per_second", "Training samples per second that it told last"),
    "dgs_waiting_ratio": ("waiting", "Part of its time that it has waited for the network"),
}


class Exporter:
    """An HTTP endpoint with a registry of its own. Raises ConfigError where prometheus_client is not installed.

    Args:
        collector: the run's numbers.
        port, address: where to listen; port 0 takes any.

    Raises:
        PortInUseError: the port is taken.
    """

    def __init__(self, collector: Collector, port: int, address: str) -> None:
        self._client: Any = needed("prometheus_client", "prometheus_port", "prometheus")
        self._families: Any = needed("prometheus_client.core", "prometheus_port", "prometheus")
        self._collector = collector
        registry = self._client.CollectorRegistry()
        registry.register(self)
        try:
            self._server, self._thread = self._client.start_http_server(port, address, registry)
        except OSError as error:
            raise PortInUseError(
                f"prometheus_port: {address}:{port} cannot be listened on: {error}"
            ) from error
        self.port: int = self._server.server_port
        log.info("metrics for Prometheus at http://%s:%d/metrics", address, self.port)

    def collect(self) -> Iterator[Any]:
        """Every family, of the numbers of now; prometheus_client calls it at a scrape, from a thread of its own."""
        summary = self._collector.summary()
        here = [w for w in summary.workers if w.outcome == "alive"]
        gauge = self._families.GaugeMetricFamily
        yield gauge("dgs_version", "Pushes that the server has applied", value=summary.version)
        yield gauge("dgs_workers", "Workers that are there", value=len(here))
        for name, (field, help_) in _COUNTERS.items():
            yield self._filled(self._families.CounterMetricFamily, name, help_, field, summary.workers)
        for name, (field, help_) in _GAUGES.items():
            yield self._filled(gauge, name, help_, field, here)
        yield self._latency()
        yield self._staleness(summary)

    def _filled(self, kind: Any, name: str, help_: str, field: str, workers: Any) -> Any:
        family = kind(name, help_, labels=["worker"])
        for worker in workers:
            value = _value(worker, field)
            if value is not None:
                family.add_metric([str(worker.rank)], value)
        return family

    def _latency(self) -> Any:
        family = self._families.HistogramMetricFamily(
            "dgs_exchange_seconds",
            "From a push's arrival at the server until its answer was sent",
            labels=["worker"],
        )
        names = [*map(str, BOUNDS), "+Inf"]
        for rank, (counts, total) in self._collector.latencies().items():
            family.add_metric([str(rank)], list(zip(names, accumulate(counts), strict=True)), total)
        return family

    def _staleness(self, summary: Summary) -> Any:
        bounds = (0, 1, 2, 4, 8, 16, 32, 64, 128)
        ages = summary.staleness
        buckets = [(str(b), sum(n for age, n in ages.items() if age <= b)) for b in bounds]
        buckets.append(("+Inf", sum(ages.values())))
        total = sum(age * n for age, n in ages.items())
        return self._families.HistogramMetricFamily(
            "dgs_push_staleness", "Versions between a worker's pull and its next push", buckets, total
        )

    def close(self) -> None:
        """Stops listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _value(worker: WorkerSummary, field: str) -> float | None:
    value = getattr(worker, field)
    return None if value is None else float(value)
