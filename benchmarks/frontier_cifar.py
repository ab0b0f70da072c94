# SPDX-License-Identifier: Apache-2.0
"""What to spend the bytes of a push on, on CIFAR-10: entries or bits, in short runs of the small ResNet.

python benchmarks/frontier_cifar.py --data DIR [--out out/frontier] [--epochs 3] [--seeds 2] [--compile]

Simulated workers, dgs with m = 0.7, pushes of the bytes that float32 has at 1 %, in each codec at the density that it
affords; pulls bring everything that changed, in float32, so that only the pushes differ. One learning rate for all.
Runs that are in --out already are not run again.
"""

from __future__ import annotations

import argparse
import logging
import statistics
from collections.abc import Sequence
from pathlib import Path

import torch
from convergence_run import IMAGES, Cifar, Plan, Setup, carry_out
from frontier import densities
from harness import table
from resumed import Row, Rows
from tqdm import tqdm

from dgs import Layout
from dgs_ext.wire import Codec

DENSITY, MOMENTUM = 0.01, 0.7
KEPT = ("accuracy", "loss", "up", "down", "status", "minutes", "curve")


def carried_out(codec: Codec, density: float, args: argparse.Namespace, seed: int, cifar: Cifar) -> Row:
    """One run."""
    settings = {"codec": codec.name.lower(), "density": density, "budget_down": 1e6}
    setup = Setup("dgs", momentum=MOMENTUM, settings=settings)
    plan = Plan(codec.name, args.rate, args.epochs, seed, args.batch_size, args.workers, args.images)
    record = carry_out(plan, setup, cifar)
    return {"codec": codec.name.lower(), "density": density} | {k: record[k] for k in KEPT if k in record}


def show(rows: Sequence[Row], title: str) -> str:
    """Means over the seeds that are there, and how far these lie apart."""
    lines = []
    for name in dict.fromkeys(row["codec"] for row in rows):
        part = [row for row in rows if row["codec"] == name]
        accuracies = [row["accuracy"] for row in part]
        mean, apart = statistics.fmean(accuracies), max(accuracies) - min(accuracies)
        lines.append(
            (name, f"{part[0]['density']:.2%}", f"{part[0]['up']:,.0f}", f"{mean:.2%}", f"{apart:.2%}",
             f"{statistics.fmean(row['loss'] for row in part):.3f}", len(part))
        )  # fmt: skip
    return table(
        title, ("codec", "density", "bytes/push", "test accuracy", "max - min", "loss", "seeds"), lines
    )


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="holds cifar-10-batches-bin or -py")
    parser.add_argument("--out", type=Path, default=Path("out/frontier"))
    parser.add_argument("--codecs", nargs="+", default=["float32", "int8", "level3", "sign"])
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--epochs", type=float, default=3, help="passes over the images, of all workers")
    parser.add_argument("--rate", type=float, default=0.2, help="η/(1-m)")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--images", type=int, default=IMAGES, help="train on the first so many")
    parser.add_argument("--compile", action="store_true", help="torch.compile: some 40 %% faster on a CPU")
    return parser


def main() -> None:
    args = options().parse_args()
    logging.basicConfig(level=logging.ERROR)
    torch.set_num_threads(1)
    from cifar10 import make_net  # example/, which convergence_run has put on the path

    layout = Layout([(name, tuple(p.shape)) for name, p in make_net("small").named_parameters()])
    pairs = [(codec, densities(codec, DENSITY, layout)) for codec in (Codec[n.upper()] for n in args.codecs)]
    rows, done = Rows(args.out / "frontier_cifar.jsonl"), []
    wanted = [(seed, *pair) for seed in range(args.seeds) for pair in pairs]
    with tqdm(total=round(len(wanted) * args.epochs, 1), desc="passes") as bar:
        cifar = Cifar(args.data, args.compile, bar.update)
        for seed, codec, density in wanted:
            key = f"{codec.name.lower()} {density:.6f} {args.workers} {args.batch_size} {args.epochs:g}"
            key += f" {args.rate:g} {args.images} {seed}"
            if key not in rows:
                rows.add(key, carried_out(codec, density, args, seed, cifar))
            done.append(rows[key])
    title = f"\n{args.epochs:g} passes, {args.workers} workers, η/(1-m) = {args.rate:g}"
    print(show(done, title))


if __name__ == "__main__":
    main()
