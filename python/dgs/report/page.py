# SPDX-License-Identifier: Apache-2.0
"""The page: figures, tables and settings of runs side by side. No script, and nothing from the network."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from ..metrics.progress import clock_time, size
from .read import RunData
from .svg import bars, lines

_STYLE = """
:root{color-scheme:light dark;--paper:#fff;--ink:#1d2430;--faint:#667085;--line:#e4e7ec;--card:#f8f9fb;
--c0:#0b6e4f;--c1:#c8553d;--c2:#3d5a98;--c3:#8f5fb5;--c4:#a07800;--c5:#2a8ca0}
@media(prefers-color-scheme:dark){:root{--paper:#12161c;--ink:#e6e9ef;--faint:#98a2b3;--line:#2b323d;--card:#1a2029;
--c0:#4cc38a;--c1:#f08a70;--c2:#86a8f0;--c3:#c39be8;--c4:#e0b84a;--c5:#62c6da}}
body{margin:0 auto;max-width:1180px;padding:24px 20px 60px;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,"DejaVu Sans",sans-serif}
h1{font-size:24px;margin:0 0 12px}h2{font-size:17px;margin:32px 0 10px}
.grid2{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,320px),1fr));gap:14px}
figure{margin:0;padding:12px 12px 8px;background:var(--card);border:1px solid var(--line);border-radius:8px}
figcaption{font-size:13px;font-weight:600}svg{width:100%;height:auto;display:block}
svg text{font-size:11px;fill:var(--faint)}svg .grid{stroke:var(--line)}
polyline{fill:none;stroke-width:1.8;stroke-linejoin:round}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:13px;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:5px 12px 5px 0;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
th:first-child,td:first-child{text-align:left}th{color:var(--faint);font-weight:600}
.key{display:inline-block;width:11px;height:11px;border-radius:3px;margin-right:7px}
p{color:var(--faint);margin:0 0 8px}
"""


def _colours() -> str:
    rules = (
        f"polyline.run{i}{{stroke:var(--c{i})}}rect.run{i}{{fill:var(--c{i})}}.key.run{i}{{background:var(--c{i})}}"
        for i in range(6)
    )
    return "".join(rules)


def page(runs: Sequence[RunData]) -> str:
    """The whole page as HTML."""
    parts = [
        ("Runs", _overview(runs)),
        ("Evaluations", _evaluations(runs)),
        ("Training loss", _training(runs)),
        ("The exchange", _exchange(runs)),
        ("Workers", _workers(runs)),
        ("Who came and went", _events(runs)),
        ("Settings", _settings(runs)),
    ]
    body = "".join(f"<h2>{title}</h2>{content}" for title, content in parts if content)
    title = escape(", ".join(run.name for run in runs))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}{_colours()}</style></head><body><h1>{title}</h1>{body}</body></html>\n"
    )


def _overview(runs: Sequence[RunData]) -> str:
    head = [
        "run",
        "mode",
        "version",
        "time",
        "samples/s",
        "up",
        "down",
        "bytes/step up",
        "down",
        "waiting",
        "ended",
    ]
    rows = []
    for number, run in enumerate(runs):
        last = run.records[-1] if run.records else {}
        workers = run.summary.get("workers", [])
        steps = max(1, sum(w["exchanges"] for w in workers))
        seconds = last.get("seconds", 0.0)
        waits = [w["waiting"] for w in workers if w["waiting"] is not None]
        rows.append(
            [
                _named(number, run.name),
                escape(str(run.about["settings"]["mode"])),
                f"{last.get('version', 0):,}",
                clock_time(seconds),
                f"{last.get('samples', 0) / seconds:,.0f}" if seconds else "-",
                size(last.get("bytes_up", 0)),
                size(last.get("bytes_down", 0)),
                size(sum(w["pushed"] for w in workers) / steps),
                size(sum(w["pulled"] for w in workers) / steps),
                f"{sum(waits) / len(waits):.0%}" if waits else "-",
                escape(run.summary.get("ended") or "goes on"),
            ]
        )
    return _table(head, rows)


def _named(number: int, name: str) -> str:
    return f'<span class="key run{number % 6}"></span>{escape(name)}'


def _evaluations(runs: Sequence[RunData]) -> str:
    names = sorted({name for run in runs for name in run.names})
    found = ""
    for name in names:
        found += lines([r.measured("seconds", name) for r in runs], "seconds", name)
        found += lines([r.measured("version", name) for r in runs], "versions", f"{name} by steps")
        found += _by_bytes([r.measured("bytes", name) for r in runs], f"{name} by bytes, both ways")
    return _grid(found)


def _training(runs: Sequence[RunData]) -> str:
    found = lines([r.curve("seconds", "loss") for r in runs], "seconds", "training loss")
    found += lines([r.curve("version", "loss") for r in runs], "versions", "training loss by steps")
    return _grid(
        found + _by_bytes([r.curve("bytes", "loss") for r in runs], "training loss by bytes, both ways")
    )


def _by_bytes(curves: Sequence[list[tuple[float, float]]], title: str) -> str:
    return lines(curves, "bytes", title, log=True, label=size)


def _exchange(runs: Sequence[RunData]) -> str:
    sending = [r.records[-1]["bytes_up"] > 0 if r.records else False for r in runs]
    ages = [
        {int(k): v for k, v in r.summary.get("staleness", {}).items()} if s else {}
        for r, s in zip(runs, sending, strict=True)
    ]
    top = min(24, max((max(a) for a in ages if a), default=0))
    shares = [[_share(a, age, top) for age in range(top + 1)] for a in ages]
    names = [str(age) if age < 24 else "24+" for age in range(top + 1)]
    found = bars(shares, names, "versions", "staleness: part of the pushes")
    for field, title in (
        ("bytes_up", "bytes up"),
        ("bytes_down", "bytes down"),
        ("waiting", "part of the time waiting for the network"),
        ("samples_per_second", "samples per second"),
    ):
        kept = [
            r.curve("seconds", field) if s or field.startswith("samples") else []
            for r, s in zip(runs, sending, strict=True)
        ]
        found += lines(kept, "seconds", title)
    return _grid(found)


def _share(ages: dict[int, int], age: int, top: int) -> float:
    count = sum(n for a, n in ages.items() if a == age or (age == top and a > top))
    return count / max(1, sum(ages.values()))


def _workers(runs: Sequence[RunData]) -> str:
    head = [
        "worker",
        "outcome",
        "exchanges",
        "staleness",
        "samples",
        "samples/s",
        "loss",
        "up",
        "down",
        "waiting",
        "server ms",
    ]
    rows = [
        [
            _named(number, f"{run.name} · {w['rank']}"),
            escape(w["outcome"]),
            f"{w['exchanges']:,}",
            f"{w['mean_staleness']:.1f}",
            f"{w['samples']:,}",
            f"{w['samples_per_second']:,.0f}",
            "-" if w["loss"] is None else f"{w['loss']:.4g}",
            size(w["bytes_up"]),
            size(w["bytes_down"]),
            "-" if w["waiting"] is None else f"{w['waiting']:.0%}",
            f"{1000 * w['exchange_seconds']:.1f}",
        ]
        for number, run in enumerate(runs)
        for w in run.summary.get("workers", [])
    ]
    return _table(head, rows)


def _events(runs: Sequence[RunData]) -> str:
    rows = [
        [
            _named(number, run.name),
            clock_time(e["seconds"]),
            f"{e['version']:,}",
            f"worker {e['rank']} {escape(e['event'])} {escape(e['reason'][:120])}",
        ]
        for number, run in enumerate(runs)
        for e in run.events
    ]
    return _table(["run", "time", "version", "event"], rows)


def _settings(runs: Sequence[RunData]) -> str:
    """What all share is one column's value as well: a row for each setting that is set in any run."""
    described: list[dict[str, Any]] = [
        {
            **r.about["model"],
            **r.about["arguments"],
            **r.about["settings"],
            **r.about["versions"],
            **r.about["machine"],
        }
        for r in runs
    ]
    names = [
        n
        for n in dict.fromkeys(n for d in described for n in d)
        if any(d.get(n) is not None for d in described)
    ]
    head = ["setting", *(_named(i, run.name) for i, run in enumerate(runs))]
    rows = [[escape(n), *("-" if d.get(n) is None else escape(str(d[n])) for d in described)] for n in names]
    return _table(head, rows)


def _grid(figures: str) -> str:
    return f'<div class="grid2">{figures}</div>' if figures else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells are HTML."""
    if not rows:
        return ""
    top = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{top}</tr>{body}</table></div>'
