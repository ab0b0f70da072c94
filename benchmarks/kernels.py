# SPDX-License-Identifier: Apache-2.0
"""The ops and the methods' whole steps, against the memory floor and against plain torch, in one run.

    python benchmarks/kernels.py                                                     # all, a quarter of an hour
    python benchmarks/kernels.py --page docs/kernels.md                              # the same, into the page
    python benchmarks/kernels.py --model resnet18 --density 0.01 --steps dgs pull    # some
    python benchmarks/kernels.py --smoke                                             # seconds

Each step is compared with its twin, bit for bit, before it is timed. Contestants take turns; times are medians. The
floor is the fastest of several loops over the same arrays (floors.py); `x floor` and `faster` are ratios to it and to
the faster plain-torch version (plain_torch.py), `x streams` to the fastest loop that writes where the step does.
Results go to --out as JSON and as a plot, too.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import floors
import kernels_page
import models
import plain_torch
import report
import torch
from harness import Contestant, in_turn
from operands import Problem
from steps import STEPS, under_way
from tqdm import tqdm
from verify import verify

from dgs_ext import ops

# Elements that a step is verified on: at a model's first density, and at the others.
FIRST, PART = 40_000_000, 4_000_000


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
    times_streams: float  # of the fastest floor that writes to other memory, where the step does
    faster: float | None
    others: dict[str, float]  # medians
    least: dict[str, float]  # the best of each, the step's own among them
    verified: int
    runs: int


def measure(
    p: Problem, name: str, args: argparse.Namespace
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Times a step and its floors, and plain torch: milliseconds by contestant."""
    step = STEPS[name]
    before, run = step.before, step.run
    if step.given is not None:
        step.given(p, ops)
    run(p, ops)  # what was selected is an operand of the pull's floor
    floor = floors.contestants(step.floor, p)
    plain = list(plain_torch.contestants(name, p)) if args.baselines else []
    mine = Contestant(name, lambda: run(p, ops), None if before is None else lambda: before(p))
    times = in_turn([mine, *floor, *plain], p.device, args.repeats, args.limit)
    return times, {c.name: times[c.name] for c in floor}


def row(
    model: str,
    p: Problem,
    name: str,
    density: float,
    verified: int,
    times: dict[str, list[float]],
    floor: dict[str, list[float]],
) -> Row:
    """The ratios of what was measured."""
    medians = {who: statistics.median(samples) for who, samples in times.items()}
    ms, floor_ms = medians.pop(name), min(medians[who] for who in floor)
    plain = [medians[who] for who in medians if who not in floor]
    streams_ms = min((medians[who] for who in floor if floors.writes_apart(who)), default=floor_ms)
    return Row(
        model=model,
        numel=p.numel,
        threads=torch.get_num_threads(),
        step=name,
        density=density if STEPS[name].sparse else None,
        ms=ms,
        gb_per_s=STEPS[name].bytes(p) / ms / 1e6,
        floor_ms=floor_ms,
        times_floor=ms / floor_ms,
        times_streams=ms / streams_ms,
        faster=min(plain) / ms if plain else None,
        others=medians,
        least={who: min(samples) for who, samples in times.items()},
        verified=verified,
        runs=len(times[name]),
    )


def rows(args: argparse.Namespace, device: torch.device) -> Iterator[Row]:
    """All rows, model by model, with a bar; a step that no density changes has one for each number of threads."""
    todo = [(d, s) for d in args.density for s in args.steps if STEPS[s].sparse or d == args.density[0]]
    with tqdm(total=len(todo) * len(args.model) * len(args.threads), unit="row", disable=None) as bar:
        for model in args.model:
            layout = models.layout(model)
            p = under_way(layout, device)
            for density, name in todo:
                if not torch.equal(p.counts, layout.counts(density)):
                    p = p.at(layout.counts(density))
                bar.set_postfix_str(f"{model}, {density:g}, {name}")
                torch.set_num_threads(max(args.threads))
                verified = verify(name, STEPS[name], p, FIRST if density == args.density[0] else PART)
                for threads in args.threads:
                    torch.set_num_threads(threads)
                    yield row(model, p, name, density, verified, *measure(p, name, args))
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
    parser.add_argument("--limit", type=float, default=0.15, help="seconds for each contestant of a row")
    parser.add_argument(
        "--no-baselines", dest="baselines", action="store_false", help="leave plain torch out"
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--out", type=Path, default=Path("out/kernels"), help="folder for JSON and plot")
    parser.add_argument(
        "--page", type=Path, help="docs/kernels.md: write the tables there, JSON and plot beside it"
    )
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
    record = report.save(args.page.parent if args.page else args.out, began, [asdict(row) for row in done])
    if args.page is not None:
        kernels_page.write(args.page, record)
        print(kernels_page.quoted(record["rows"]))


if __name__ == "__main__":
    main()
