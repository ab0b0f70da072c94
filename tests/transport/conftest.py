# SPDX-License-Identifier: Apache-2.0
"""The two transports behind one way of making connected links, so that the contract is tested once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta

import pytest
import torch
from torch import Tensor

from dgs.transport import GlooListener, InProcessListener, Link, Listener, dial
from dgs_ext import wire
from dgs_ext.wire import Codec, Header, Kind

SECONDS = timedelta(seconds=30)


class Meeting:
    """A listener, and the links made through it; `close` ends them all."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.listener: Listener = GlooListener("127.0.0.1", 0) if kind == "gloo" else InProcessListener()
        self.links: list[Link] = []
        self.pool = ThreadPoolExecutor(8)

    def dial(self, timeout: timedelta = SECONDS) -> Link:
        if isinstance(self.listener, GlooListener):
            return dial("127.0.0.1", self.listener.port, timeout)
        assert isinstance(self.listener, InProcessListener)
        return self.listener.dial()

    def meet(self) -> tuple[Link, Link]:
        """A worker's end and the server's, which have yet to open."""
        worker = self.dial()
        server = self.listener.accept(SECONDS)
        assert server is not None
        self.links += [worker, server]
        return worker, server

    def open(self, cap: int = 1 << 20, server_cap: int | None = None) -> tuple[Link, Link]:
        """A worker's end and the server's, open. `server_cap` is for a server that accepts less than was agreed."""
        worker, server = self.meet()
        theirs = self.pool.submit(worker.open, "1-session", cap, SECONDS)
        server.open("1-session", cap if server_cap is None else server_cap, SECONDS)
        theirs.result(30)
        return worker, server

    def close(self) -> None:
        for link in self.links:
            link.interrupt()
            link.close()
        self.links.clear()
        self.listener.close()
        self.pool.shutdown()


@pytest.fixture(params=["inprocess", "gloo"])
def meeting(request: pytest.FixtureRequest) -> Iterator[Meeting]:
    """A meeting point of either transport."""
    with ExitStack() as stack:
        made = Meeting(request.param)
        stack.callback(made.close)
        yield made


@pytest.fixture
def gloo_meeting() -> Iterator[Meeting]:
    made = Meeting("gloo")
    yield made
    made.close()


@pytest.fixture
def frame() -> Callable[..., Tensor]:
    """Makes a frame with a number, and a body of random bytes."""

    def make(sequence: int = 1, body: int = 0) -> Tensor:
        content = torch.randint(0, 256, (body,), dtype=torch.uint8)
        out = torch.empty(wire.frame_capacity(body, Codec.BYTES, numel=0), dtype=torch.uint8)
        length = wire.encode_bytes(out, Header(Kind.BUFFERS, sequence=sequence), b"", content)
        return out[:length].clone()

    return make


@pytest.fixture
def later() -> Iterator[Callable[[float, Callable[[], object]], None]]:
    """Calls a function after some seconds, in another thread."""
    timers: list[threading.Timer] = []

    def start(seconds: float, function: Callable[[], object]) -> None:
        timers.append(threading.Timer(seconds, function))
        timers[-1].start()

    yield start
    for timer in timers:
        timer.join()
