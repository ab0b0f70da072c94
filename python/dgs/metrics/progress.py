# SPDX-License-Identifier: Apache-2.0
"""One progress bar for the whole run on a terminal, and a line now and then elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, TextIO

from .extras import needed
from .record import Evaluation, Event, Record, Summary
from .text import clock_time, measured, size

_LINE_EVERY = 10.0  # seconds
_BAR = "{desc} {percentage:3.0f}%|{bar:10}| {n_fmt}/{total_fmt} "
_NO_BAR = "{desc} {n_fmt} "  # of a run without an end
_INDENT, _COLUMNS = "  ", 80
_PROBLEMS = ("died", "failed", "left")


class Progress:
    """Shows each record. On a terminal tqdm is needed: ConfigError where it is not installed.

    Under the bar are a line of what is exchanged and one of the last evaluation, so that 80 columns hold all of it.
    What the root logger writes to the terminal meanwhile goes above them.

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
        self._last: Record | None = None
        self._reached = 0.0  # seconds, when its version was first seen
        self._finishing = False  # that only goodbyes and the last evaluation are still to come has been said
        self._evaluated: list[str] = []
        self._tqdm: Any = None
        self._bars: list[Any] = []  # the bar, then the lines under it
        self._form = _BAR if end else _NO_BAR
        self._stack = ExitStack()
        if self._out.isatty():
            self._tqdm = needed("tqdm", "progress", "progress").tqdm
            logs = needed("tqdm.contrib.logging", "progress", "progress").logging_redirect_tqdm
            self._stack.enter_context(logs())
            self._bars = [self._bar(desc=mode, total=end)]

    def _bar(self, **given: Any) -> Any:
        given |= {"file": self._out, "position": len(self._bars)}
        given |= {"dynamic_ncols": True} if _columns(self._out) else {"ncols": _COLUMNS}
        return self._tqdm(bar_format=self._form if not self._bars else "", **given)

    def record(self, record: Record, summary: Summary) -> None:
        if self._last is None or record.version != self._last.version:
            self._reached = record.seconds
        record = self._last = _with_what_was_told(record, self._last)
        finishing = self._end is not None and record.version >= self._end
        left = [] if record.eta is None or finishing else [f"{clock_time(record.eta)} left"]
        training = ["finishing", *_loss(record)] if finishing else _training(record)
        exchanging = _sent(record, summary) if finishing else _exchanging(record, summary)
        now = clock_time(record.seconds)
        if self._bars:
            self._draw(record, [*(left or [now]), *training], exchanging)
        elif record.version and self._clock() >= self._due and not self._finishing:
            self._due, self._finishing = self._clock() + _LINE_EVERY, finishing
            self._write(record, [now, *left, *training], exchanging)

    def _draw(self, record: Record, training: Sequence[str], exchanging: Sequence[str]) -> None:
        bar = self._bars[0]
        columns = _columns(self._out) or _COLUMNS
        bar.n = min(record.version, self._end or record.version)
        bar.bar_format = self._form
        around = len(str(bar)) + 1
        self._show(0, self._form + _literal(_fitting(training, columns - around)))
        under = [part for part in (exchanging, self._evaluated) if part]
        for line, parts in enumerate(under, start=1):
            self._show(line, _INDENT + _literal(_fitting(parts, columns - len(_INDENT) - 1)))

    def _show(self, line: int, form: str) -> None:
        if line == len(self._bars):
            self._bars.append(self._bar())
        self._bars[line].bar_format = form
        self._bars[line].refresh()

    def _write(self, record: Record, training: Sequence[str], exchanging: Sequence[str]) -> None:
        parts = [*training, *self._evaluated, *exchanging]
        end = f"/{self._end:,}" if self._end else ""
        self._out.write(f"{self._mode} {record.version:,}{end}  {', '.join(parts)}\n")
        self._out.flush()

    def evaluation(self, found: Evaluation) -> None:
        self._evaluated = [f"{name} {measured(name, value)}" for name, value in found.values.items()]

    def event(self, event: Event) -> None:
        if event.event in _PROBLEMS:
            text = f"worker {event.rank} {event.event} at version {event.version:,}: {event.reason}"
            if self._bars:
                self._tqdm.write(text, file=self._out)
            else:
                self._out.write(f"{self._mode} {text}\n")
                self._out.flush()

    def close(self, summary: Summary) -> None:
        """Shows the run as a whole."""
        if self._last is not None:
            whole = _whole(replace(self._last, seconds=self._reached), summary)
            parts = [f"in {clock_time(whole.seconds)}", *_training(whole)]
            if self._bars:
                self._draw(whole, parts, _exchanging(whole, summary))
            else:
                self._write(whole, parts, _exchanging(whole, summary))
        for bar in self._bars:
            bar.close()
        self._stack.close()


