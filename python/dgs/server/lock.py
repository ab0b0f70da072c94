# SPDX-License-Identifier: Apache-2.0
"""The lock over the server's parameters: many pulls and snapshots, or one push."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class SharedLock:
    """A readers-writer lock that starves neither side.

    A waiting writer holds back readers that come after it; when it leaves, the readers that waited go first.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._readers = 0
        self._writing = False
        self._writers_waiting = 0
        self._readers_waiting = 0
        self._passes = 0  # readers that may go before the next writer

    @contextmanager
    def shared(self) -> Iterator[None]:
        with self._changed:
            ticketed = self._wait_to_read()
            self._readers += 1
            if ticketed and self._passes:
                self._passes -= 1
        try:
            yield
        finally:
            with self._changed:
                self._readers -= 1
                self._changed.notify_all()

    def _wait_to_read(self) -> bool:
        waited = False
        while self._writing or (self._writers_waiting and not self._passes):
            waited = True
            self._readers_waiting += 1
            try:
                self._changed.wait()
            finally:
                self._readers_waiting -= 1
        return waited

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        with self._changed:
            self._writers_waiting += 1
            try:
                while self._writing or self._readers or self._passes:
                    self._changed.wait()
            finally:
                self._writers_waiting -= 1
            self._writing = True
        try:
            yield
        finally:
            with self._changed:
                self._writing = False
                self._passes = self._readers_waiting
                self._changed.notify_all()
