# SPDX-License-Identifier: Apache-2.0
"""Frames over a gloo link against raw gloo send and receive of the same bytes, between two processes, in turn."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor

from dgs.transport import GlooLink, GlooListener, dial
from dgs_ext import wire
from dgs_ext.wire import Codec, Header, Kind

KIB, MIB = 1 << 10, 1 << 20
SIZES = tuple(n * KIB for n in (1, 16, 256)) + tuple(
    n * MIB for n in (1, 2, 4, 9, 16, 64)
)  # from 8 MiB in two
PING = 256  # bytes of what is answered with as much
_TAG = 77  # of the raw messages, which share the link's own connection
_LONG = timedelta(seconds=120)

Send, Receive = Callable[[Tensor], object], Callable[[int], object]


@dataclass(frozen=True)
class Row:
    """Messages of one size: milliseconds of one, in a row of them one way; of `PING`: half a round trip.

    Lower quartiles of all rounds.
    """

    size: int
    raw_ms: float
    link_ms: float

    @property
    def share(self) -> float:
        """The link's throughput in units of raw gloo's."""
        return self.raw_ms / self.link_ms


def frame_of(size: int) -> Tensor:
    """A frame of so many bytes, of which those of the header are a part."""
    frame = torch.empty(size, dtype=torch.uint8)
    body = torch.zeros(size - wire.HEADER_BYTES, dtype=torch.uint8)
    assert wire.encode_bytes(frame, Header(Kind.BUFFERS, Codec.BYTES), b"", body) == size
    return frame


def _ways(link: GlooLink) -> dict[str, tuple[Send, Receive]]:
    group, peer = link._open_group(), 1 - link._rank
    buffer = torch.empty(max(SIZES), dtype=torch.uint8)
    return {
        "raw": (
            lambda frame: group.send([frame], peer, _TAG).wait(_LONG),
            lambda size: group.recv([buffer[:size]], peer, _TAG).wait(_LONG),
        ),
        "link": (lambda frame: link.send(frame, _LONG), lambda size: link.receive(_LONG)),
    }


def _plan(sizes: tuple[int, ...], rounds: int) -> Iterator[tuple[int, int]]:
    """What both ends go through: (bytes, messages) of each turn."""
    for size in sizes:
        for _ in range(rounds):
            yield size, 20 if size == PING else max(2, min(50, 16 * MIB // size))


def _answer(port: int, sizes: tuple[int, ...], rounds: int) -> None:
    torch.set_num_threads(1)
    link = dial("127.0.0.1", port, _LONG)
    link.open("benchmark", max(*sizes, PING), _LONG)
    ways, small = _ways(link), frame_of(PING)
    for size, messages in _plan(sizes, rounds):
        for send, receive in ways.values():
            for _ in range(messages):
                receive(size)
                if size == PING:
                    send(small)
            if size != PING:
                send(small)
    link.close()


def measure(sizes: tuple[int, ...] = SIZES, rounds: int = 9) -> list[Row]:
    """A row for each size, that of `PING` first."""
    sizes = (PING, *sizes)
    listener = GlooListener("127.0.0.1", 0)
    other = multiprocessing.get_context("spawn").Process(
        target=_answer, args=(listener.port, sizes, rounds), daemon=True
    )
    other.start()
    link = listener.accept(_LONG)
    assert link is not None
    try:
        link.open("benchmark", max(sizes), _LONG)
        times = _times(_ways(link), sizes, rounds)
        other.join(60)
    finally:
        link.close()
        listener.close()
        other.kill()
    # Each message waits until both processes have a core: with other work about, a median is of that.
    quartiles = {key: 1e3 * sorted(t)[len(t) // 4] for key, t in times.items()}
    return [Row(size, quartiles["raw", size], quartiles["link", size]) for size in sizes]


def _times(ways: Any, sizes: tuple[int, ...], rounds: int) -> dict[tuple[str, int], list[float]]:
    frames = {size: frame_of(size) for size in sizes}
    times: dict[tuple[str, int], list[float]] = {}
    for size, messages in _plan(sizes, rounds):
        for name, (send, receive) in ways.items():
            began = time.perf_counter()
            for _ in range(messages):
                send(frames[size])
                if size == PING:
                    receive(PING)
            if size != PING:
                receive(PING)
            seconds = (time.perf_counter() - began) / messages
            times.setdefault((name, size), []).append(seconds / 2 if size == PING else seconds)
    return times