def _columns(out: TextIO) -> int:
    """Of the terminal; 0 where it does not say."""
    try:
        return os.get_terminal_size(out.fileno()).columns
    except OSError:
        return 0


def _with_what_was_told(record: Record, before: Record | None) -> Record:
    """The record; where no worker has told its numbers since the one before, with those of that one."""
    if before is None:
        return record
    loss, waiting = (a if a is not None else b for a, b in zip(_told(record), _told(before), strict=True))
    return replace(record, loss=loss, waiting=waiting)


def _told(record: Record) -> tuple[float | None, float | None]:
    return record.loss, record.waiting


def _whole(last: Record, summary: Summary) -> Record:
    """The last record, as of its last push, with rates and means of the whole run, and all workers that ever came."""
    seconds = max(last.seconds, 1e-9)
    pushes = sum(summary.staleness.values())
    ages = sum(age * n for age, n in summary.staleness.items())
    waits = [w.waiting for w in summary.workers if w.waiting is not None]
    return replace(
        last,
        samples_per_second=last.samples / seconds,
        steps_per_second=last.version / seconds,
        staleness=ages / pushes if pushes else None,
        waiting=sum(waits) / len(waits) if waits else None,
        workers=len(summary.workers),
    )


def _training(record: Record) -> list[str]:
    rate = f"{record.samples_per_second:,.0f} samples/s"
    return [rate if record.samples else f"{record.steps_per_second:,.1f} steps/s", *_loss(record)]


def _loss(record: Record) -> list[str]:
    return [] if record.loss is None else [f"loss {record.loss:.3f}"]


def _exchanging(record: Record, summary: Summary) -> list[str]:
    """What goes between workers and server; nothing in a run of one process."""
    if not record.bytes_up:
        return []
    found = [] if record.staleness is None else [f"staleness {record.staleness:.1f}"]
    found += _sent(record, summary)
    if record.waiting is not None:
        found.append(f"waiting {record.waiting:.0%}")
    return [*found, f"{record.workers} worker{'' if record.workers == 1 else 's'}"]


def _sent(record: Record, summary: Summary) -> list[str]:
    """Pushes and what came back, as in the compression: without the weights that a worker begins with."""
    found = []
    for way, sent, ratio in (
        ("up", sum(w.pushed for w in summary.workers), record.compression_up),
        ("down", sum(w.pulled for w in summary.workers), record.compression_down),
    ):
        compressed = ratio is not None and ratio >= 1.5
        found.append(f"{way} {size(sent)} (1/{ratio:.0f})" if compressed else f"{way} {size(sent)}")
    return found if record.bytes_up else []


def _literal(text: str) -> str:
    """As a part of tqdm's bar_format."""
    return text.replace("{", "{{").replace("}", "}}")


def _fitting(parts: Sequence[str], columns: int) -> str:
    """The first of them, as many as fit."""
    text = ""
    for part in parts:
        longer = f"{text}, {part}" if text else part
        if len(longer) > columns:
            break
        text = longer
    return text
