# SPDX-License-Identifier: Apache-2.0
"""What dgs.transport.base promises of an open link, of every transport; test_before_open.py: until it is open."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from dgs.errors import (
    FrameError,
    FrameTooLargeError,
    LinkClosedError,
    LinkTimeoutError,
    TransportError,
)
from dgs.transport.base import Link
from dgs_ext import wire

if TYPE_CHECKING:
    from conftest import Meeting

SECONDS = timedelta(seconds=30)
MakeFrame = Callable[..., Tensor]


def test_frames_arrive_whole_and_in_order_both_ways(meeting: Meeting, frame: MakeFrame) -> None:
    worker, server = meeting.open()
    up = [frame(i, body) for i, body in enumerate([0, 1, 63, 64, 65, 5000, 0, 3])]
    down = [frame(100 + i, body) for i, body in enumerate([7, 0, 100_000])]

    def send() -> None:
        for f in up:
            worker.send(f, SECONDS)
        for f in down:
            assert torch.equal(worker.receive(SECONDS), f)

    theirs = meeting.pool.submit(send)
    for f in up:
        assert torch.equal(server.receive(SECONDS), f)
    for f in down:
        server.send(f, SECONDS)
    theirs.result(30)


def test_large_frames(meeting: Meeting, frame: MakeFrame) -> None:
    worker, server = meeting.open(cap=8 << 20)
    sent = frame(1, 8 << 20)
    for source, target in ((worker, server), (server, worker)):
        theirs = meeting.pool.submit(source.send, sent, SECONDS)
        assert torch.equal(target.receive(SECONDS), sent)
        theirs.result(30)


@pytest.mark.parametrize("body", [10, 9 << 20])
def test_who_asks_takes_what_the_other_end_sends_first(meeting: Meeting, frame: MakeFrame, body: int) -> None:
    worker, server = meeting.open(cap=9 << 20)
    before, question, answer = frame(1, body), frame(2, body), frame(3, 100)

    def serve() -> Tensor:
        server.send(before, SECONDS)
        asked = server.receive(SECONDS).clone()
        server.send(answer, SECONDS)
        return asked

    theirs = meeting.pool.submit(serve)
    came = [got.clone() for got in islice(worker.ask(question, SECONDS), 2)]
    assert torch.equal(theirs.result(30), question)
    assert torch.equal(came[0], before) and torch.equal(came[1], answer)


def test_memory_may_be_reused_when_send_returns(meeting: Meeting, frame: MakeFrame) -> None:
    worker, server = meeting.open()
    sent = frame(1, 1000)
    expected = sent.clone()
    received = meeting.pool.submit(lambda: server.receive(SECONDS).clone())
    worker.send(sent, SECONDS)
    sent.zero_()
    assert torch.equal(received.result(30), expected)


def test_a_frame_over_the_cap_is_not_sent_and_the_link_lives(meeting: Meeting, frame: MakeFrame) -> None:
    worker, server = meeting.open(cap=1000)
    with pytest.raises(FrameTooLargeError, match="1001 payload bytes passes the session's cap of 1000"):
        worker.send(frame(1, 1001), SECONDS)
    fits = frame(2, 1000)
    theirs = meeting.pool.submit(worker.send, fits, SECONDS)
    assert torch.equal(server.receive(SECONDS), fits)
    theirs.result(30)


def test_an_honest_frame_over_the_receivers_cap_is_a_typed_error(meeting: Meeting, frame: MakeFrame) -> None:
    worker, server = meeting.open(cap=1 << 20, server_cap=1000)
    other_worker, other_server = meeting.open()
    theirs = meeting.pool.submit(worker.send, frame(1, 500_000), SECONDS)
    with pytest.raises(FrameTooLargeError, match="500000 payload bytes passes the session's cap of 1000"):
        server.receive(SECONDS)
    server.close()
    error = theirs.exception(30)
    assert error is None or isinstance(error, TransportError)
    fine = frame(2, 10)
    theirs = meeting.pool.submit(other_worker.send, fine, SECONDS)
    assert torch.equal(other_server.receive(SECONDS), fine)
    theirs.result(30)


def test_garbage_is_no_header(meeting: Meeting) -> None:
    worker, server = meeting.open()
    garbage = torch.full((wire.HEADER_BYTES,), 0x5A, dtype=torch.uint8)
    theirs = meeting.pool.submit(worker.send, garbage, SECONDS)
    with pytest.raises(FrameError, match="bad_magic"):
        server.receive(SECONDS)
    theirs.result(30)


def test_a_closed_peer_is_noticed_at_once(meeting: Meeting, frame: MakeFrame) -> None:
    worker, server = meeting.open()
    worker.close()
    began = time.monotonic()
    with pytest.raises(LinkClosedError):
        server.receive(None)
    with pytest.raises(TransportError):
        server.send(frame(), SECONDS)
    assert time.monotonic() - began < 30


def test_receive_gives_up_in_time_and_the_link_is_dead(meeting: Meeting, frame: MakeFrame) -> None:
    worker, server = meeting.open()
    began = time.monotonic()
    with pytest.raises(LinkTimeoutError):
        server.receive(timedelta(seconds=0.2))
    assert 0.15 < time.monotonic() - began < 30
    with pytest.raises(TransportError):
        server.send(frame(), SECONDS)
    with pytest.raises(TransportError):
        worker.receive(SECONDS)


def test_no_time_is_no_time(meeting: Meeting) -> None:
    _, server = meeting.open()
    with pytest.raises(LinkTimeoutError):
        server.receive(timedelta(0))


def test_interrupt_wakes_a_receive_of_another_thread(meeting: Meeting, later: Callable[..., None]) -> None:
    worker, server = meeting.open()
    later(0.2, server.interrupt)
    began = time.monotonic()
    with pytest.raises(LinkClosedError):
        server.receive(None)
    assert time.monotonic() - began < 30
    with pytest.raises(LinkClosedError):
        server.receive(None)
    server.close()
    with pytest.raises(TransportError):
        worker.receive(SECONDS)


def test_interrupting_one_session_leaves_the_others(meeting: Meeting, frame: MakeFrame) -> None:
    _, server = meeting.open()
    other_worker, other_server = meeting.open()
    received = meeting.pool.submit(lambda: other_server.receive(SECONDS).clone())
    server.interrupt()
    sent = frame(1, 100)
    other_worker.send(sent, SECONDS)
    assert torch.equal(received.result(30), sent)


def _heard(link: Link, silence: float) -> bool:
    """Whether a beat has come: it takes its time through a store."""
    deadline = time.monotonic() + 30
    while link.silence() >= silence:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True


def test_silence_lasts_from_beat_to_beat(meeting: Meeting) -> None:
    worker, server = meeting.open()
    time.sleep(0.2)
    before = server.silence()
    assert before >= 0.2
    worker.beat()
    assert _heard(server, before)
    time.sleep(0.2)
    assert server.silence() >= 0.2
    worker.beat()
    assert _heard(server, 0.2)


def test_a_beat_passes_while_the_other_end_receives(meeting: Meeting) -> None:
    worker, server = meeting.open()
    waiting = meeting.pool.submit(server.receive, None)
    time.sleep(0.2)
    assert server.silence() >= 0.2
    worker.beat()
    assert _heard(server, 0.2)
    worker.close()
    assert isinstance(waiting.exception(30), LinkClosedError)


def test_a_frame_before_open_is_an_error(meeting: Meeting, frame: MakeFrame) -> None:
    worker, _ = meeting.meet()
    with pytest.raises(TransportError):
        worker.send(frame(1, 1), SECONDS)


def test_closing_twice_is_closing_once(meeting: Meeting, frame: MakeFrame) -> None:
    worker, server = meeting.open()
    for _ in range(2):
        worker.close()
        server.close()
        meeting.listener.close()
    for action in (lambda: worker.receive(SECONDS), lambda: worker.send(frame(), SECONDS)):
        with pytest.raises(LinkClosedError):
            action()


def test_links_are_apart(meeting: Meeting, frame: MakeFrame) -> None:
    pairs = [meeting.open() for _ in range(4)]
    sent = [frame(i, 1000 * i) for i in range(4)]
    theirs = [meeting.pool.submit(w.send, f, SECONDS) for (w, _), f in zip(pairs, sent, strict=True)]
    for (_, server), f in reversed(list(zip(pairs, sent, strict=True))):
        assert torch.equal(server.receive(SECONDS), f)
    for t in theirs:
        t.result(30)


def test_accept_gives_up_in_time(meeting: Meeting) -> None:
    began = time.monotonic()
    assert meeting.listener.accept(timedelta(seconds=0.1)) is None
    assert 0.05 < time.monotonic() - began < 30


def test_nobody_is_met_after_the_listener_has_closed(meeting: Meeting) -> None:
    meeting.listener.close()
    gc.collect()
    with pytest.raises(TransportError):
        meeting.dial(timedelta(seconds=0.2))


def test_threads_end_with_their_links(meeting: Meeting, frame: MakeFrame) -> None:
    before = set(threading.enumerate())
    worker, server = meeting.open()
    worker.close()
    server.close()
    left = [t for t in set(threading.enumerate()) - before if not t.name.startswith("ThreadPool")]
    assert left == []
