# SPDX-License-Identifier: Apache-2.0
"""Trains on scikit-learn's digits across processes of this machine: a server and its workers over gloo.

Then does the same with dense asynchronous SGD and with plain SGD in one process, and compares all three in a table
and a page. Each process runs digits.py, beside this file.

    python example/demo.py --mode dgc --workers 4          (or: make demo MODE=dgc WORKERS=4)
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import time
from pathlib import Path

from demo_processes import ChildError, held_port, run

MODES = ("dgs", "gd", "dgc", "asgd", "sgd")
WITHOUT_MOMENTUM = ("gd", "asgd")
DENSE = ("asgd", "sgd")  # nothing is left out of what they send or do
CODECS = ("float32", "float16", "bfloat16", "int8", "level4", "level3", "level2", "sign")
FOR_DENSE = CODECS[:3]  # asgd keeps no rest of what the others round off
TRAINING_IMAGES = 1437
NOTE = """\
Accuracy and loss are those of the server's model on the 360 test images, samples are images; compression is
against the {dense:,} bytes of all parameters in float32. Each process has one thread. Between processes of
one machine bytes cost next to nothing: what they cost on a network is not in the samples/s."""


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mode", choices=MODES, default="dgs")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--density", type=float, default=0.01, help="of a push; 0.01: 1 %% of each large tensor"
    )
    parser.add_argument("--density-down", type=float, help="of what comes back; by default that of a push")
    parser.add_argument("--codec", choices=CODECS, default="float32")
    parser.add_argument(
        "--epochs", type=float, default=20, help="passes over the images, of all workers together"
    )
    parser.add_argument("--lr", type=float, default=0.05, help="falls to 0 over the run")
    parser.add_argument("--momentum", type=float, default=0.7)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out", type=Path, default=Path("out/demo"), help="a folder for table, page, runs and logs"
    )
    return parser


def steps(args: argparse.Namespace) -> int:
    """Steps of all workers together; the same number in every mode."""
    passes: float = args.epochs
    return max(1, round(passes * TRAINING_IMAGES / int(args.batch_size)))


def codec_of(mode: str, args: argparse.Namespace) -> str:
    return "float32" if mode == "asgd" and args.codec not in FOR_DENSE else args.codec


def run_dir(mode: str, args: argparse.Namespace) -> Path:
    """Where a mode's run is kept, under the name that it has in table and page."""
    name = "sgd, one process" if mode == "sgd" else f"{mode}, {plural(args.workers)}"
    return Path(args.out) / "runs" / name


def commands(mode: str, args: argparse.Namespace, port: int) -> dict[str, list[str]]:
    """A command line for each process of a run. The first shows and keeps what happens."""
    workers = 0 if mode == "sgd" else args.workers
    # What momentum adds up, lr/(1 - momentum), is what a method without it gets at once.
    lr = args.lr / (1 - args.momentum) if mode in WITHOUT_MOMENTUM else args.lr
    given = {
        "mode": mode,
        "world-size": workers + 1,
        "port": port,
        "density": args.density,
        "codec": codec_of(mode, args),
        "lr": lr,
        "momentum": 0.0 if mode in WITHOUT_MOMENTUM else args.momentum,
        "batch-size": args.batch_size,
        "max-version": steps(args),
        "seed": args.seed,
        "run-dir": run_dir(mode, args),
        "metrics-every": 0.2,
    }
    if mode not in DENSE:
        given["density-down"] = args.density_down or args.density
    common = [sys.executable, str(Path(__file__).with_name("digits.py"))]
    common += [f"--{name}={value}" for name, value in given.items()]
    names = ["server", *(f"worker {rank}" for rank in range(1, workers + 1))] if workers else ["trainer"]
    return {name: [*common, f"--rank={rank}"] for rank, name in enumerate(names)}


def plural(workers: int) -> str:
    return "1 worker" if workers == 1 else f"{workers} workers"


def describe(mode: str, args: argparse.Namespace) -> str:
    if mode == "sgd":
        return "sgd: one process, for comparison"
    down = args.density_down or args.density
    density = "dense" if mode in DENSE else f"{100 * args.density:g} % up, {100 * down:g} % down"
    return f"{mode}: a server and {plural(args.workers)}, {density}, {codec_of(mode, args)}"


def train(mode: str, args: argparse.Namespace) -> Path:
    """Runs one mode, which shows how it goes; returns the folder of its numbers."""
    folder = run_dir(mode, args)
    if (folder / "run.json").exists():
        shutil.rmtree(folder)  # of the demo before this one
    print(f"\n{describe(mode, args)}", flush=True)
    with held_port() as port:
        run(commands(mode, args, port), args.out / "logs" / mode)
    return folder


def compare(folders: list[Path], out: Path) -> str:
    """Writes table and page of the runs; returns the table."""
    from dgs.report import page, read, table  # only now, as it brings torch, which takes seconds

    runs = [read(folder) for folder in folders]
    result = f"{table(runs)}\n\n{NOTE.format(dense=runs[0].dense_bytes)}\n"
    (out / "table.md").write_text(result)
    (out / "report.html").write_text(page(runs))
    return result


def main() -> int:
    parser = options()
    args = parser.parse_args()
    if args.workers < 1:
        parser.error(f"--workers must be at least 1, got {args.workers}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that children are ended then, too
    began = time.monotonic()
    try:
        folders = [train(mode, args) for mode in dict.fromkeys((args.mode, "asgd", "sgd"))]
    except ChildError as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130
    print(f"\n{compare(folders, args.out)}")
    print(f"{time.monotonic() - began:.0f} s. Written: table.md, report.html, runs and logs in {args.out}/")
    return 0


if __name__ == "__main__":
    sys.exit(main())
