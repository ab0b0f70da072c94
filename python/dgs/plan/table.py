# SPDX-License-Identifier: Apache-2.0
"""A plan in words: a table of the rows, and sentences that say what to do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ..units import bits
from .advice import Plan
from .rows import Row

_COLUMNS = (
    "", "MB up", "MB down", "as", "compute", "select", "pack", "up", "server", "down", "latency", "waiting", "step",
    "/s", "gain", "limited by",
)  # fmt: skip


def text(plan: Plan, batch: int | None) -> str:
    """The table and the advice. `batch`: samples of a gradient; None counts gradients."""
    return f"{heading(plan)}\n\n{table(plan, batch)}\n\n{advice(plan, batch)}"


def heading(plan: Plan) -> str:
    """What the table is about."""
    case, link = plan.case, plan.case.link
    served = "" if link.server is None else f", the server's {bits(link.server)}"
    return (
        f"{case.layout.numel:,} parameters, {case.workers} workers, {1e3 * case.step_time:g} ms a gradient, links of "
        f"{bits(link.bandwidth)} of payload{served}, {1e3 * link.latency:g} ms one way; costs {case.costs.source}"
    )


def table(plan: Plan, batch: int | None) -> str:
    """A line for each row; times in milliseconds of one worker's step."""
    unit = "gradients" if batch is None else "samples"
    columns = [f"{unit}{name}" if name == "/s" else name for name in _COLUMNS]
    cells = [columns] + [_cells(row, plan, batch or 1) for row in plan.rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    left = {0, len(columns) - 1}

    def padded(line: list[str]) -> str:
        parts = [line[i].ljust(w) if i in left else line[i].rjust(w) for i, w in enumerate(widths)]
        return "  ".join(parts).rstrip()

    return "\n".join(map(padded, cells))


def _cells(row: Row, plan: Plan, batch: int) -> list[str]:
    times = (
        row.compute,
        row.select,
        row.pack,
        row.up,
        row.server,
        row.down,
        row.latency,
        row.waiting,
        row.step,
    )
    mark = "* " if row is plan.recommended else "  "
    return [
        mark + row.name, *(f"{size / 1e6:.3g}" for size in (row.bytes_up, row.bytes_down)),
        row.codec_down,
        *(f"{1e3 * seconds:.1f}" for seconds in times), f"{batch * row.rate:,.4g}",
        f"{row.rate / plan.dense.rate:.2f}x", row.limited_by,
    ]  # fmt: skip


def advice(plan: Plan, batch: int | None) -> str:
    """What to do, and what the figures do not say."""
    lines = [*_verdict(plan), *_boundary(plan)]
    if plan.case.workers > 1:
        lines.append(
            "A rate is not progress: asynchronous workers train on weights that others have changed meanwhile, and "
            f"with {plan.case.workers} of them a sample is worth less than in all-reduce (docs/convergence.md)."
        )
    if plan.case.straggler == 1 and plan.case.jitter == 0:
        lines.append(
            "All gradients were taken to last the same; --jitter and --straggler say what waiting costs."
        )
    return "\n".join(lines)


def _verdict(plan: Plan) -> list[str]:
    best, dense = plan.best, plan.dense
    if plan.case.workers == 1:
        return [
            "Not worth it: one worker has nobody to exchange with. Train with torch.optim.SGD (mode sgd)."
        ]
    if plan.worth == "no":
        return [
            f"Not worth it: {dense.name} is as fast or faster ({1 / plan.gain:.2f} times {best.name}, the best "
            "asynchronous row). Use DistributedDataParallel."
        ]
    if plan.worth == "hardly":
        return [
            f"Hardly worth it: {best.name} is {100 * (plan.gain - 1):.0f} % faster than {dense.name}, which has no "
            "staleness. Consider DistributedDataParallel first."
        ]
    return [f"Recommended: {best.name} ({settings(best)}): {plan.gain:.1f} times the rate of {dense.name}."]


def settings(row: Row) -> str:
    """The row as keywords of GradientSGD."""
    if row.method == "asgd":
        return f"mode={row.method!r}, codec={row.codec!r}"
    return f"mode={row.method!r}, density={row.density:g}, codec={row.codec!r}"


def _boundary(plan: Plan) -> Sequence[str]:
    if plan.case.workers == 1:
        return ()
    names = f"{plan.dense.name} against {plan.best.name}"
    if plan.break_even == 0:
        return (f"Break-even: none; at any bandwidth dense is the better choice ({names}).",)
    if math.isinf(plan.break_even):
        why = "its messages wait for one another, and its workers for the slowest"
        return (f"Break-even: none; dense is slower at any bandwidth, for {why} ({names}).",)
    return (f"Break-even: above {bits(plan.break_even)} of payload dense is the better choice ({names}).",)


def record(plan: Plan, batch: int | None) -> dict[str, Any]:
    """The plan as JSON takes it; a break-even that is at no bandwidth is null."""
    case = plan.case
    return {
        "parameters": case.layout.numel,
        "workers": case.workers,
        "step_time": case.step_time,
        "batch_size": batch,
        "link": asdict(case.link),
        "costs": asdict(case.costs),
        "rows": [asdict(row) | {"step": row.step, "name": row.name} for row in plan.rows],
        "best": plan.best.name,
        "dense": plan.dense.name,
        "recommended": plan.recommended.name,
        "gain": plan.gain,
        "worth": plan.worth,
        "break_even": None if math.isinf(plan.break_even) else plan.break_even,
    }
