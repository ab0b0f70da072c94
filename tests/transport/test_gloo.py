# SPDX-License-Identifier: Apache-2.0
"""What only sockets have: ports, addresses, file descriptors, processes that are killed or frozen."""

from __future__ import annotations

import gc
import logging
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor
from waiting import until

from dgs.errors import FrameError, LinkClosedError, PortInUseError, ServerUnreachableError, TransportError
from dgs.transport import GlooLink, GlooListener, dial, meeting
from dgs.transport.gloo import FIRST
from dgs_ext import wire

if TYPE_CHECKING:
    from conftest import Meeting

SECONDS = timedelta(seconds=30)
PEER = """
import sys, time, torch
from datetime import timedelta
from dgs.transport import dial
link = dial("127.0.0.1", int(sys.argv[1]), timedelta(seconds=20))
link.open("1-session", 1 << 20, timedelta(seconds=20))
print("open", flush=True)
time.sleep(60)
"""


def _held() -> tuple[int, int]:
    """File descriptors and threads (those of C++ too) of this process."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir()), sum(1 for _ in Path("/proc/self/task").iterdir())


@contextmanager
def _listening(port: int = 0) -> Iterator[GlooListener]:
    listener = GlooListener("127.0.0.1", port)
    try:
        yield listener
    finally:
        listener.close()


def _rounds(meeting_of: Callable[[str], Meeting], frame: Tensor, count: int) -> None:
    for _ in range(count):
        meeting = meeting_of("gloo")
        try:
            worker, server = meeting.open()
            theirs = meeting.pool.submit(worker.send, frame, SECONDS)
            server.receive(SECONDS)
            theirs.result(30)
            server.interrupt()
            meeting.meet()  # one that never opens
        finally:
            meeting.close()
            del meeting
    gc.collect()


def test_nothing_is_left_of_closed_links(gloo_meeting: Meeting, frame: Callable[..., Tensor]) -> None:
    meeting = gloo_meeting
    _rounds(type(meeting), frame(1, 1000), 1)  # what gloo makes once stays
    before = _held()
    _rounds(type(meeting), frame(1, 1000), 5)
    until(lambda: _held() <= before, "as many threads and files as before")


def test_a_killed_peer_is_noticed_by_its_own_link_only() -> None:
    with _listening() as listener:
        peers = [
            subprocess.Popen(
                [sys.executable, "-c", PEER, str(listener.port)], stdout=subprocess.PIPE, text=True
            )
            for _ in range(2)
        ]
        links = []
        try:
            for _ in peers:
                link = listener.accept(timedelta(seconds=60))
                assert link is not None
                link.open("1-session", 1 << 20, SECONDS)
                links.append(link)
            for peer in peers:
                assert peer.stdout is not None and peer.stdout.readline() == "open\n"
            ended = [threading.Event(), threading.Event()]

            def wait(number: int) -> None:
                with pytest.raises(LinkClosedError):
                    links[number].receive(None)
                ended[number].set()

            threads = [threading.Thread(target=wait, args=(n,)) for n in range(2)]
            for t in threads:
                t.start()
            peers[0].send_signal(signal.SIGKILL)
            until(lambda: any(e.is_set() for e in ended), "the link has ended")
            time.sleep(0.3)
            assert [e.is_set() for e in ended].count(True) == 1
            peers[1].send_signal(signal.SIGKILL)
            for t in threads:
                t.join(30)
            assert all(e.is_set() for e in ended)
        finally:
            for link in links:
                link.interrupt()
                link.close()
            for peer in peers:
                peer.kill()
                peer.communicate()


def test_a_port_in_use_is_a_typed_error_and_is_free_after_close() -> None:
    with _listening() as listener:
        port = listener.port
        with pytest.raises(PortInUseError, match=f"127.0.0.1:{port}"):
            GlooListener("127.0.0.1", port)
    gc.collect()
    with _listening(port) as again:
        assert again.port == port


def test_a_server_that_waits_for_workers_does_not_ask_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told, and then looks."""
    looks, look = [], GlooListener._next
    monkeypatch.setattr(GlooListener, "_next", lambda self, store: looks.append(1) or look(self, store))
    with _listening() as listener:
        assert listener.accept(timedelta(seconds=0.5)) is None and len(looks) <= 3
        dialled: list[GlooLink] = []
        thread = threading.Thread(target=lambda: dialled.append(dial("127.0.0.1", listener.port, SECONDS)))
        thread.start()
        link = listener.accept(SECONDS)
        thread.join()
        assert link is not None and len(looks) <= 6
        for end in (link, *dialled):
            end.close()


