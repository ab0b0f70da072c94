# SPDX-License-Identifier: Apache-2.0
"""Whether a server's memory grows with exchanges: that of its process, looked at on its way through many."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import models
import torch
from exchange_processes import CPU, Job, exchange, push_of, resident, verify
from harness import heavy_tailed

from dgs.buffers import BufferStore
from dgs.server import Server, ServerState
from dgs.transport import GlooListener, dial
from dgs.weights import digest
from dgs.worker import Worker

LOOKS = 20
_JOIN = timedelta(seconds=120)


@dataclass(frozen=True)
class Point:
    """The server's process after so many exchanges of all workers."""

    exchanges: int
    megabytes: float  # of its own: not the pages of libraries
    threads: int


def grown(points: Sequence[Point]) -> float:
    """What the most in the second half has over the most in the first tenth, as a part of the latter."""
    last = points[-1].exchanges
    early = [p.megabytes for p in points if p.exchanges <= last / 10]
    late = [p.megabytes for p in points if p.exchanges > last / 2]
    return max(late) / max(early) - 1


def work(job: Job, rank: int, port: int, together: Any, told: Any) -> None:
    """A worker's process: exchanges, and tells what it holds."""
    try:
        torch.set_num_threads(1)
        layout = models.layout(job.model)
        worker = Worker(layout, job.settings(rank), False, lambda timeout: dial("127.0.0.1", port, timeout))
        w = worker.join(_JOIN).theta
        pushes = [push_of(layout, job.density, seed) for seed in (rank, rank + 1000)]
        for i in range(job.exchanges):
            exchange(worker, pushes[i % 2], w)
        together.wait()  # done
        together.wait()  # and looked at
        worker.close("paused", digest=digest(w))
        told.put((rank, None, digest(w)))
    except BaseException:
        together.abort()  # nobody waits for what does not come
        raise


def measure(job: Job) -> list[Point]:
    """Serves `job` in this process. In the end every whole mirror is what its worker holds."""
    torch.set_num_threads(job.threads)
    layout = models.layout(job.model)
    state = ServerState(layout, heavy_tailed(layout.numel, 0), device=CPU)
    listener = GlooListener("127.0.0.1", 0)
    server = Server(state, BufferStore([], {}, "none"), job.settings(0), listener, dense=False)
    serving = threading.Thread(target=server.serve)
    context = multiprocessing.get_context("spawn")
    together, told = context.Barrier(job.workers + 1), context.Queue()
    processes = [
        context.Process(target=work, args=(job, rank, listener.port, together, told), daemon=True)
        for rank in range(1, job.workers + 1)
    ]
    serving.start()
    try:
        for process in processes:
            process.start()
        points = _look(state, job.workers * job.exchanges, processes)
        for _ in ("done", "looked at"):
            together.wait(60)
        results = [told.get(timeout=60) for _ in processes]
        for process in processes:
            process.join()
    finally:
        server.stop()
        serving.join()
        for process in processes:
            process.kill()
    verify(server, results)
    return points


def _look(state: ServerState, total: int, processes: Sequence[SpawnProcess]) -> list[Point]:
    points = []
    for goal in sorted({total // 100, *(total * look // LOOKS for look in range(1, LOOKS + 1))}):
        while state.wait_beyond(goal - 1, 1.0) < goal:
            if any(process.exitcode for process in processes):
                raise SystemExit("a worker has failed: nothing is worth printing")
        threads = sum(1 for _ in Path("/proc/self/task").iterdir())
        points.append(Point(state.version, resident() / 1e6, threads))
    return points
