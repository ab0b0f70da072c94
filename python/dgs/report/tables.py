# SPDX-License-Identifier: Apache-2.0
"""What a page's tables hold, as text, and how a table becomes HTML or Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from html import escape
from typing import Any

from ..config import Settings
from ..metrics.text import clock_time, measured, size
from .read import RunData

NONE = "-"
_HOUSEKEEPING = (
    "rank",
    "master",
    "port",
    "run_dir",
    "progress",
    "metrics_every",
)  # settings that change no result


@dataclass(frozen=True, slots=True)
class Table:
    """Cells as text. A row or a column that is one run's bears its colour.

    Args:
        head: of the columns.
        rows: cells.
        words: columns of text, which begin at the left; numbers end at the right.
        runs: the run of each row, which its first cell is marked with.
        columns: the run of each column, where its head is.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: frozenset[int] = frozenset({0})
    runs: Sequence[int] = ()
    columns: Mapping[int, int] = field(default_factory=dict)

    def html(self) -> str:
        """Empty without rows."""
        if not self.rows:
            return ""
        head = "".join(self._cell("th", i, cell, self.columns.get(i)) for i, cell in enumerate(self.head))
        body = ""
        for number, row in enumerate(self.rows):
            run = self.runs[number] if self.runs else None
            cells = (self._cell("td", i, cell, None if i else run) for i, cell in enumerate(row))
            body += f"<tr>{''.join(cells)}</tr>"
        return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'

    def _cell(self, tag: str, column: int, text: str, run: int | None) -> str:
        kind = ' class="word"' if column in self.words else ""
        return f"<{tag}{kind}>{'' if run is None else key(run)}{escape(text)}</{tag}>"

    def markdown(self) -> str:
        """Aligned, to be read as it is."""
        lines = [list(self.head), *map(list, self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        lines = [[self._aligned(i, c, widths[i]) for i, c in enumerate(line)] for line in lines]
        lines.insert(1, ["-" * w if i in self.words else "-" * (w - 1) + ":" for i, w in enumerate(widths)])
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def _aligned(self, column: int, text: str, width: int) -> str:
        return text.ljust(width) if column in self.words else text.rjust(width)


def key(run: int) -> str:
    """The mark of a run: its colour and its dashes."""
    return f'<svg class="key" viewBox="0 0 26 10"><line class="run{run % 6}" x1="1" x2="25" y1="5" y2="5"/></svg>'


def overview(runs: Sequence[RunData]) -> Table:
    """A row for each run: what it found, how fast, and what it sent."""
    modes = any(run.mode not in run.name for run in runs)
    names = list(dict.fromkeys(name for run in runs for name in run.names))
    sends = any(run.per_exchange("pushed") for run in runs)
    head = ["run", *(["mode"] if modes else []), *names, "samples/s", "time"]
    head += ["bytes/step up / down", "compression up / down", "waiting"] if sends else []
    rows = [_overview_row(run, modes, names, sends) for run in runs]
    if any(run.state != "finished" for run in runs):
        head.append("state")
        rows = [[*row, run.state] for row, run in zip(rows, runs, strict=True)]
    words = frozenset(i for i, name in enumerate(head) if name in ("run", "mode", "state"))
    return Table(head, rows, words, range(len(runs)))


def _overview_row(run: RunData, modes: bool, names: Sequence[str], sends: bool) -> list[str]:
    seconds, found = run.seconds, [(name, run.found(name)) for name in names]
    row = [run.name, *([run.mode] if modes else [])]
    row += [NONE if value is None else measured(name, value) for name, value in found]
    row += [f"{run.last['samples'] / seconds:,.0f}" if seconds and run.last["samples"] else NONE]
    row.append(clock_time(seconds))
    if not sends:
        return row
    sent = [run.per_exchange(way) for way in ("pushed", "pulled")]
    row.append(" / ".join(f"{s:,.0f}" for s in sent if s) if all(sent) else "nothing")
    row.append(" / ".join(f"{run.dense_bytes / s:.1f}×" for s in sent if s) if all(sent) else NONE)
    waits = [w["waiting"] for w in run.workers if w["waiting"] is not None]
    row.append(f"{sum(waits) / len(waits):.0%}" if waits and all(sent) else NONE)
    return row


def workers(runs: Sequence[RunData]) -> Table:
    """A row for each worker of a run with a server."""
    head = [
        "worker",
        "outcome",
        "pushes",
        "staleness",
        "samples",
        "samples/s",
        "loss",
        "sent up",
        "sent down",
    ]
    head += ["waiting", "ms at the server", "residual (pushes)"]
    found = [(n, run, w) for n, run in enumerate(runs) for w in run.workers if w["bytes_up"]]
    rows = [
        [
            f"{run.name} · {w['rank']}" if len(runs) > 1 else str(w["rank"]),
            w["outcome"],
            f"{w['exchanges']:,}",
            f"{w['mean_staleness']:.1f}",
            f"{w['samples']:,}" if w["samples"] else NONE,
            f"{w['samples'] / seconds:,.0f}" if w["samples"] and (seconds := w.get("seconds")) else NONE,
            NONE if w["loss"] is None else f"{w['loss']:.4g}",
            size(w["bytes_up"]),
            size(w["bytes_down"]),
            NONE if w["waiting"] is None else f"{w['waiting']:.0%}",
            f"{1000 * w['exchange_seconds']:.1f}",
            f"{w['behind']:.1f}" if w["behind"] else NONE,
        ]
        for _, run, w in found
    ]
    return Table(head, rows, frozenset({0, 1}), [number for number, _, _ in found])


def events(runs: Sequence[RunData]) -> Table:
    """Who came and went, of runs with a server."""
    found = [(n, run, e) for n, run in enumerate(runs) for e in run.events if e["rank"]]
    rows = [
        [
            *([run.name] if len(runs) > 1 else []),
            clock_time(e["seconds"]),
            f"{e['version']:,}",
            f"worker {e['rank']}",
            e["event"],
            e["reason"][:120],
        ]
        for _, run, e in found
    ]
    head = [*(["run"] if len(runs) > 1 else []), "time", "version", "who", "what", "why"]
    words = frozenset(i for i, name in enumerate(head) if name not in ("time", "version"))
    return Table(head, rows, words, [number for number, _, _ in found] if len(runs) > 1 else ())


def settings(runs: Sequence[RunData]) -> tuple[Table, Table]:
    """What was chosen, for a run or for one among them; and everything that is known of them."""
    everything: list[dict[str, Any]] = [
        {
            part: value
            for group in ("settings", "arguments", "model", "versions", "machine")
            for part, value in r.about[group].items()
        }
        for r in runs
    ]
    names = [
        n
        for n in dict.fromkeys(n for d in everything for n in d)
        if any(d.get(n) is not None for d in everything)
    ]
    usual = {f.name: f.default for f in fields(Settings) if f.name != "mode"}
    given = {"mode"}.union(*(r.about["arguments"] for r in runs))
    chosen = [n for n in names if n in given or (n not in _HOUSEKEEPING and _unusual(n, everything, usual))]
    return _settings(runs, everything, chosen), _settings(runs, everything, names)


def _unusual(name: str, known: Sequence[Mapping[str, Any]], usual: Mapping[str, Any]) -> bool:
    """Whether any run has another value than the library's default, or where there is none than the first run."""
    expected = usual.get(name, known[0].get(name))
    return any(values.get(name) != expected for values in known)


def _settings(runs: Sequence[RunData], known: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Table:
    rows = [[n, *(NONE if d.get(n) is None else str(d[n]) for d in known)] for n in names]
    columns = {i + 1: i for i in range(len(runs))} if len(runs) > 1 else {}
    head = ["setting", *(run.name for run in runs)] if len(runs) > 1 else ["setting", "value"]
    return Table(head, rows, frozenset(range(len(head))), (), columns)
