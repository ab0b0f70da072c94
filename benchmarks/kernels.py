# SPDX-License-Identifier: Apache-2.0
"""The ops and the methods' whole steps, against the memory floor and against plain torch, in one run.

    python benchmarks/kernels.py                                                     # everything, about ten minutes
    python benchmarks/kernels.py --model resnet18 --density 0.01 --steps dgs pull    # some
    python benchmarks/kernels.py --smoke                                             # seconds

Each step is compared with its twin, bit for bit, before it is timed. Contestants take turns; times are medians. The
floor is the fastest of several loops over the same arrays (floors.py); `x floor` and `faster` are ratios to it and to
the faster plain-torch version (plain_torch.py). Results go to --out as JSON and as a plot, too.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import floors
import models
import plain_torch
import report
import torch
from harness import Contestant, in_turn
from steps import STEPS, Problem, problem
from tqdm import tqdm
from verify import verify

from dgs_ext import ops

WHOLE_BELOW = 12_000_000  # parameters up to which a model is verified whole, once for each step
PART = 1_000_000  # elements verified otherwise


@dataclass(frozen=True)
class Row:
    """One line of the table; times in milliseconds."""

    model: str
    numel: int
    threads: int
    step: str
    density: float | None
    ms: float
    gb_per_s: float
    floor_ms: float
    times_floor: float
    faster: float | None
    others: dict[str, float]  # medians
    least: dict[str, float]  # the best of each, the step's own among them
    verified: int
    runs: int


def cells(args: argparse.Namespace) -> list[tuple[int, float, str]]:
    """Threads, density and step of every row of a model; a step without density has one row."""
    return [
        (threads, density, step)
        for threads in args.threads
        for density in args.density
        for step in args.steps
        if STEPS[step].sparse or density == args.density[0]
    ]


def measure(args: argparse.Namespace, model: str, p: Problem, cell: tuple[int, float, str], part: int) -> Row:
    """Verifies and times one step."""
    threads, density, name = cell
    step = STEPS[name]
    torch.set_num_threads(threads)
    verified = verify(name, step, p, part)
    before, run = step.before, step.run
    if step.given is not None:
        step.given(p, ops)
    run(p, ops)  # what was selected is an operand of the pull's floor
    floor = floors.contestants(step.floor, p)
    plain = list(plain_torch.contestants(name, p)) if args.baselines else []
    mine = Contestant(name, lambda: run(p, ops), None if before is None else lambda: before(p))
    times = in_turn([mine, *floor, *plain], p.device, args.repeats, args.limit)
    medians = {who: statistics.median(samples) for who, samples in times.items()}
    ms, fastest = medians.pop(name), min(medians[c.name] for c in floor)
    return Row(
        model, p.numel, threads, name, density if step.sparse else None, ms,
        step.bytes(p) / ms / 1e6, fastest, ms / fastest,
        min((medians[c.name] for c in plain), default=float("nan")) / ms if plain else None,
        medians, {who: min(samples) for who, samples in times.items()}, verified, len(times[name]),
    )  # fmt: skip


def rows(args: argparse.Namespace, device: torch.device) -> Iterator[Row]:
    """All rows, model by model, with a bar."""
    todo = cells(args)
    with tqdm(total=len(todo) * len(args.model), unit="row", disable=None) as bar:
        for model in args.model:
            layout = models.layout(model)
            p, whole = problem(layout, device), set[str]()
            for density in args.density:
                at = p.at(layout.counts(density))
                for cell in todo:
                    if cell[1] != density:
                        continue
                    bar.set_postfix_str(f"{model} {density:g} {cell[2]} × {cell[0]}")
                    full = cell[2] not in whole and layout.numel <= WHOLE_BELOW
                    whole.add(cell[2])
                    yield measure(args, model, at, cell, layout.numel if full else PART)
                    bar.update()


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    cores = len(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", nargs="+", choices=models.SHAPES, help="default: all but tiny")
    parser.add_argument("--density", type=float, nargs="+", default=[0.01, 0.1, 0.001])
    parser.add_argument(
        "--threads", type=int, nargs="+", default=sorted({1, cores}), help="default: 1 and all"
    )
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--limit", type=float, default=0.5, help="seconds for each contestant of a row")
    parser.add_argument(
        "--no-baselines", dest="baselines", action="store_false", help="leave plain torch out"
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--out", type=Path, default=Path("out/kernels"), help="folder for JSON and plot")
    parser.add_argument("--smoke", action="store_true", help="a tiny model, once: does everything run?")
    args = parser.parse_args(arguments)
    if args.smoke:
        args.model, args.density, args.threads, args.repeats = ["tiny"], [0.01], [1], 1
    args.model = args.model or [m for m in models.SHAPES if m != "tiny"]
    if args.device != "cpu":
        args.threads = [1]
    return args


def main() -> None:
    args = parse()
    device = torch.device(args.device)
    began = report.machine(device)
    why = floors.why_not_compiled() if device.type == "cpu" else ""
    if why:
        print(
            f"floor.cpp was not compiled ({why}): the floor is torch's own element-wise kernels, a looser one"
        )
    done = list(rows(args, device))
    report.show(began, done)
    report.save(args.out, began, [asdict(row) for row in done])


if __name__ == "__main__":
    main()
