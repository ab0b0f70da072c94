# SPDX-License-Identifier: Apache-2.0
"""The page: figures, tables and settings of runs side by side. No script, and nothing from the network."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from . import tables
from .axes import Axis, byte_count, per_cent
from .read import RunData
from .style import STYLE
from .svg import bars, lines

_TIME = Axis("time", time=True)
_VERSIONS = Axis("steps of all workers together")
_BYTES = Axis("bytes both ways", byte_count, log=True)
_OLDEST = 24  # versions; what is older is drawn with it


def page(runs: Sequence[RunData]) -> str:
    """The whole page as HTML."""
    parts = [
        ("Evaluations", _evaluations(runs)),
        ("Training loss", _training(runs)),
        ("The exchange", _exchange(runs)),
        ("Workers", tables.workers(runs).html()),
        ("Who came and went", tables.events(runs).html()),
        ("Settings", _settings(runs)),
    ]
    body = "".join(f"<h2>{title}</h2>{content}" for title, content in parts if content)
    title = escape(" · ".join(run.name for run in runs))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style></head><body>{_head(runs)}{body}</body></html>\n"
    )


def _head(runs: Sequence[RunData]) -> str:
    about = runs[0].about
    machine, model, versions = about["machine"], about["model"], about["versions"]
    facts = [
        about["began"].replace("T", " ")[:16],
        f"{model['parameters']:,} parameters in {model['tensors']} tensors",
        machine["gpu"] or f"{machine['cores']} cores, {machine['processor']}",
        f"torch {versions['torch']}",
    ]
    found = tables.overview(runs)
    if len(runs) == 1:
        title, names = escape(runs[0].name), found.head[1:]
        state = f"<p>{escape(' · '.join([*facts, runs[0].state]))}</p>"
        tiles = zip(names, found.rows[0][1:], strict=True)
        made = "".join(
            f'<div class="tile"><b>{escape(v)}</b><span>{escape(n)}</span></div>' for n, v in tiles
        )
        return f'<h1>{title}</h1>{state}<div class="tiles">{made}</div>'
    legend = "".join(f"<span>{tables.key(i)}{escape(run.name)}</span>" for i, run in enumerate(runs))
    return (
        f"<h1>{len(runs)} runs</h1><p>{escape(' · '.join(facts))}</p>"
        f'<div class="legend">{legend}</div>{found.html()}'
    )


def _evaluations(runs: Sequence[RunData]) -> str:
    found = ""
    for name in dict.fromkeys(name for run in runs for name in run.names):
        accuracy = "accuracy" in name.lower()
        y = Axis(name, per_cent, zero=False) if accuracy else Axis(name, wide=20)
        found += lines([r.measured("seconds", name) for r in runs], _TIME, y)
        found += lines([r.measured("version", name) for r in runs], _VERSIONS, y)
        found += lines([r.measured("bytes", name) for r in runs], _BYTES, y)
    return _figures(found)


def _training(runs: Sequence[RunData]) -> str:
    y = Axis("training loss", wide=20)
    return _figures(
        lines([r.curve("seconds", "loss") for r in runs], _TIME, y)
        + lines([r.curve("version", "loss") for r in runs], _VERSIONS, y)
        + lines([r.curve("bytes", "loss") for r in runs], _BYTES, y)
    )


def _exchange(runs: Sequence[RunData]) -> str:
    sending = [r.last["bytes_up"] > 0 for r in runs]
    found = _staleness(runs, sending)
    for field, y in (
        ("bytes_up", Axis("bytes up", byte_count)),
        ("bytes_down", Axis("bytes down", byte_count)),
        ("waiting", Axis("part of the time waiting for the network", per_cent)),
        ("samples_per_second", Axis("samples per second")),
        ("workers", Axis("workers there", whole=True)),
    ):
        shown = sending if field != "samples_per_second" else [r.last["samples"] > 0 for r in runs]
        curves = [r.curve("seconds", field) if s else [] for r, s in zip(runs, shown, strict=True)]
        found += lines(curves, _TIME, y)
    return _figures(found)


def _staleness(runs: Sequence[RunData], sending: Sequence[bool]) -> str:
    ages = [
        {int(k): v for k, v in r.summary.get("staleness", {}).items()} if s else {}
        for r, s in zip(runs, sending, strict=True)
    ]
    top = min(_OLDEST, max((max(a) for a in ages if a), default=0))
    shares = [[_share(a, age, top) for age in range(top + 1)] for a in ages]
    names = [str(age) if age < _OLDEST else f"{age}+" for age in range(top + 1)]
    shown = [name if top < 12 or age % 4 == 0 else "" for age, name in enumerate(names)]
    return bars(shares, shown, "staleness (versions)", Axis("pushes by staleness", per_cent))


def _share(ages: dict[int, int], age: int, top: int) -> float:
    count = sum(n for a, n in ages.items() if a == age or (age == top and a > top))
    return count / max(1, sum(ages.values()))


def _settings(runs: Sequence[RunData]) -> str:
    chosen, everything = tables.settings(runs)
    rest = f"<details><summary>All settings, versions and machine</summary>{everything.html()}</details>"
    return chosen.html() + rest


def _figures(figures: str) -> str:
    return f'<div class="figures">{figures}</div>' if figures else ""
