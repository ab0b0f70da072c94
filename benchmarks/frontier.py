# SPDX-License-Identifier: Apache-2.0
"""What to spend bytes on: entries or bits, up and down.

python benchmarks/frontier.py [down] [up] [--out out/frontier] [--seeds 3] [--smoke]

down: how far workers are behind the server, ‖θ - b‖ in units of a push, against the number of workers, the density of
pulls, and the rule of dgs.server.budget. up: the loss after a fixed number of steps with pushes of the same bytes, in
each codec at the density that it affords, each at the best of three learning rates. Runs that are in --out already
are not run again.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from harness import table
from least_squares import SHAPE, Pulls, Training
from resumed import Row, Rows
from tqdm import tqdm

from dgs import Layout
from dgs.server.budget import Budget, Plan, predicted_bytes
from dgs.simulate import LogNormal, simulate
from dgs.simulate.problem import Patterns
from dgs_ext.wire import Codec

CODECS = [c for c in Codec if c is not Codec.BYTES]
SMALL = Layout([("w", SHAPE)], compress_all=True)
LARGE = Layout([("w", (1000, 1000))], compress_all=True)  # whose densities are fine enough to be matched
DENSITY, MOMENTUM, UP_WORKERS = 0.01, 0.7, 8
RATES = (0.05, 0.1, 0.2)
BUDGETS = {"1 %": 0.01, "0.25 %": 0.0025}  # densities of float32 with the same bytes


def fixed(density: float, codec: Codec = Codec.FLOAT32) -> Pulls:
    """The same pull always."""
    plan = Plan(SMALL.counts(density), codec)
    return lambda unseen: plan


def budgeted(codec: Codec | None, pushes: float = 4.0) -> Pulls:
    """What the server does without `density_down`."""
    budget = Budget(SMALL, codec=codec, pushes=pushes)
    return lambda unseen: budget.plan(unseen, DENSITY, Codec.FLOAT32)


def rules(workers: int) -> dict[str, Pulls]:
    """How pulls may be planned, by name."""
    several = {
        f"any codec, {pushes:g} pushes' bytes": budgeted(None, pushes) for pushes in (1.0, 2.0, 4.0, 8.0)
    }
    return {
        "1 %": fixed(DENSITY),
        f"{min(1.0, workers * DENSITY):.0%} (workers × 1 %)": fixed(min(1.0, workers * DENSITY)),
        "dense": fixed(1.0),
        "float32, 4 pushes' bytes": budgeted(Codec.FLOAT32),
        **several,
    }


def densities(codec: Codec, of_float32: float, layout: Layout = LARGE) -> float:
    """The density at which a frame has the bytes of a float32 one at `of_float32`."""
    budget, low, high = predicted_bytes(layout, of_float32, Codec.FLOAT32), of_float32, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if predicted_bytes(layout, middle, codec) <= budget else (low, middle)
    return low


def pushed(codec: Codec, density: float, rate: float, seed: int, steps: int) -> Row:
    """One run of the simulator's small problem; pulls bring everything that changed, in float32."""
    problem = Patterns(seed, 32, UP_WORKERS)
    result = simulate(
        problem.model, problem.loss, problem.batches, workers=UP_WORKERS, max_version=steps, mode="dgs",
        lr=lambda at: rate * (1 - MOMENTUM) * (1 - at), momentum=MOMENTUM, compute=LogNormal(0.02), seed=seed,
        evaluate=problem.evaluate, codec=codec.name.lower(), density=density, codec_down="float32",
        budget_down=1e6, compress_all=True,
    )  # fmt: skip
    return {"bytes": result.per_exchange("up"), **result.points[-1].measured}


def of(rows: Rows, key: str, run: Callable[[], Row]) -> Row:
    """The row of that key, run if there is none."""
    if key not in rows:
        rows.add(key, run())
    return rows[key]


