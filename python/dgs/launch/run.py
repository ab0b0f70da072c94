# SPDX-License-Identifier: Apache-2.0
"""A server and workers from their start to the end of the last: one thread, which sleeps until one of them speaks."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import IO

from ..errors import ConfigError, PortInUseError
from ..transport.address import held
from .child import Child, environment, threads_of
from .output import Screen
from .signals import Signals

_ALONE = 60.0  # seconds that a server may go on listening once no worker is left; its grace is 30
_ECHO = 0.5  # seconds in which a signal that comes again is the same: `timeout` sends it to process and group
_FAREWELL = 10.0  # seconds that children have to end when the launcher itself fails


def launch(program: Sequence[str], workers: int, *, port: int = 0, screen: Screen | None = None) -> int:
    """Runs `python program…` as a server and `workers` workers on this machine; in the main thread only.

    Args:
        program: a script, or "-m" and a module, and the arguments.
        workers: how many, at least 1.
        port: the server's, on loopback; 0: a free one.
        screen: what takes the output; by default this process's stdout and stderr.

    Returns:
        The exit code of the first process that failed, 128 + n where signal n ended it; else 0, or 128 + n where
        signal n came here.

    Raises:
        ConfigError: there is no worker, or no such port.
        PortInUseError: the port is taken.
    """
    if workers < 1:
        raise ConfigError(f"workers must be at least 1, got {workers}")
    if not 0 <= port <= 65535:
        raise ConfigError(f"port must be in [0, 65535], got {port}")
    screen = screen or Screen(sys.stdout.buffer, sys.stderr.buffer, workers)
    with Signals() as signals, _held(port) as number, _Run(signals, screen, number) as run:
        if not os.environ.get("OMP_NUM_THREADS"):
            server, worker = (threads_of(rank, workers) for rank in (0, 1))
            screen.say(
                f"OMP_NUM_THREADS was not set: it is {worker} for each worker and {server} for the server"
            )
        for rank in range(workers + 1):
            run.start(rank, program, environment(os.environ, rank, workers, number))
        return run.watch()


@contextmanager
def _held(port: int) -> Iterator[int]:
    """A port at which the server can listen, and nobody else is given."""
    with ExitStack() as stack:
        try:
            number = stack.enter_context(held(port))
        except OSError as error:
            raise PortInUseError(f"cannot listen at 127.0.0.1:{port}: {error.strerror or error}") from None
        yield number


class _Run:
    """The processes of one run; none is left when the block ends."""

    def __init__(self, signals: Signals, screen: Screen, port: int) -> None:
        self._signals, self._screen, self._port = signals, screen, port
        self._selector = selectors.DefaultSelector()
        self._selector.register(signals, selectors.EVENT_READ, self._on_signals)
        self._children: list[Child] = []  # that run
        self._failed = 0  # the first exit code that is not 0
        self._asked: signal.Signals | None = None
        self._asked_at = 0.0
        self._alone: float | None = None  # since when the server has no worker

    def __enter__(self) -> _Run:
        return self

    def __exit__(self, *_: object) -> None:
        """Ends what still runs, which there is when the launcher failed: its stdout is gone, say."""
        self._selector.close()
        for child in self._children:
            child.signal(signal.SIGTERM)
            for stream in child.streams:  # lest it wait for someone to read
                stream.close()
        deadline = time.monotonic() + _FAREWELL
        for child in self._children:
            while child.status() is None:
                if time.monotonic() > deadline:
                    child.kill()
                time.sleep(0.05)

    def start(self, rank: int, program: Sequence[str], environ: dict[str, str]) -> None:
        name = f"worker {rank}" if rank else "server"
        child = Child(name, rank, program, environ, *self._screen.streams(name, rank))
        self._children.append(child)
        for stream in child.streams:
            self._selector.register(stream, selectors.EVENT_READ, partial(self._on_output, child, stream))

    def watch(self) -> int:
        """Returns the exit code when all have ended."""
        while self._children:
            left = None if self._alone is None else max(0.0, self._alone + _ALONE - time.monotonic())
            for key, _ in self._selector.select(left):
                if key.fd in self._selector.get_map():  # else one before it in this round has closed it
                    key.data()
            if left == 0.0:
                self._end_an_idle_server()
        return self._failed or (128 + self._asked if self._asked else 0)

    def _on_output(self, child: Child, stream: IO[bytes]) -> None:
        if not child.read(stream):
            self._selector.unregister(stream)

    def _on_signals(self) -> None:
        for number in self._signals.take():
            if number == signal.SIGCHLD:
                self._reap()
            else:
                self._pass_on(number)

    def _pass_on(self, number: signal.Signals) -> None:
        if self._asked:
            if time.monotonic() - self._asked_at < _ECHO:
                return
            self._screen.say(f"{number.name} again: killing all")
            for child in self._children:
                child.kill()
            return
        self._asked, self._asked_at = number, time.monotonic()
        self._screen.say(f"{number.name}: passed on to all; a second one kills them")
        for child in self._children:
            child.signal(signal.SIGTERM if number == signal.SIGHUP else number)

    def _reap(self) -> None:
        for child in list(self._children):
            status = child.status()
            if status is not None:
                self._children.remove(child)
                for stream in child.streams:
                    if stream.fileno() in self._selector.get_map():
                        self._selector.unregister(stream)
                child.close()
                self._ended(child, status)

    def _ended(self, child: Child, status: int) -> None:
        self._failed = self._failed or status
        then = "" if self._asked else self._consequence(child, status)
        if status:
            self._screen.say(f"{child.name} {_how(status)}{then}")

    def _consequence(self, child: Child, status: int) -> str:
        """What the end of `child` means for the others, in words."""
        workers = [other for other in self._children if other.rank]
        if child.rank and workers:
            return "; the others go on"
        if child.rank and self._children:
            self._alone = time.monotonic()
            return "; no worker is left, and the server ends by its settings grace and join_timeout"
        if status:
            for worker in workers:
                worker.signal(signal.SIGTERM)
        return "; nobody starts it again, and the workers are told to end" if workers else ""

    def _end_an_idle_server(self) -> None:
        """SIGTERM, to one that waits for workers that nobody will start; one that has stopped listening has work."""
        self._alone = None
        try:
            socket.create_connection(("127.0.0.1", self._port), timeout=5).close()
        except OSError:
            return
        self._screen.say(f"the server has had no worker for {_ALONE:g} s, and is told to end")
        for child in self._children:
            child.signal(signal.SIGTERM)


def _how(status: int) -> str:
    try:
        return f"ended with exit code {status} ({signal.Signals(status - 128).name})"
    except ValueError:
        return f"failed with exit code {status}"
