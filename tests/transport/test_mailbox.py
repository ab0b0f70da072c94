# SPDX-License-Identifier: Apache-2.0
"""Texts between the ends of a link through a store: a wait asks for nothing, and ends without a word from C++."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from waiting import until

from dgs.errors import LinkClosedError, LinkTimeoutError
from dgs.transport.mailbox import Mailbox, dist

SECONDS = timedelta(seconds=30)
Pair = tuple[Mailbox, Mailbox]


@pytest.fixture(params=[True, False], ids=["libuv", "no libuv"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Two ends, at a store like ours or like one of an agent under USE_LIBUV=0."""
    options = {"wait_for_workers": False, "timeout": SECONDS, "use_libuv": request.param}
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, **options)
    ends = Mailbox(store.clone(), "run", 1), Mailbox(store.clone(), "run", 1)
    yield ends
    for end in ends:
        end.close()


def test_a_wait_asks_for_nothing_and_is_ended_by_what_comes(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = pair
    uses: list[str] = []
    use = Mailbox.use

    def counted(self: Mailbox, action: Callable[[Any], Any]) -> Any:
        uses.append(threading.current_thread().name)
        return use(self, action)

    monkeypatch.setattr(Mailbox, "use", counted)
    came: list[bytes] = []
    key = one.key(0, 7)
    waiting = threading.Thread(target=lambda: came.append(one.take(key, SECONDS)), name="waiting")
    waiting.start()
    until(lambda: uses == ["waiting"], "it waits")
    waiting.join(0.2)
    assert uses == ["waiting"]
    other.put(key, "text")
    waiting.join(30)
    assert came == [b"text"] and uses.count("waiting") == 3, "waited, got, deleted"


def test_a_wait_that_runs_out_prints_nothing_and_takes_nothing_away(
    pair: Pair, capfd: pytest.CaptureFixture[str]
) -> None:
    one, other = pair
    key = one.key(1, 0)
    with pytest.raises(LinkTimeoutError, match=r"said nothing within 0.1 s"):
        one.take(key, timedelta(seconds=0.1))
    assert capfd.readouterr() == ("", "")
    other.put(key, "text")
    one._wake(key)  # as a wait does that runs out just then
    assert one.take(key, SECONDS) == b"text"


def test_a_wait_is_interrupted_as_are_those_to_come(pair: Pair) -> None:
    one, _ = pair
    errors: list[BaseException] = []

    def wait() -> None:
        with pytest.raises(LinkClosedError) as caught:
            one.take("key", SECONDS)
        errors.append(caught.value)

    waiting = threading.Thread(target=wait)
    waiting.start()
    until(lambda: one._awaited == "key", "it waits")
    one.interrupt()
    waiting.join(30)
    assert len(errors) == 1
    with pytest.raises(LinkClosedError):
        one.take("another", SECONDS)


def test_a_store_that_is_gone_ends_a_wait() -> None:
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=SECONDS)
    one = Mailbox(store.clone(), "run", 1)
    ending = threading.Timer(0.1, lambda: owner.clear())
    owner = [store]
    del store
    ending.start()
    with pytest.raises(LinkClosedError, match="the meeting point is gone"):
        one.take("key", SECONDS)
    ending.join()
