# SPDX-License-Identifier: Apache-2.0
"""A server over the in-process transport, and puppets: workers whose pushes the test chooses."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import torch
from torch import Tensor

from dgs import config, weights
from dgs.buffers import BufferStore
from dgs.layout import Layout
from dgs.server import Report, Server, ServerState
from dgs.transport import InProcessLink, InProcessListener, Link
from dgs.worker import Reply, Worker
from dgs_ext.wire import Codec

TENSORS = [("bias", (7,)), ("weight", (40, 50)), ("last", (3, 5))]
BUFFERS = [("mean", "float32", (7,)), ("count", "int64", ())]
QUICK: dict[str, Any] = {
    "world_size": 3,
    "heartbeat": 0.05,
    "heartbeat_timeout": 60.0,
    "grace": 0.3,
    "join_timeout": 5.0,
    "rejoin_timeout": 1.0,
    "exchange_timeout": 60.0,
    "connect_timeout": 5.0,
}


class Puppet:
    """A worker that holds weights and pushes what it is told."""

    def __init__(
        self, run: Run, rank: int | None, layout: Layout | None, dense: bool, **settings: Any
    ) -> None:
        chosen = config.resolve(None, {}, rank=rank, **run.chosen | settings)
        self.layout = layout or run.layout
        self.worker = Worker(self.layout, chosen, dense, run.dial)
        self.codec = chosen.codec_up
        self.w = torch.empty(0)

    def join(self) -> Puppet:
        self.w = self.worker.join(timedelta(seconds=30)).theta.clone()
        return self

    @property
    def link(self) -> Link:
        assert self.worker._link is not None
        return self.worker._link

    def digest(self) -> tuple[int, str]:
        segment = self.worker.sequence % len(self.layout.segments)
        s = self.layout.segments[segment]
        return segment, weights.digest(self.w[s.offset : s.offset + s.numel])

    def push(self, indices: Tensor, values: Tensor, density: float = 0.1) -> Reply:
        """Pushes entries and adds what comes back to the weights."""
        update = weights.received(self.layout, indices, values, torch.device("cpu"))
        self.worker.push(update, self.codec, density, self.digest())
        reply = self.worker.pull()
        if reply.decoded.form == "sparse":
            at, difference = self.worker.entries(reply)
            self.w[at] += difference
        else:
            self.w += self.worker.values(reply)
        return reply

    def push_some(self, generator: torch.Generator, count: int = 20, scale: float = 1.0) -> Reply:
        """Pushes some random entries."""
        indices = torch.randperm(self.layout.numel, generator=generator)[:count].sort().values
        return self.push(indices, scale * torch.randn(count, generator=generator))

    def push_dense(self, values: Tensor) -> Reply:
        self.worker.push(values, Codec.FLOAT32, 1.0, (0, ""))
        reply = self.worker.pull()
        self.w = self.worker.values(reply).clone()
        return reply


class Run:
    """A server in a thread of its own; `end` stops it and returns its report."""

    def __init__(self, state: type[ServerState] = ServerState, **settings: Any) -> None:
        self.chosen = QUICK | settings
        dense = self.chosen.get("mode") == "asgd"
        resolved = config.resolve(None, {}, **self.chosen)
        self.layout = Layout(TENSORS, BUFFERS)
        self.theta = torch.randn(self.layout.numel, generator=torch.Generator().manual_seed(0))
        self.state = state(
            self.layout, self.theta, device=torch.device("cpu"), max_version=resolved.max_version
        )
        self.buffers = BufferStore(
            self.layout.buffers, {"mean": torch.zeros(7), "count": torch.tensor(0)}, resolved.buffers
        )
        self.listener = InProcessListener()
        self.server = Server(self.state, self.buffers, resolved, self.listener, dense=dense)
        self.report: Report | None = None
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self) -> None:
        try:
            self.report = self.server.serve()
        except BaseException as error:
            self.error = error

    def dial(self, timeout: timedelta) -> InProcessLink:
        return self.listener.dial()

    def puppet(
        self, rank: int | None = 1, *, layout: Layout | None = None, dense: bool = False, **settings: Any
    ) -> Puppet:
        """A worker that has not joined yet."""
        return Puppet(self, rank, layout, dense, **settings)

    def now(self) -> Tensor:
        return self.state.snapshot().theta

    def returned(self, seconds: float = 25.0) -> Report:
        """The report, once the server has returned by itself."""
        self.thread.join(seconds)
        assert not self.thread.is_alive(), "the server has not returned"
        assert self.report is not None, self.error
        return self.report

    def end(self) -> Report:
        self.server.stop()
        return self.returned()


@pytest.fixture
def serve() -> Iterator[Callable[..., Run]]:
    """Starts servers with short times; they are stopped at the end of the test, and must leave no thread."""
    before = set(threading.enumerate())
    runs: list[Run] = []

    def start(state: type[ServerState] = ServerState, **settings: Any) -> Run:
        runs.append(Run(state, **settings))
        return runs[-1]

    yield start
    for run in runs:
        run.server.stop()
        run.thread.join(25)
    left = [
        t.name for t in set(threading.enumerate()) - before if t.name in ("dgs-session", "dgs-on-version")
    ]
    assert left == []


@pytest.fixture
def random() -> torch.Generator:
    return torch.Generator().manual_seed(1)
