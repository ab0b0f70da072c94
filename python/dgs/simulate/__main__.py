# SPDX-License-Identifier: Apache-2.0
"""Simulates training of a small problem, and writes CSV and a picture.

    python -m dgs.simulate --workers 8 --mode dgs asgd --bandwidth 1gbit --latency 0.2ms --compute 20ms

Every run learns to tell ten classes of patterns apart, with a network of 85,002 parameters.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields
from pathlib import Path

import torch

from ..config import Settings
from ..errors import DGSError
from ..methods import LOCAL_METHODS, MODES, STRATEGIES
from ..options import add_settings
from ..units import rate, seconds
from . import WITHOUT_EFFECT, LogNormal, Network, Result, ServerCost, Straggler, simulate
from .compute import Always, Compute
from .problem import Patterns

_OWN = {"mode", "overlap", "max_version", "threads"}  # that have an option here


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dgs.simulate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--mode", nargs="+", choices=list(MODES), default=["dgs", "asgd"], help="a run for each"
    )
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--steps", type=int, default=1200, help="pushes of all workers together")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=0.06, help="over 1 - momentum, the same for all modes")
    parser.add_argument("--momentum", type=float, default=0.7, help="where the method has one")
    parser.add_argument("--bandwidth", default="1gbit", help="of every link, the server's too")
    parser.add_argument("--latency", default="0.1ms", help="one way")
    parser.add_argument("--compute", default="20ms", help="mean time of a gradient")
    parser.add_argument(
        "--jitter", type=float, default=0.25, help="deviation of its logarithm; 0: always the same"
    )
    parser.add_argument("--straggler", type=float, default=1.0, help="how many times longer one worker takes")
    parser.add_argument("--server-cost", default="0.2ms", help="the server's time for an exchange")
    parser.add_argument("--overlap", action="store_true", help="compute while the exchange is under way")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="torch's")
    parser.add_argument("--out", type=Path, default=Path("out/simulation"))
    add_settings(parser, without=_OWN | WITHOUT_EFFECT)
    return parser


def run(args: argparse.Namespace, mode: str) -> Result:
    """One run."""
    names = {"sparsity", *(f.name for f in fields(Settings))} - _OWN - WITHOUT_EFFECT
    mean = seconds(args.compute)
    compute: Compute = LogNormal(mean, args.jitter) if args.jitter > 0 else Always(mean)
    momentum = args.momentum if "momentum" in STRATEGIES[mode].uses else 0.0
    workers = 1 if mode in LOCAL_METHODS else args.workers
    problem = Patterns(args.seed, args.batch_size, workers)
    return simulate(
        problem.model, problem.loss, problem.batches, workers=workers, max_version=args.steps,
        lr=args.lr * (1 - momentum), momentum=momentum, compute=Straggler(compute, args.straggler),
        network=Network.of(rate(args.bandwidth), seconds(args.latency)),
        server=ServerCost(seconds(args.server_cost)), overlap=args.overlap, seed=args.seed,
        evaluate=problem.evaluate, every=max(1, args.steps // 24), mode=mode,
        **{name: value for name in names if (value := getattr(args, name)) is not None},
    )  # fmt: skip


def summary(mode: str, result: Result) -> str:
    """One line about a run."""
    last, idlest = result.points[-1].measured, min(use.utilisation for use in result.workers)
    return (
        f"{mode:5} accuracy {last['accuracy']:.1%}  {result.seconds:8.2f} virtual s  {result.rate:7.1f} steps/s  "
        f"staleness {result.mean_staleness:.1f}  idlest worker {idlest:.0%} busy  bytes/step up "
        f"{result.per_exchange('up'):,.0f} down {result.per_exchange('down'):,.0f}"
    )


def main() -> None:
    args = options().parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    results: dict[str, Result] = {}
    for mode in args.mode:
        results[mode] = run(args, mode)
        results[mode].write_csv(args.out / f"{mode}.csv")
        print(summary(mode, results[mode]), flush=True)
    try:
        from .plot import draw
    except ModuleNotFoundError as error:
        print(f"no picture: {error}; pip install matplotlib", file=sys.stderr)
        return
    title = f"{args.workers} workers, {args.bandwidth}, latency {args.latency}, a gradient in {args.compute}"
    draw(results, "accuracy", title, args.out / "runs.png")
    print(f"{args.out}/runs.png and a CSV file for each run")


if __name__ == "__main__":
    try:
        main()
    except DGSError as error:
        sys.exit(f"python -m dgs.simulate: {error}")
