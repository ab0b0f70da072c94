# SPDX-License-Identifier: Apache-2.0
"""A limit in time for calls that have none of their own: a store's client waits for a frozen server for ever."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from .errors import LinkTimeoutError

T = TypeVar("T")


class _Call(Generic[T]):
    """One call in a thread of its own; whoever comes second, the result or the caller's patience, cleans up."""

    def __init__(self, action: Callable[[], T], discard: Callable[[T], None]) -> None:
        self._action, self._discard = action, discard
        self._lock = threading.Lock()
        self._abandoned = False
        self._error: BaseException | None = None
        self._results: list[T] = []
        self.finished = threading.Event()

    def run(self) -> None:
        try:
            result = self._action()
        except BaseException as error:
            self._error = error
        else:
            with self._lock:
                self._results.append(result)
                late = self._abandoned
            if late:
                self._discard(result)
        self.finished.set()

    def abandon(self) -> None:
        with self._lock:
            self._abandoned = True
            come = list(self._results)
        for result in come:
            self._discard(result)

    def result(self) -> T:
        if self._error is not None:
            raise self._error
        return self._results[0]


def within(seconds: float, action: Callable[[], T], discard: Callable[[T], None], what: str) -> T:
    """What `action` returns or raises, or LinkTimeoutError after `seconds`.

    A call that is late goes on in its (daemon) thread until it comes back; its result then goes to `discard`.

    Args:
        seconds: how long to wait.
        action: the call.
        discard: frees a result that nobody waits for.
        what: what did not happen, for the message.
    """
    call = _Call(action, discard)
    threading.Thread(target=call.run, name="dgs-bounded", daemon=True).start()
    try:
        in_time = call.finished.wait(seconds)
    except BaseException:
        call.abandon()
        raise
    if not in_time:
        call.abandon()
        raise LinkTimeoutError(f"{what} within {seconds:g} s")
    return call.result()
