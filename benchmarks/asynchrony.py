# SPDX-License-Identifier: Apache-2.0
"""What two settings do to training, on the simulator's small problem: overlap, and flush where workers leave.

python benchmarks/asynchrony.py [overlap] [flush] [--seeds 3] [--steps 800] [--modes dgs gd dgc asgd]

overlap: the same run with and without, at a network fast enough not to matter and at one that takes as long as a
gradient. flush: half of the workers leave at a third of the run, with and without a last push of what they hold.
"""

from __future__ import annotations

import argparse
import logging
import statistics
from typing import Any

import torch
from harness import table

from dgs.methods import STRATEGIES
from dgs.simulate import LogNormal, Network, Presence, Result, simulate
from dgs.simulate.problem import Patterns

_WORKERS, _BATCH, _GRADIENT = 8, 32, 0.02


def train(mode: str, args: argparse.Namespace, seed: int, **changes: Any) -> Result:
    """One run of the small problem."""
    momentum = args.momentum if "momentum" in STRATEGIES[mode].uses else 0.0
    problem = Patterns(seed, _BATCH, _WORKERS)
    given = {"network": Network(), "every": args.steps // 40} | changes
    return simulate(
        problem.model, problem.loss, problem.batches, workers=_WORKERS, max_version=args.steps,
        lr=lambda at: args.lr * (1 - momentum) * (1 - at), momentum=momentum, compute=LogNormal(_GRADIENT),
        evaluate=problem.evaluate, mode=mode, seed=seed, **given,
    )  # fmt: skip


def row(name: str, results: list[Result]) -> tuple[object, ...]:
    """Means and ranges over the seeds."""
    ends = [r.points[-1].measured for r in results]
    halves = [r.points[len(r.points) // 2].measured for r in results]
    accuracy, loss = [100 * e["accuracy"] for e in ends], [e["loss"] for e in ends]
    return (
        name,
        statistics.fmean(h["loss"] for h in halves),
        statistics.fmean(loss),
        f"{min(loss):.3f} - {max(loss):.3f}",
        f"{statistics.fmean(accuracy):.2f}",
        statistics.fmean(r.mean_staleness for r in results),
        statistics.fmean(r.rate for r in results),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", nargs="*", default=["overlap", "flush"], metavar="overlap|flush")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=800, help="pushes of all workers together")
    parser.add_argument("--lr", type=float, default=0.05, help="over 1 - momentum; it falls to 0")
    parser.add_argument("--momentum", type=float, default=0.7)
    parser.add_argument("--modes", nargs="+", default=["dgs", "gd", "dgc", "asgd"])
    args = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    torch.set_num_threads(1)
    columns = ("run", "loss at half", "at the end", "range", "accuracy %", "staleness", "steps/s")
    slow = Network(latency=_GRADIENT / 2)
    leaving = {i: Presence(leaves=args.steps / _WORKERS * _GRADIENT / 3) for i in range(_WORKERS // 2)}
    trials: dict[str, list[tuple[str, dict[str, Any]]]] = {
        "overlap": [
            ("off", {}),
            ("on", {"overlap": True}),
            ("off, slow network", {"network": slow}),
            ("on, slow network", {"network": slow, "overlap": True}),
        ],
        "flush": [
            ("nobody leaves", {}),
            ("off, 4 of 8 leave", {"presence": leaving}),
            ("on, 4 of 8 leave", {"presence": leaving, "flush": True}),
        ],
    }
    for setting in args.what:
        runs = trials[setting]
        rows = [
            row(f"{mode} {name}", [train(mode, args, seed, **changes) for seed in range(args.seeds)])
            for mode in args.modes
            for name, changes in runs
        ]
        title = f"{setting}: {args.steps} steps of {_WORKERS} workers, {args.seeds} seeds"
        print(table(title, columns, rows), "\n", flush=True)


if __name__ == "__main__":
    main()
