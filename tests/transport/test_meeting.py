# SPDX-License-Identifier: Apache-2.0
"""Where gloo's links meet: a port that is taken, a server that is not there yet, or is none."""

from __future__ import annotations

import gc
import logging
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from itertools import pairwise

import pytest

from dgs.errors import PortInUseError, ServerUnreachableError
from dgs.transport import GlooLink, GlooListener, dial, meeting

SECONDS = timedelta(seconds=30)


@contextmanager
def _listening(port: int = 0) -> Iterator[GlooListener]:
    listener = GlooListener("127.0.0.1", port)
    try:
        yield listener
    finally:
        listener.close()


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


def test_a_session_that_is_over_leaves_nothing_in_the_store() -> None:
    """Whether its worker hung up or was lost."""

    def work(hang_up: bool) -> None:
        link = dial("127.0.0.1", listener.port, SECONDS)
        link.tell({"hello": 1})
        link.open("session", 1000, SECONDS)
        link.beat()
        if hang_up:
            link.close()

    with _listening() as listener, ThreadPoolExecutor(1) as threads:
        assert listener._owner is not None
        during, after = [], []
        for hang_up in (True, False, True):
            worker = threads.submit(work, hang_up)
            link = listener.accept(SECONDS)
            assert link is not None and link.hear(SECONDS) == {"hello": 1}
            link.open("session", 1000, SECONDS)
            worker.result()
            during.append(listener._owner.num_keys())
            link.close()
            assert listener.accept(timedelta()) is None
            after.append(listener._owner.num_keys())
        assert len(set(after)) == 1, "the number of tickets is there from the first one on"
        assert min(during) >= after[0] + 3, "a beat, and an address of each end"


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
