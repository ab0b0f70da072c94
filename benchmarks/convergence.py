# SPDX-License-Identifier: Apache-2.0
"""All methods on CIFAR-10 with simulated workers, learning rates tuned alike (docs/convergence.md).

    python benchmarks/convergence.py --data DIR [--out DIR] [--epochs 10] [--seeds 2] ...

Each rate is chosen by the accuracy on images held out of the training set: in short runs from one grid, which
goes on where the best is at an end of it; then in runs of full length, from that rate up until it is clearly worse.
What is reported is the accuracy on the test images. Each finished run is a line of OUT/results.jsonl: run it again to
go on where it stopped. OUT then holds table.md and curves.png.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from convergence_report import report
from convergence_run import HELD_OUT, IMAGES, Cifar, Plan, Setup, carry_out
from tqdm import tqdm

MAIN = {
    "sgd": Setup("sgd", momentum=0.9, workers=1),
    "asgd": Setup("asgd"),
    "gd": Setup("gd"),
    "dgc": Setup("dgc", momentum=0.7, warm_up=0.2),
    "dgs": Setup("dgs", momentum=0.7),
}
VARIANTS = {  # at the rate of their method
    "sgd, 8 × batch": Setup("sgd", momentum=0.9, workers=1, batches=8),
    "dgs, 1 % down": Setup("dgs", momentum=0.7, settings={"density_down": 0.01}),
    "dgs, all down": Setup("dgs", momentum=0.7, settings={"density_down": 1.0}),
    "dgs, 2 workers": Setup("dgs", momentum=0.7, workers=2),
    "dgs, m = 0.3": Setup("dgs", momentum=0.3),
    "dgs, overlap": Setup("dgs", momentum=0.7, settings={"overlap": True}),
}
SETUPS = MAIN | VARIANTS
MOST_RATES, GRID_SEED = 6, 1000
CLEARLY = 0.01  # worse than the best: more than chance does to the accuracy on what is held out

Records = dict[str, dict[str, Any]]


class Results:
    """The finished runs, in a file that only grows."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "results.jsonl"
        text = self._path.read_text() if self._path.exists() else ""
        whole = text[
            : text.rfind("\n") + 1
        ]  # a line that was being written when the machine went down is not one
        if whole != text:
            self._path.write_text(whole)
        self.records: Records = {r["key"]: r for r in map(json.loads, whole.splitlines())}

    def add(self, record: dict[str, Any]) -> None:
        self.records[record["key"]] = record
        with self._path.open("a") as file:
            file.write(json.dumps(record) + "\n")

    def best_rate(self, plans: Sequence[Plan]) -> float | None:
        """The rate of these runs' most accurate on what was held out; None while one is missing."""
        if any(p.key not in self.records for p in plans):
            return None
        return max(plans, key=lambda p: self.records[p.key]["validation"]).rate


def short(args: argparse.Namespace, results: Results, mode: str) -> list[Plan]:
    """Short runs of a method at each of the rates, and beyond while the best is at an end."""
    rates = sorted(args.rates)
    while True:
        plans = [_plan(args, mode, rate, args.grid_epochs, GRID_SEED) for rate in rates]
        best = results.best_rate(plans)
        if best not in (rates[0], rates[-1]) or len(rates) >= MOST_RATES:
            return plans
        rates = [best / 2, *rates] if best == rates[0] else [*rates, best * 2]


def long(args: argparse.Namespace, results: Results, mode: str) -> list[Plan]:
    """Runs of full length: more passes may bear a higher rate than a few do. None before the short ones are done."""
    first = results.best_rate(short(args, results, mode))
    if first is None:
        return []
    rates = [first, 2 * first]
    while True:
        plans = [_plan(args, mode, rate, args.epochs, 0) for rate in rates]
        if any(p.key not in results.records for p in plans) or len(rates) >= MOST_RATES:
            return plans
        reached = [results.records[p.key]["validation"] for p in plans]
        if reached[-1] < max(reached) - CLEARLY:
            return plans
        rates.append(2 * rates[-1])


def finals(args: argparse.Namespace, results: Results) -> Iterator[Plan]:
    """The runs that are reported, seed by seed; a variant takes the rate of its method."""
    for seed in range(args.seeds):
        for name in args.setups:
            tried = long(args, results, SETUPS[name].mode)
            rate = results.best_rate(tried) if tried else None
            if rate is not None and (name in MAIN or seed < args.variant_seeds):
                yield _plan(args, name, rate, args.epochs, seed)


