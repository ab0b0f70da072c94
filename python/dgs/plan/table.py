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

_NAME = max(len("dense all-reduce, bfloat16"), len("ms of a step")) + 2


def text(plan: Plan, batch: int | None) -> str:
    """The tables and the advice. `batch`: samples of a gradient; None counts gradients."""
    return "\n\n".join([heading(plan), rates(plan, batch), parts(plan), advice(plan)])


def heading(plan: Plan) -> str:
    """What the tables are about."""
    case, link = plan.case, plan.case.link
    served = "" if link.server is None else f", the server's {bits(link.server)}"
    return (
        f"{case.layout.numel:,} parameters, {case.workers} workers, {1e3 * case.step_time:g} ms a gradient\n"
        f"links of {bits(link.bandwidth)} of payload{served}, {1e3 * link.latency:.3g} ms one way\n"
        f"a server of {case.cores} cores; costs {case.costs.source}"
    )


def rates(plan: Plan, batch: int | None) -> str:
    """How fast each row is, the dense ones' fastest being 1, and what it sends."""
    unit = "gradients/s" if batch is None else "samples/s"
    columns = ["", "MB up", "MB down", "codec down", "step ms", unit, "gain", "limited by"]
    return _aligned(columns, [_rate(row, plan, batch or 1) for row in plan.rows])


def _rate(row: Row, plan: Plan, batch: int) -> list[str]:
    mark = "* " if row is plan.recommended else "  "
    return [
        mark + row.name, f"{row.bytes_up / 1e6:.3g}", f"{row.bytes_down / 1e6:.3g}", row.codec_down, _ms(row.step),
        f"{batch * row.rate:,.4g}", f"{row.rate / plan.dense.rate:.2f}", row.limited_by,
    ]  # fmt: skip


def parts(plan: Plan) -> str:
    """What a worker's step is made of."""
    columns = ["ms of a step", "compute", "select", "pack", "up", "server", "down", "latency", "waiting"]
    cells = []
    for row in plan.rows:
        own = (row.compute, row.select, row.pack, row.up, row.server, row.down, row.latency, row.waiting)
        cells.append(["  " + row.name, *map(_ms, own)])
    return _aligned(columns, cells)


def _ms(seconds: float) -> str:
    ms = 1e3 * seconds
    return f"{ms:,.0f}" if ms >= 100 else f"{ms:.1f}"


def _aligned(columns: list[str], rows: list[list[str]]) -> str:
    """The first column, and one of words at the end, to the left; the others to the right."""
    cells = [columns, *rows]
    widths = [max(_NAME if i == 0 else 0, *(len(line[i]) for line in cells)) for i in range(len(columns))]
    left = {0, columns.index("limited by")} if "limited by" in columns else {0}

    def padded(line: list[str]) -> str:
        return "  ".join(
            cell.ljust(w) if i in left else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        ).rstrip()

    return "\n".join(map(padded, cells))


def advice(plan: Plan) -> str:
    """What to do, and what the figures do not say."""
    lines = [*_verdict(plan), *_boundary(plan)]
    if plan.case.workers > 1:
        lines.append(
            "A rate is not progress: asynchronous workers train on weights that others have changed meanwhile, and "
            f"with {plan.case.workers} of them a sample is worth less than in all-reduce (docs/convergence.md)."
        )
    if plan.worth == "yes" and plan.best.density < 0.01:
        lines.append("What a density below 1 % costs in accuracy was not measured (docs/choosing.md).")
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
            f"Hardly worth it: {best.name} is {100 * (plan.gain - 1):.1f} % faster than {dense.name}, which has no "
            "staleness. Use DistributedDataParallel unless its workers come and go."
        ]
    return [f"Recommended: {best.name} ({settings(best)}): {plan.gain:.1f} times the rate of {dense.name}."]


def settings(row: Row) -> str:
    """The row as keywords of GradientSGD."""
    density = f"density={row.density:g}, " if row.sparse else ""
    return f"mode={row.method!r}, {density}codec={row.codec!r}"


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
