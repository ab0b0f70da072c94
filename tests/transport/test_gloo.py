# SPDX-License-Identifier: Apache-2.0
"""What only sockets have: file descriptors, listeners, processes that are killed."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from torch import Tensor
from waiting import until

from dgs.errors import LinkClosedError, TransportError
from dgs.transport import GlooListener, dial

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


def test_a_killed_peer_is_noticed_by_its_own_link_only(gloo_meeting: Meeting) -> None:
    listener, links = gloo_meeting.listener, gloo_meeting.links
    assert isinstance(listener, GlooListener)
    command = [sys.executable, "-c", PEER, str(listener.port)]
    peers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
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
        for peer in peers:
            peer.kill()
            peer.communicate()


def test_a_closed_link_does_not_count_as_silent_for_a_while(gloo_meeting: Meeting) -> None:
    for worker, server in (gloo_meeting.meet(), gloo_meeting.open()):
        server.close()
        with pytest.raises(LinkClosedError):
            server.silence()
        worker.close()


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


def test_a_worker_whose_address_is_nonsense_is_a_typed_error(gloo_meeting: Meeting) -> None:
    listener = gloo_meeting.listener
    assert isinstance(listener, GlooListener)
    worker = dial("127.0.0.1", listener.port, SECONDS, address="not an address")
    server = listener.accept(SECONDS)
    assert server is not None
    gloo_meeting.links += [worker, server]
    worker.interrupt()
    with pytest.raises(TransportError):  # its address is told all the same
        worker.open("1", 10, timedelta(seconds=1))
    with pytest.raises(TransportError, match="not an address"):
        server.open("1", 10, timedelta(seconds=2))
