# SPDX-License-Identifier: Apache-2.0
"""What several processes say, line by line, each line behind the name of who said it."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping
from typing import BinaryIO

_BAR_EVERY = 5.0  # seconds between two states of a bar that draws over itself
_LONGEST = 1 << 16  # bytes that are held for the rest of their line
_UP = re.compile(rb"\x1b\[\d*A")
_MOTION = re.compile(rb"\x1b\[[0-9;]*[A-HJKSTf]")  # of the cursor, which has other lines above it here

_BOLD, _SERVER = "1", "36"
_WORKERS = ("32", "33", "34", "35", "92", "93", "94", "95")


class Lines:
    """One stream of one process.

    A line that was drawn over, as progress bars are by carriage returns, is shown in its last state, and meanwhile
    now and then; so are several lines that are drawn over by moving the cursor up.

    Args:
        prefix: before each line.
        out: where to.
        clock: seconds.
    """

    def __init__(self, prefix: bytes, out: BinaryIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._prefix, self._out, self._clock = prefix, out, clock
        self._held = b""
        self._unseen = b""  # the last state of bars that was not shown
        self._due = 0.0

    def feed(self, data: bytes) -> None:
        """Takes what came, and shows what is complete."""
        *lines, self._held = (self._held + data).split(b"\n")
        for line in lines:
            if _UP.search(line):
                self._unseen = line
                self._now_and_then(line)
            else:
                self._show(line)
        drawn, returned, now = self._held.rpartition(b"\r")
        if returned and now:  # else it may be the end of a line, \r\n
            self._held = b"\x1b[A\r" + now if _UP.search(drawn) else now  # so that its line is known for one
            self._now_and_then(drawn)
        if len(self._held) > _LONGEST:
            self.end()
        self._out.flush()

    def end(self) -> None:
        """Shows what is held, though its line has no end."""
        for line in (self._unseen, self._held):
            if line.strip():
                self._show(line)
        self._held = b""
        self._out.flush()

    def _now_and_then(self, line: bytes) -> None:
        if line.strip() and self._clock() >= self._due:
            self._due = self._clock() + _BAR_EVERY
            self._show(line)

    def _show(self, line: bytes) -> None:
        states = [state for state in line.split(b"\r") if state.strip()]
        text = _MOTION.sub(b"", states[-1]) if states else b""
        self._unseen = b""
        self._out.write(self._prefix + text + b"\n")


class Screen:
    """The launcher's stdout and stderr. Names are in colour on a terminal, unless NO_COLOR is set.

    Args:
        out, err: stdout and stderr, binary.
        workers: how many, for the width of a prefix.
        environ: the environment.
    """

    def __init__(
        self, out: BinaryIO, err: BinaryIO, workers: int, environ: Mapping[str, str] | None = None
    ) -> None:
        self._out, self._err = out, err
        self._width = len(f"[worker {workers}]")
        environ = os.environ if environ is None else environ
        self._plain = bool(environ.get("NO_COLOR")) or environ.get("TERM") == "dumb"
        self._own = self._lines("launch", _BOLD, err)

    def streams(self, name: str, rank: int) -> tuple[Lines, Lines]:
        """Those of the process `name`, for its stdout and stderr."""
        colour = _WORKERS[(rank - 1) % len(_WORKERS)] if rank else _SERVER
        return self._lines(name, colour, self._out), self._lines(name, colour, self._err)

    def say(self, text: str) -> None:
        """A line of the launcher's own."""
        self._own.feed(f"{text}\n".encode())

    def _lines(self, name: str, colour: str, out: BinaryIO) -> Lines:
        prefix = f"[{name}]".ljust(self._width) + " "
        if out.isatty() and not self._plain:
            prefix = f"\x1b[{colour}m{prefix}\x1b[0m"
        return Lines(prefix.encode(), out)