def down(record: Rows, workers: list[int], steps: int, tails: list[str]) -> str:
    """Tables of what is behind and what it costs."""
    text = []
    wanted = [(t, w, *rule) for t in tails for w in workers for rule in rules(w).items()]
    rows: dict[str, list[tuple[object, ...]]] = {t: [] for t in tails}
    for tail, count, name, pulls in tqdm(wanted, desc="down"):

        def run(tail: Any = tail, count: int = count, pulls: Pulls = pulls) -> Row:
            training = Training("dgs", MOMENTUM, Codec.FLOAT32, pulls, tails=tail, workers=count)
            return asdict(training.run(steps))

        r = of(record, f"down {tail} {count} {name} {steps}", run)
        rows[tail].append((f"{count}: {name}", r["pushes"], r["bytes_down"], f"{r['loss']:.2e}"))
    for tail, part in rows.items():
        columns = ("workers: pull", "‖θ - b‖/‖push‖", "bytes, in pushes", "loss")
        text.append(table(f"\ndown, {tail} tails, {steps} steps", columns, part))
    return "\n".join(text)


def up(record: Rows, seeds: int, steps: int, rates: tuple[float, ...]) -> tuple[str, list[Row]]:
    """A table of losses at equal bytes, each at its best rate, and its rows."""
    points = []
    wanted = [(name, base, codec) for name, base in BUDGETS.items() for codec in CODECS]
    for name, base, codec in tqdm(wanted, desc="up"):
        density = densities(codec, base)
        tried = {}
        for rate in rates:
            runs = [
                of(
                    record,
                    f"up {codec.name} {density:.6f} {rate} {seed} {steps}",
                    lambda d=density, r=rate, s=seed, c=codec: pushed(c, d, r, s, steps),  # type: ignore[misc]
                )
                for seed in range(seeds)
            ]
            tried[rate] = {k: [run[k] for run in runs] for k in runs[0]}
        rate = min(tried, key=lambda r: statistics.fmean(tried[r]["loss"]))
        best = {k: statistics.fmean(v) for k, v in tried[rate].items()}
        spread = max(tried[rate]["loss"]) - min(tried[rate]["loss"])
        points.append(
            {
                "bytes as": name,
                "codec": codec.name.lower(),
                "density": density,
                "rate": rate,
                "spread": spread,
            }
            | best
        )
    rows = [
        (f"{p['bytes as']}: {p['codec']}", f"{p['density']:.2%}", p["bytes"], f"{p['loss']:.4f}",
         f"{p['spread']:.4f}", f"{p['accuracy']:.2%}", p["rate"])
        for p in points
    ]  # fmt: skip
    columns = ("bytes as float32 at", "density", "bytes/push", "loss", "max - min", "accuracy", "rate/(1-m)")
    return table(f"\nup, {steps} steps of {UP_WORKERS} workers, {seeds} seeds", columns, rows), points


def draw(points: list[Row], path: Path) -> bool:
    """Loss of each codec at equal bytes; False without matplotlib."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ModuleNotFoundError:
        return False
    figure, axes = pyplot.subplots(figsize=(7, 4))
    for name in BUDGETS:
        chosen = [p for p in points if p["bytes as"] == name]
        axes.plot(
            [p["codec"] for p in chosen],
            [p["loss"] for p in chosen],
            "o-",
            label=f"bytes of float32 at {name}",
        )
        for p in chosen:
            at = (p["codec"], p["loss"])
            axes.annotate(
                f"{p['density']:.2%}", at, fontsize=8, xytext=(0, 6), textcoords="offset points", ha="center"
            )
    axes.set(
        ylabel="loss of the server's model on test points",
        title="At equal bytes: the density that each codec affords",
    )
    axes.set_ylim(bottom=0)
    axes.legend()
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
    return True


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", nargs="*", default=["down", "up"], metavar="down|up")
    parser.add_argument("--out", type=Path, default=Path("out/frontier"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4, 16, 32])
    parser.add_argument(
        "--steps", type=int, default=800, help="of a run up; those down have five times as many"
    )
    parser.add_argument("--smoke", action="store_true", help="few of all")
    args = parser.parse_args(arguments)
    rates, tails = RATES, ["normal", "heavy"]
    if args.smoke:
        args.seeds, args.workers, args.steps, rates, tails = 1, [4], 24, RATES[:1], ["heavy"]
    torch.set_num_threads(1)
    record = Rows(args.out / "frontier.jsonl")
    if "down" in args.what:
        print(down(record, args.workers, 5 * args.steps, tails), flush=True)
    if "up" in args.what:
        text, points = up(record, args.seeds, args.steps, rates)
        print(text)
        if draw(points, args.out / "frontier.png"):
            print(args.out / "frontier.png")


if __name__ == "__main__":
    main()
