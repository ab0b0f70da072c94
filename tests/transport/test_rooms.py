# SPDX-License-Identifier: Apache-2.0
"""Frames over gloo: a first message for which there is always room, the rest, and what becomes of the room."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from dgs.errors import FrameError
from dgs.transport import GlooLink
from dgs.transport.gloo import FIRST
from dgs_ext import wire

if TYPE_CHECKING:
    from conftest import Meeting

SECONDS = timedelta(seconds=30)
Opened = Callable[[int], tuple[GlooLink, GlooLink]]


@pytest.fixture
def opened(gloo_meeting: Meeting) -> Opened:
    """A worker's end and the server's, for frames of at most so many bytes of payload."""

    def make(cap: int) -> tuple[GlooLink, GlooLink]:
        worker, server = gloo_meeting.open(cap)
        assert isinstance(worker, GlooLink) and isinstance(server, GlooLink)
        return worker, server

    return make


def _send_all(worker: GlooLink, server: GlooLink, frames: list[Tensor]) -> Iterator[Tensor]:
    """What the server receives of the frames that the worker sends."""
    sending = threading.Thread(target=lambda: [worker.send(f, SECONDS) for f in frames])
    sending.start()
    for _ in frames:
        yield server.receive(SECONDS)
    sending.join()


def test_frames_around_the_first_messages_size_arrive_whole(
    opened: Opened, frame: Callable[..., Tensor]
) -> None:
    sizes = (10, FIRST - 65, FIRST - 64, FIRST - 63, 3, 3 * FIRST, 2 * FIRST, 0)
    frames = [frame(i, size - wire.HEADER_BYTES if size > FIRST else size) for i, size in enumerate(sizes)]
    worker, server = opened(3 * FIRST)
    for sent, got in zip(frames, _send_all(worker, server, frames), strict=True):
        assert torch.equal(sent, got)


def test_the_room_of_a_snapshot_is_given_back_and_that_of_steady_frames_kept(
    opened: Opened, frame: Callable[..., Tensor]
) -> None:
    large, small = frame(1, 2 * FIRST), frame(2, FIRST // 4)
    worker, server = opened(2 * FIRST)
    where = [got.data_ptr() for got in _send_all(worker, server, [large] * 3)]
    assert len(set(where)) == 1 and server._buffer.numel() > 2 * FIRST
    for got in _send_all(worker, server, [small, small, small]):
        assert torch.equal(got, small)
    assert server._buffer.numel() > 2 * FIRST, "a large one may come again"
    where = [got.data_ptr() for got in _send_all(worker, server, [small] * 6)]
    assert server._buffer.numel() == FIRST and len(set(where[1:])) == 1
    assert [torch.equal(got, large) for got in _send_all(worker, server, [large])] == [True]


def test_the_pages_that_a_large_first_message_touched_are_given_back_too(
    opened: Opened, frame: Callable[..., Tensor]
) -> None:
    large, small = frame(1, FIRST // 2), frame(2, 1000)
    worker, server = opened(FIRST)
    rooms = [server._buffer]
    for sent in [large] * 2 + [small] * 3 + [large] + [small] * 9:
        for got in _send_all(worker, server, [sent]):
            assert torch.equal(got, sent)
        if server._buffer is not rooms[-1]:
            rooms.append(server._buffer)
    assert len(rooms) == 2 and server._touched < FIRST // 100


def test_a_message_that_is_no_frame_is_not_taken_for_the_last_one(
    opened: Opened, frame: Callable[..., Tensor]
) -> None:
    worker, server = opened(1 << 20)
    for got in _send_all(worker, server, [frame(1, 100)]):
        assert got.numel() > 100
    rest = threading.Thread(
        target=lambda: worker._open_group().send([torch.zeros(5, dtype=torch.uint8)], 0, 0).wait(SECONDS)
    )
    rest.start()
    with pytest.raises(FrameError):
        server.receive(SECONDS)
    rest.join()
