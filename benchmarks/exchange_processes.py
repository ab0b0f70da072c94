# SPDX-License-Identifier: Apache-2.0
"""A server and worker processes that do nothing but exchange, as fast as they can."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import threading
import time
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import models
import torch
from exchange_stages import Clock, PlainState, TimedLink, TimedListener, TimedState, timed_packers
from harness import heavy_tailed
from torch import Tensor

from dgs import config
from dgs.buffers import BufferStore
from dgs.layout import Layout
from dgs.server import Server
from dgs.transport import GlooListener, Link, dial
from dgs.weights import digest, received
from dgs.worker import Worker
from dgs_ext import ops

WARM_UP = 3
_JOIN = timedelta(seconds=120)
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Job:
    """What a run is of."""

    model: str
    workers: int
    exchanges: int  # of each worker, besides those of the warm-up
    density: float = 0.01
    codec: str = "float32"
    codec_down: str | None = None  # the default: what changed, in as many bits as its budget allows
    density_down: float | None = None  # the default: of what the others pushed meanwhile
    threads: int = 1
    plain: bool = False

    def settings(self, rank: int) -> config.Settings:
        """Those of the server (rank 0) or a worker."""
        world = self.workers + 1
        return config.resolve(
            None,
            {},
            rank=rank,
            world_size=world,
            codec=self.codec,
            codec_down=self.codec_down,
            density=self.density,
            density_down=self.density_down,
        )


@dataclass(frozen=True)
class Outcome:
    """One run: seconds of the stages of each counted exchange, and what the server spent."""

    job: Job
    stages: list[list[float]] = field(repr=False)
    seconds: float
    cpu: float  # seconds of the server's process, of all threads
    bytes_up: float  # of an exchange
    bytes_down: float
    memory: float  # bytes that the server's process grew by, of all workers
    threads: int  # of the server's process

    @property
    def exchanges(self) -> int:
        return len(self.stages)

    @property
    def medians(self) -> list[float]:
        """Milliseconds of each stage."""
        return [1e3 * statistics.median(stage) for stage in zip(*self.stages, strict=True)]

    @property
    def latency(self) -> float:
        """Milliseconds of a whole exchange, its median."""
        return 1e3 * statistics.median(sum(stages) for stages in self.stages)


def work(job: Job, rank: int, port: int, together: Any, told: Any) -> None:
    """A worker's process: joins, exchanges, and tells when each exchange began and ended and what it holds."""
    try:
        _work(job, rank, port, together, told)
    except BaseException:
        together.abort()  # nobody waits for what does not come
        raise


def _work(job: Job, rank: int, port: int, together: Any, told: Any) -> None:
    torch.set_num_threads(1)
    layout = models.layout(job.model)
    links: list[TimedLink] = []

    def connect(timeout: timedelta) -> Link:
        links.append(TimedLink(dial("127.0.0.1", port, timeout)))
        return links[-1]  # type: ignore[return-value]

    settings = job.settings(rank)
    worker = Worker(layout, settings, False, connect)
    w = worker.join(_JOIN).theta
    pushes = [push_of(layout, job.density, seed) for seed in (rank, rank + 1000)]
    times = []
    for i in range(WARM_UP + job.exchanges):
        if i == WARM_UP:
            together.wait()
        exchange(worker, pushes[i % 2], w)
        if i >= WARM_UP:
            times.append((worker.sequence, links[0].sent, links[0].received))
    together.wait()  # done
    together.wait()  # and looked at
    held = digest(w)
    worker.close("paused", digest=held)
    told.put((rank, times, held, worker.traffic.bytes_up, worker.traffic.bytes_down))


def exchange(worker: Worker, push: ops.Selection, w: Tensor) -> None:
    """Pushes, with the digest of one segment of the weights `w`, and adds what comes back to them."""
    layout, settings = worker.layout, worker.settings
    number = worker.sequence % len(layout.segments)
    segment = layout.segments[number]
    hash_ = digest(w[segment.offset : segment.offset + segment.numel])
    worker.push(push, settings.codec_up, settings.density, (number, hash_))
    reply = worker.pull()
    ops.sparse_add_([w], layout.offsets, received(layout, *worker.entries(reply), CPU))


def push_of(layout: Layout, density: float, seed: int) -> ops.Selection:
    """About that part of the entries, anywhere; large beside few others, as what a worker sends is."""
    generator = torch.Generator().manual_seed(seed)
    indices = (torch.rand(layout.numel, generator=generator) < density).nonzero().view(-1)
    return received(layout, indices, 1e-3 * heavy_tailed(indices.numel(), seed), CPU)


def resident() -> int:
    """Bytes of memory that are this process's own: not the pages of libraries."""
    _, resident, shared, *_ = map(int, Path("/proc/self/statm").read_text().split())
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE")


def run(job: Job) -> Outcome:
    """Serves `job` in this process. Every push's digest, and in the end every whole mirror, is the worker's."""
    torch.set_num_threads(job.threads)
    layout, clock = models.layout(job.model), Clock()
    kind = PlainState if job.plain else TimedState
    state = kind(layout, heavy_tailed(layout.numel, 0), device=CPU)
    state.clock = clock
    listener = GlooListener("127.0.0.1", 0)
    settings = job.settings(0)
    server = Server(state, BufferStore([], {}, "none"), settings, TimedListener(listener, clock), dense=False)
    serving = threading.Thread(target=server.serve)
    context = multiprocessing.get_context("spawn")
    together, told = context.Barrier(job.workers + 1), context.Queue()
    with timed_packers(clock):
        processes = [
            context.Process(target=work, args=(job, rank, listener.port, together, told), daemon=True)
            for rank in range(1, job.workers + 1)
        ]
        try:
            for process in processes:
                process.start()
            before = resident()  # what starting processes takes is not the server's
            serving.start()
            seconds, cpu, memory, threads = _watch(together)
            memory -= before
            results = [told.get(timeout=60) for _ in processes]
            for process in processes:
                process.join()
        finally:
            server.stop()
            if serving.is_alive():
                serving.join()
            for process in processes:
                if process.is_alive():
                    process.kill()
    verify(server, results)
    stages = [clock.stages(rank, *one) for rank, times, *_ in results for one in times]
    whole = job.workers * (job.exchanges + WARM_UP)
    up, down = (sum(r[i] for r in results) / whole for i in (3, 4))
    return Outcome(job, stages, seconds, cpu, up, down, memory, threads)


def _watch(together: Any) -> tuple[float, float, int, int]:
    """Seconds and CPU seconds between the workers' first counted exchange and their last."""
    together.wait(300)
    began, cpu = time.monotonic(), time.process_time()
    together.wait(600)
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    memory, threads = resident(), sum(1 for _ in Path("/proc/self/task").iterdir())
    together.wait(60)
    return seconds, cpu, memory, threads


def verify(server: Server, results: list[Any]) -> None:
    """Ends the program unless the mirrors are what the workers hold, of whose results the third is the digest."""
    kept = {int(rank): digest(saved["weights"]) for rank, saved in server.state_dict()["workers"].items()}
    wrong = [rank for rank, _, held, *_ in results if kept.get(rank) != held]
    if wrong:
        raise SystemExit(
            f"the server's mirrors of workers {wrong} are not what they hold: nothing is worth printing"
        )
