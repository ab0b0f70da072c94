# SPDX-License-Identifier: Apache-2.0
"""Child processes of which one may draw on the terminal; none outlives the run that started it."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

_LAST_WORDS = 30  # lines of a failed child's log
_PATIENCE = 10.0  # seconds between asking a child to end and ending it
_LOOK_EVERY = 0.05  # seconds


class ChildError(Exception):
    """A child process failed; the message ends with the last lines of its log."""


@contextmanager
def held_port() -> Iterator[int]:
    """A port of loopback at which a server can listen (it sets SO_REUSEADDR), and that nobody else is given."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield int(holder.getsockname()[1])


def run(commands: Mapping[str, Sequence[str]], logs: Path) -> None:
    """Runs one process per command until all have succeeded. In the main thread only.

    Args:
        commands: an argument list for each child's name. What the first writes to stderr is shown as it is; its
            stdout, and all that the others write, goes into logs.
        logs: a folder for them, one file each.

    Raises:
        ChildError: one failed; the others have been ended.
    """
    logs.mkdir(parents=True, exist_ok=True)
    running: dict[str, subprocess.Popen[bytes]] = {}
    with ExitStack() as stack:
        for name, command in commands.items():
            log = stack.enter_context(_log(logs, name).open("wb"))
            errors = subprocess.STDOUT if running else None
            with _signals_held():
                running[name] = child = subprocess.Popen(command, stdout=log, stderr=errors)
                stack.callback(_end, child)
        while running:
            time.sleep(_LOOK_EVERY)
            for name, code in {name: child.poll() for name, child in running.items()}.items():
                if code:
                    raise ChildError(_last_words(name, code, _log(logs, name)))
                if code == 0:
                    del running[name]


@contextmanager
def _signals_held() -> Iterator[None]:
    """Makes Ctrl-C and SIGTERM wait until a child that is being started is one that will be ended."""
    came: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = {number: signal.signal(number, lambda n, _: came.append(n)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for missed in came:
            signal.raise_signal(missed)


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _log(logs: Path, name: str) -> Path:
    return logs / f"{name.replace(' ', '-')}.log"


def _last_words(name: str, code: int, log: Path) -> str:
    how = f"was ended by signal {-code}" if code < 0 else f"failed with exit code {code}"
    lines = log.read_text(errors="replace").splitlines()[-_LAST_WORDS:]
    return "\n".join([f"{name} {how}; the end of {log}:", *(f"    {line}" for line in lines)])
