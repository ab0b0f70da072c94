# SPDX-License-Identifier: Apache-2.0
"""One progress bar for the whole run on a terminal, and a line now and then elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from .extras import needed
from .record import Evaluation, Event, Record, Summary

_LINE_EVERY = 10.0  # seconds
_BAR = "{desc} {percentage:3.0f}%|{bar:12}| {n_fmt}/{total_fmt} [{elapsed}<{postfix}]"
_NO_BAR = "{desc} {n_fmt} [{elapsed}, {postfix}]"  # of a run without an end
_AROUND = 58  # columns of the bar before the postfix


class Progress:
    """Shows each record. On a terminal tqdm is needed: ConfigError where it is not installed.

    Args:
        mode: the method's name.
        end: the version at which the run is done, if there is one.
        out: where to; by default stderr.
        clock: seconds.
    """

    def __init__(
        self,
        mode: str,
        end: int | None,
        out: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._mode, self._end, self._clock = mode, end, clock
        self._out = out or sys.stderr
        self._due = clock()
        self._loss: float | None = None
        self._last: Record | None = None
        self._evaluated = ""
        self._bar: Any = None
        if self._out.isatty():
            tqdm = needed("tqdm", "progress", "progress").tqdm
            form = _BAR if end else _NO_BAR
            self._bar = tqdm(total=end, desc=mode, file=self._out, bar_format=form, dynamic_ncols=True)

    def record(self, record: Record, summary: Summary) -> None:
        self._loss = self._loss if record.loss is None else record.loss
        self._last = record
        if self._bar is not None:
            self._bar.n = min(record.version, self._end or record.version)
            self._bar.set_postfix_str(self._text(record, shutil.get_terminal_size().columns - _AROUND))
        elif self._clock() >= self._due:
            self._line(record)

    def _line(self, record: Record) -> None:
        self._due = self._clock() + _LINE_EVERY
        end = f"/{self._end:,}" if self._end else ""
        self._out.write(f"{self._mode} {record.version:,}{end}  {self._text(record)}\n")
        self._out.flush()

    def _text(self, record: Record, columns: int = 1000) -> str:
        """The most important first, as many as fit."""
        text = f"{clock_time(record.eta)} left" if record.eta is not None else clock_time(record.seconds)
        for part in self._parts(record):
            if len(text) + 2 + len(part) > columns:
                break
            text += f", {part}"
        return text

    def _parts(self, record: Record) -> list[str]:
        rate = f"{record.samples_per_second:,.0f} samples/s"
        found = [rate if record.samples else f"{record.steps_per_second:,.1f} steps/s"]
        if self._loss is not None:
            found.append(f"loss {self._loss:.3f}")
        if self._evaluated:
            found.append(self._evaluated)
        if record.staleness is not None and record.bytes_up:
            found.append(f"staleness {record.staleness:.1f}")
        for way, sent, ratio in (
            ("up", record.bytes_up, record.compression_up),
            ("down", record.bytes_down, record.compression_down),
        ):
            if ratio is not None:
                found.append(f"{way} {size(sent)} (1/{ratio:.0f})" if ratio >= 1.5 else f"{way} {size(sent)}")
        if record.waiting is not None and record.bytes_up:
            found.append(f"waiting {record.waiting:.0%}")
        if record.bytes_up:
            found.append(f"{record.workers} worker{'' if record.workers == 1 else 's'}")
        return found

    def evaluation(self, found: Evaluation) -> None:
        self._evaluated = ", ".join(f"{name} {value:.4g}" for name, value in found.values.items())
        if self._bar is None and self._evaluated:
            self._out.write(f"{self._mode} {found.version:,}  {self._evaluated}\n")
            self._out.flush()

    def event(self, event: Event) -> None:
        if event.event in ("died", "failed", "left"):
            text = f"worker {event.rank} {event.event} at version {event.version:,}: {event.reason}"
            if self._bar is not None:
                self._bar.write(text, file=self._out)
            else:
                self._out.write(f"{self._mode} {text}\n")

    def close(self, summary: Summary) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._last is not None:
            self._line(self._last)


def clock_time(seconds: float) -> str:
    """h:mm:ss, or m:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def size(count: float) -> str:
    """Bytes in the unit that suits them."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 999.5:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 99.95 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
