# SPDX-License-Identifier: Apache-2.0
"""One progress line per process: redrawn in place on a terminal, printed now and then elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from typing import TextIO

from demo_processes import Event

_REDRAW = 0.1  # seconds
_PRINT = 5.0
_BAR = 24  # characters


class Board:
    """Draws the processes of one run.

    Args:
        title: a line above them.
        names: the processes, in the order of their lines.
        end: the version at which the run is done.
    """

    def __init__(self, title: str, names: Sequence[str], end: int, out: TextIO = sys.stdout) -> None:
        self._out, self._live = out, out.isatty()
        self._lines = {name: _Line(name.ljust(max(map(len, names))), end) for name in names}
        self._due = time.monotonic() + (0 if self._live else _PRINT)
        self._drawn = 0
        out.write(f"\n{title}\n")

    def see(self, name: str, event: Event) -> None:
        """Takes what a process told."""
        self._lines[name].see(event)
        if time.monotonic() >= self._due:
            self._draw()

    def close(self) -> None:
        """Draws the last state."""
        self._draw()

    def _draw(self) -> None:
        width = shutil.get_terminal_size().columns - 1 if self._live else 200
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        clear = "\x1b[2K" if self._live else ""
        self._out.write(up + "".join(f"{clear}  {str(line)[: width - 2]}\n" for line in self._lines.values()))
        self._out.flush()
        self._drawn = len(self._lines) if self._live else 0
        self._due = time.monotonic() + (_REDRAW if self._live else _PRINT)


class _Line:
    def __init__(self, name: str, end: int) -> None:
        self._name, self._end = name, end
        self._first: Event | None = None
        self._train: Event | None = None
        self._test: Event | None = None
        self._loss: float | None = None
        self._version = 0

    def see(self, event: Event) -> None:
        self._version = max(self._version, event.get("version", 0))
        if event["kind"] == "test":
            self._test = event
        elif event["kind"] == "train":
            self._first = self._first or event
            self._train = event
            self._loss = event["loss"] or self._loss

    def __str__(self) -> str:
        parts = [self._name]
        if self._test is not None or self._train is None:
            done = round(_BAR * self._version / self._end)
            parts.append(f"{'█' * done}{'░' * (_BAR - done)} {self._version:4d}/{self._end}")
        if self._train is not None:
            parts += self._training(self._train)
        if self._test is not None:
            parts.append(f"test loss {self._test['loss']:.4f}")
            parts.append(f"accuracy {self._test['accuracy']:.1%}")
        if self._train is None and self._test is None:
            parts.append("starting")
        return "  ".join(parts)

    def _training(self, now: Event) -> list[str]:
        assert self._first is not None
        seconds = now["time"] - self._first["time"]
        rate = f"{now['images'] / seconds:5.0f}" if seconds else "    -"
        parts = [f"{rate} images/s", f"loss {self._loss:.4f}" if self._loss is not None else "loss -     "]
        if now["up"]:
            steps = now["steps"]
            up, down = now["up"] / steps / 1000, now["down"] / steps / 1000
            parts += [
                f"{steps:4d} steps",
                f"kB/step {up:,.1f} up {down:,.1f} down",
                f"staleness {now['staleness']}",
            ]
        return parts
