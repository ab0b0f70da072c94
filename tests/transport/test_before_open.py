# SPDX-License-Identifier: Apache-2.0
"""What dgs.transport.base promises of a link that is not open yet, of every transport."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from dgs.errors import LinkClosedError, LinkTimeoutError, ProtocolError, TransportError
from dgs.transport.base import MAX_JSON

if TYPE_CHECKING:
    from conftest import Meeting

SECONDS = timedelta(seconds=30)


def test_messages_arrive_in_order_both_ways(meeting: Meeting) -> None:
    worker, server = meeting.meet()
    for i in range(3):
        worker.tell({"number": i, "text": "é"})
    assert [server.hear(SECONDS) for _ in range(3)] == [{"number": i, "text": "é"} for i in range(3)]
    server.tell({"answer": [1, None, 2.5]})
    assert worker.hear(SECONDS) == {"answer": [1, None, 2.5]}


@pytest.mark.parametrize("message", [["a", "list"], "text", 3, None], ids=str)
def test_a_message_that_is_no_object_is_refused(meeting: Meeting, message: object) -> None:
    worker, server = meeting.meet()
    worker.tell(message)  # type: ignore[arg-type]
    with pytest.raises(ProtocolError, match="not an object"):
        server.hear(SECONDS)


def test_a_message_over_the_limit_is_refused(meeting: Meeting) -> None:
    worker, server = meeting.meet()
    worker.tell({"long": "x" * MAX_JSON})
    with pytest.raises(ProtocolError, match=f"passes the limit of {MAX_JSON}"):
        server.hear(SECONDS)


def test_hear_gives_up_in_time(meeting: Meeting) -> None:
    worker, _ = meeting.meet()
    began = time.monotonic()
    with pytest.raises(LinkTimeoutError):
        worker.hear(timedelta(seconds=0.2))
    assert 0.15 < time.monotonic() - began < 30


def test_hear_is_interrupted(meeting: Meeting, later: Callable[..., None]) -> None:
    worker, _ = meeting.meet()
    later(0.1, worker.interrupt)
    with pytest.raises(LinkClosedError):
        worker.hear(SECONDS)


def test_how_long_the_other_end_is_silent_can_be_asked_while_this_one_opens(meeting: Meeting) -> None:
    """As a server does of all its sessions: one whose worker does not come must not hold up the rest."""
    _, server = meeting.meet()
    opening = meeting.pool.submit(server.open, "1-session", 100, SECONDS)
    time.sleep(0.2)
    assert server.silence() >= 0.2
    assert not opening.done()
    server.interrupt()
    assert isinstance(opening.exception(30), LinkClosedError)


def test_a_link_interrupted_before_it_is_open_does_not_open(meeting: Meeting) -> None:
    worker, server = meeting.meet()
    server.interrupt()
    theirs = meeting.pool.submit(worker.open, "1-session", 100, timedelta(seconds=1))
    with pytest.raises(LinkClosedError):
        server.open("1-session", 100, timedelta(seconds=1))
    server.close()
    theirs.exception(30)  # opened, or failed in time: both ends are free again


def test_two_sessions_do_not_meet(meeting: Meeting) -> None:
    worker, server = meeting.meet()
    theirs = meeting.pool.submit(worker.open, "2-other", 100, timedelta(seconds=1))
    with pytest.raises(TransportError):
        server.open("1-session", 100, timedelta(seconds=1))
    assert isinstance(theirs.exception(30), TransportError)