def _plan(args: argparse.Namespace, name: str, rate: float, epochs: float, seed: int) -> Plan:
    return Plan(name, rate, epochs, seed, args.batch_size, args.workers, args.images)


def modes_of(args: argparse.Namespace) -> list[str]:
    """The modes of all setups."""
    return list(dict.fromkeys(SETUPS[name].mode for name in args.setups))


def left(args: argparse.Namespace, results: Results) -> float:
    """Passes that are still to be done, as far as is known: a search may go on beyond what is foreseen."""
    modes = modes_of(args)
    searches = [p for mode in modes for stage in (short, long) for p in stage(args, results, mode)]
    epochs = sum(p.epochs for p in searches if p.key not in results.records)
    epochs += sum(2 * args.epochs for mode in modes if not long(args, results, mode))
    done = {(p.name, p.seed) for p in finals(args, results) if p.key in results.records}
    wanted = [(name, seed) for name in args.setups if name in MAIN for seed in range(1, args.seeds)]
    wanted += [(name, seed) for name in args.setups if name in VARIANTS for seed in range(args.variant_seeds)]
    epochs += args.epochs * sum(w not in done for w in wanted)
    return epochs * min(args.images / IMAGES, 1 - HELD_OUT)


def work(args: argparse.Namespace, results: Results) -> None:
    """Everything that is not done yet: the search for rates, then the runs at the best."""
    modes = modes_of(args)
    total = max(0.1, round(left(args, results), 1))
    bar_format = "{l_bar}{bar}| {n:.1f}/{total} passes [{elapsed}<{remaining}]"
    with tqdm(total=total, bar_format=bar_format, mininterval=1.0) as bar:
        cifar = Cifar(args.data, args.compile, bar.update)
        for stage in (short, long):
            for mode in modes:
                _search(lambda stage=stage, mode=mode: stage(args, results, mode), args, results, cifar, bar)
        for plan in finals(args, results):
            _run(plan, args, results, cifar, bar)


def _search(
    plans: Callable[[], list[Plan]], args: argparse.Namespace, results: Results, cifar: Cifar, bar: Any
) -> None:
    """Carries out plans, of which there may be more once these are done."""
    seen: set[str] = set()
    while fresh := [p for p in plans() if p.key not in seen]:
        for plan in fresh:
            _run(plan, args, results, cifar, bar)
            seen.add(plan.key)


def _run(plan: Plan, args: argparse.Namespace, results: Results, cifar: Cifar, bar: Any) -> None:
    bar.set_description(f"{plan.name} η/(1-m)={plan.rate:g} seed {plan.seed}")
    if plan.key in results.records:
        return
    record = carry_out(plan, SETUPS[plan.name], cifar)
    results.add(record)
    bar.total = round(bar.n + left(args, results), 1)
    bar.write(
        f"{plan.name:16} {plan.epochs:g} epochs, rate {plan.rate:<5g} seed {plan.seed:<5} held out "
        f"{record['validation']:.2%}  test {record['accuracy']:.2%}  {record.get('minutes', 0):.1f} min  "
        f"{record['status']}"
    )


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="holds cifar-10-batches-bin or -py")
    parser.add_argument("--out", type=Path, default=Path("out/convergence"))
    parser.add_argument("--setups", nargs="+", choices=SETUPS, default=list(SETUPS), metavar="NAME")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--epochs", type=float, default=10, help="passes over the images, of all workers")
    parser.add_argument("--grid-epochs", type=float, default=2)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.1, 0.2, 0.4], help="η/(1-m)")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--variant-seeds", type=int, default=1)
    parser.add_argument("--images", type=int, default=IMAGES, help="train on the first so many")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compile", action="store_true", help="torch.compile: some 40 %% faster on a CPU")
    parser.add_argument("--report", action="store_true", help="only write the table and the curves")
    parser.add_argument("--page", type=Path, help="a page to write them into as well, docs/convergence.md")
    return parser


def main() -> None:
    args = options().parse_args()
    logging.basicConfig(level=logging.ERROR)
    torch.set_num_threads(args.threads)
    results = Results(args.out)
    if not args.report:
        work(args, results)
    modes = modes_of(args)
    searches = [p for mode in modes for stage in (short, long) for p in stage(args, results, mode)]
    shown, searched = (
        [results.records[p.key] for p in plans if p.key in results.records]
        for plans in (finals(args, results), searches)
    )
    report(shown, searched, args.out, args.page)


if __name__ == "__main__":
    main()