def test_a_server_that_cannot_reach_itself_says_so(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with another machine's address for master."""

    def silent(*_: object, **__: object) -> None:
        raise TimeoutError("timed out")

    monkeypatch.setattr("dgs.transport.meeting._ITSELF", 0.1)
    with monkeypatch.context() as patched:
        patched.setattr(socket, "create_connection", silent)
        message = f"cannot reach itself at 127.0.0.1:{port}: timed out. master must be this machine's own"
        with pytest.raises(ServerUnreachableError, match=message):
            GlooListener("127.0.0.1", port)
    with _listening(port) as again:  # it has let go of the port
        assert again.port == port


def test_no_server_is_a_typed_error_in_time(port: int) -> None:
    began = time.monotonic()
    with pytest.raises(ServerUnreachableError, match=f"no server at 127.0.0.1:{port}"):
        dial("127.0.0.1", port, timedelta(seconds=0.5))
    assert time.monotonic() - began < 30


def test_an_unknown_host_is_a_typed_error() -> None:
    with pytest.raises(ServerUnreachableError, match="no-such-host.invalid"):
        dial("no-such-host.invalid", 29500, timedelta(seconds=0.5))


def test_a_worker_waits_for_the_server_and_says_so(
    port: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("dgs.transport.meeting._SAY_EVERY", 0.2)
    made: list[GlooListener] = []
    timer = threading.Timer(0.8, lambda: made.append(GlooListener("127.0.0.1", port)))
    timer.start()
    try:
        with caplog.at_level(logging.WARNING, "dgs"):
            worker = dial("127.0.0.1", port, SECONDS)
        assert f"waiting for the server at 127.0.0.1:{port}" in caplog.text
        server = made[0].accept(SECONDS)
        assert server is not None
        worker.tell({"here": 1})
        assert server.hear(SECONDS) == {"here": 1}
        worker.close()
        server.close()
    finally:
        timer.join()
        for listener in made:
            listener.close()


def test_a_worker_that_waits_long_says_so_ever_more_rarely(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now, said = 0.0, []
    monkeypatch.setattr(meeting.time, "monotonic", lambda: now)
    monkeypatch.setattr(meeting.time, "sleep", lambda _: None)
    patience = meeting._Patience("here", 1, timedelta(seconds=400))
    with caplog.at_level(logging.WARNING, "dgs"):
        for now in range(300):
            before = len(caplog.records)
            patience.wait("nobody")
            said += [now] * (len(caplog.records) - before)
    gaps = [b - a for a, b in pairwise([0, *said])]
    assert gaps == [4, 7, 13, 25, 49, 61, 61, 61], "each a second more, as it looks once in a second here"


def test_something_else_that_listens_is_no_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        began = time.monotonic()
        with pytest.raises(ServerUnreachableError):
            dial("127.0.0.1", other.getsockname()[1], timedelta(seconds=1))
        assert time.monotonic() - began < 60


def test_a_store_that_no_server_uses_is_no_server() -> None:
    """Under torchrun the agent's store is there long before the server."""
    with _listening() as listener, pytest.raises(ServerUnreachableError, match="has not begun to serve"):
        dial("127.0.0.1", listener.port, timedelta(seconds=0.5), run="restart1")


def test_an_agents_store_serves_two_runs_one_after_the_other() -> None:
    with _listening() as agent:
        for _ in range(2):
            listener = GlooListener("127.0.0.1", agent.port, agent_run="restart0")
            worker = dial("127.0.0.1", agent.port, SECONDS, run="restart0")
            server = listener.accept(SECONDS)
            assert server is not None
            server.tell({"run": 1})
            assert worker.hear(SECONDS) == {"run": 1}
            assert listener.accept(timedelta(0)) is None
            for closing in (worker, server, listener):
                closing.close()


def test_a_local_master_listens_on_loopback_alone(gloo_meeting: Meeting) -> None:
    gloo_meeting.open()  # gloo has listeners of its own then
    assert _listening_addresses() == {"0100007F"}


def _listening_addresses() -> set[str]:
    """The local addresses at which this process listens."""
    inodes = set()
    for fd in Path("/proc/self/fd").iterdir():
        try:
            target = str(fd.readlink())
        except FileNotFoundError:
            continue  # the one that lists the folder
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    lines = (line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:])
    return {fields[1].split(":")[0] for fields in lines if fields[3] == "0A" and fields[9] in inodes}


def test_a_worker_whose_address_is_nonsense_is_a_typed_error() -> None:
    with _listening() as listener:
        worker = dial("127.0.0.1", listener.port, SECONDS, address="not an address")
        server = listener.accept(SECONDS)
        assert server is not None
        worker.interrupt()
        with pytest.raises(TransportError):  # its address is told all the same
            worker.open("1", 10, timedelta(seconds=1))
        with pytest.raises(TransportError, match="not an address"):
            server.open("1", 10, timedelta(seconds=2))
        server.close()
        worker.close()


@contextmanager
def _open(cap: int) -> Iterator[tuple[GlooLink, GlooLink]]:
    """A worker's end and the server's."""
    with _listening() as listener:
        worker, server = dial("127.0.0.1", listener.port, SECONDS), listener.accept(SECONDS)
        assert server is not None
        opening = threading.Thread(target=worker.open, args=("1", cap, SECONDS))
        opening.start()
        server.open("1", cap, SECONDS)
        opening.join()
        try:
            yield worker, server
        finally:
            worker.close()
            server.close()


def _send_all(worker: GlooLink, server: GlooLink, frames: list[Tensor]) -> Iterator[Tensor]:
    """What the server receives of the frames that the worker sends."""
    sending = threading.Thread(target=lambda: [worker.send(f, SECONDS) for f in frames])
    sending.start()
    for _ in frames:
        yield server.receive(SECONDS)
    sending.join()


def test_frames_around_the_first_messages_size_arrive_whole(frame: Callable[..., Tensor]) -> None:
    sizes = (10, FIRST - 65, FIRST - 64, FIRST - 63, 3, 3 * FIRST, 2 * FIRST, 0)
    frames = [frame(i, size - wire.HEADER_BYTES if size > FIRST else size) for i, size in enumerate(sizes)]
    with _open(3 * FIRST) as (worker, server):
        for sent, got in zip(frames, _send_all(worker, server, frames), strict=True):
            assert torch.equal(sent, got)


def test_the_room_of_a_snapshot_is_given_back_and_that_of_steady_frames_kept(
    frame: Callable[..., Tensor],
) -> None:
    large, small = frame(1, 2 * FIRST), frame(2, FIRST // 4)
    with _open(2 * FIRST) as (worker, server):
        where = [got.data_ptr() for got in _send_all(worker, server, [large] * 3)]
        assert len(set(where)) == 1 and server._buffer.numel() > 2 * FIRST
        for got in _send_all(worker, server, [small, small, small]):
            assert torch.equal(got, small)
        assert server._buffer.numel() > 2 * FIRST, "a large one may come again"
        where = [got.data_ptr() for got in _send_all(worker, server, [small] * 6)]
        assert server._buffer.numel() == FIRST and len(set(where[1:])) == 1
        assert [torch.equal(got, large) for got in _send_all(worker, server, [large])] == [True]


def test_the_pages_that_a_large_first_message_touched_are_given_back_too(
    frame: Callable[..., Tensor],
) -> None:
    large, small = frame(1, FIRST // 2), frame(2, 1000)
    with _open(FIRST) as (worker, server):
        rooms = [server._buffer]
        for sent in [large] * 2 + [small] * 3 + [large] + [small] * 9:
            for got in _send_all(worker, server, [sent]):
                assert torch.equal(got, sent)
            if server._buffer is not rooms[-1]:
                rooms.append(server._buffer)
        assert len(rooms) == 2 and server._touched < FIRST // 100


def test_a_message_that_is_no_frame_is_not_taken_for_the_last_one(frame: Callable[..., Tensor]) -> None:
    with _open(1 << 20) as (worker, server):
        for got in _send_all(worker, server, [frame(1, 100)]):
            assert got.numel() > 100
        rest = threading.Thread(
            target=lambda: worker._open_group().send([torch.zeros(5, dtype=torch.uint8)], 0, 0).wait(SECONDS)
        )
        rest.start()
        with pytest.raises(FrameError):
            server.receive(SECONDS)
        rest.join()
