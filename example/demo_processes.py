# SPDX-License-Identifier: Apache-2.0
"""Child processes that tell what they do in lines of JSON; none outlives the run that started it."""

from __future__ import annotations

import json
import queue
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

Event = dict[str, Any]

_LAST_WORDS = 30  # lines of a failed child's stderr
_PATIENCE = 5.0  # seconds between asking a child to end and ending it


class ChildError(Exception):
    """A child process failed; the message ends with the last lines of its stderr."""


def free_port() -> int:
    """A port of loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(
    commands: Mapping[str, Sequence[str]], logs: Path, seen: Callable[[str, Event], None]
) -> dict[str, list[Event]]:
    """Runs one process per command and returns what each told, once all have succeeded. In the main thread only.

    Args:
        commands: an argument list for each child's name.
        logs: a folder for what the children write to stderr, one file each.
        seen: called in this thread with a child's name and each thing it tells.

    Raises:
        ChildError: one failed; the others have been ended.
    """
    told: queue.Queue[tuple[str, str | None]] = queue.Queue()
    events: dict[str, list[Event]] = {name: [] for name in commands}
    logs.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        children: dict[str, subprocess.Popen[str]] = {}
        for name, command in commands.items():
            log = stack.enter_context(_log(logs, name).open("w"))
            with _signals_held():
                child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
                listener = threading.Thread(target=_listen, args=(name, child, told), daemon=True)
                listener.start()
                stack.callback(_end, child, listener)
            children[name] = child
        running = set(children)
        while running:
            name, line = told.get()
            if line is not None:
                events[name].append(_event(name, line))
                seen(name, events[name][-1])
                continue
            running.remove(name)
            code = children[name].wait()
            if code:
                raise ChildError(_last_words(name, code, _log(logs, name)))
    return events


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


def _listen(name: str, child: subprocess.Popen[str], told: queue.Queue[tuple[str, str | None]]) -> None:
    assert child.stdout is not None
    with child.stdout as lines:
        for line in lines:
            told.put((name, line))
    told.put((name, None))  # the child closed its stdout: it has ended


def _event(name: str, line: str) -> Event:
    try:
        event: Event = json.loads(line)
    except ValueError:
        raise ChildError(f"{name} said what is no JSON: {line.rstrip()[:200]!r}") from None
    return event


def _end(child: subprocess.Popen[str], listener: threading.Thread) -> None:
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    listener.join()


def _log(logs: Path, name: str) -> Path:
    return logs / f"{name.replace(' ', '-')}.log"


def _last_words(name: str, code: int, log: Path) -> str:
    how = f"was ended by signal {-code}" if code < 0 else f"failed with exit code {code}"
    lines = log.read_text().splitlines()[-_LAST_WORDS:]
    return "\n".join([f"{name} {how}; the end of {log}:", *(f"    {line}" for line in lines)])
