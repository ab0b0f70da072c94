# SPDX-License-Identifier: Apache-2.0
"""The server's exchange, stage by stage, and what it costs, against plain torch; and the transport against raw gloo.

    python benchmarks/server.py                                  # ResNet-18; 1, 4, 16, 32 worker processes; minutes
    python benchmarks/server.py --workers 1 4 --parts exchange   # some
    python benchmarks/server.py --page docs/benchmarks.md        # all, into the page
    python benchmarks/server.py --parts flat --model tiny --workers 4 --exchanges 100000     # a few minutes
    python benchmarks/server.py --smoke                          # seconds

exchange: a server and workers, each in a process, over gloo on loopback, that only exchange. Every push
carries a digest of a part of its worker's weights, which the server compares with its mirror, and in the end all are
compared whole. The stages follow one another without a gap, from the worker's first byte to its answer. All settings
are the defaults; once more with float32 down, and with answers as small as pushes. `plain` is the same server with
index, subtract, topk for each tensor and scatter in plain torch; as that knows float32 alone, it is compared with
this library with `codec_down="float32"`: the same traffic.
pull: from the lock to the encoded frame, in a desk's room, against the memory floor (floors.py) and plain torch.
transport: frames over a link against raw gloo, on the same connection.
flat, only if it is asked for: the memory of the server's process on its way through many exchanges.
Contestants take turns; times are medians, of the transport lower quartiles.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import flat
import models
import pull_path
import server_page
import torch
import transport
from exchange_processes import Job, Outcome, run
from exchange_stages import STAGES
from harness import table
from report import machine
from server_plot import draw

PARTS = ("exchange", "pull", "transport")  # and flat
PLAIN_UP_TO = 4  # workers; more in plain torch take minutes and show the same


def alone(job: Job) -> Outcome:
    """A run in a process of its own, which holds no memory that another run has left."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(run, job).result()


def exchanges(args: argparse.Namespace) -> list[Outcome]:
    """For each number of workers this library as it is by default, with float32 down, also in as small answers as
    pushes, and beside plain torch with the same traffic.
    """
    done = []
    for workers in args.workers:
        job = Job(
            args.model,
            workers,
            max(args.exchanges // workers, 4),
            args.density,
            args.codec,
            threads=args.threads,
        )
        done.append(alone(job))
        if args.codec == "float32":
            same = replace(job, codec_down="float32")
            done.append(alone(same))
            done.append(alone(replace(same, density_down=args.density)))
            if workers <= PLAIN_UP_TO:
                done.append(alone(replace(same, plain=True, exchanges=max(job.exchanges // 4, 4))))
    return done


def record(outcome: Outcome, numel: int) -> dict[str, Any]:
    """A run's figures; memory in units of (workers + 1) × 4 bytes per parameter, θ being one of them."""
    job = outcome.job
    copies = 4 * numel
    return asdict(job) | {
        "milliseconds": dict(zip(STAGES, outcome.medians, strict=True)),
        "latency ms": outcome.latency,
        "exchanges/s": outcome.exchanges / outcome.seconds,
        "server CPU ms": 1e3 * outcome.cpu / outcome.exchanges,
        "MB up": outcome.bytes_up / 1e6,
        "MB down": outcome.bytes_down / 1e6,
        "memory": (outcome.memory + copies) / (copies * (job.workers + 1)),
        "MB besides": (outcome.memory - copies * job.workers) / 1e6,
        "threads": outcome.threads,
    }


def show_exchanges(rows: Sequence[dict[str, Any]], numel: int) -> None:
    """The table of the exchanges."""
    columns = ("exchange", *STAGES, "whole ms", "per s", "CPU ms", "MB up", "MB down", "memory")
    cells = [
        (
            f"{server_page.name_of(r)} × {r['workers']}",
            *r["milliseconds"].values(),
            *(
                r[name]
                for name in ("latency ms", "exchanges/s", "server CPU ms", "MB up", "MB down", "memory")
            ),
        )
        for r in rows
    ]
    title = f"{rows[0]['model']}, {numel:,} parameters, {100 * rows[0]['density']:g} % up; medians in milliseconds"
    print(table(f"\n{title}; memory in units of (workers + 1) × 4 bytes a parameter", columns, cells))
    for r in [r for r in rows if not r["plain"]]:
        met = "met" if r["memory"] <= 1.05 else "NOT met"
        who = f"{server_page.name_of(r)}, {r['workers']} workers"
        print(f"  asked: memory <= 1.05, {who}: {met}, {r['memory']:.3f}, {r['MB besides']:.0f} MB besides")


def show_pulls(rows: Sequence[pull_path.PullPath]) -> None:
    """The table of the pull's path, and what is asked of it."""
    columns = ("threads", "pull ms", "with frame", "floor ms", "× floor", "topk ms", "× faster")
    cells = [
        (r.threads, r.pull_ms, r.with_frame_ms, r.floor_ms, r.times_floor, r.plain_ms, r.faster) for r in rows
    ]
    print(table("\nA pull at 1 %, from the lock to the encoded frame", columns, cells))
    for r in [r for r in rows if r.model == "resnet18"]:
        met = "met" if r.times_floor <= 1.5 and r.faster >= 50 else "NOT met"
        print(f"  asked: <= 1.5 × the floor and >= 50 × faster, {r.threads} threads: {met}")


def show_transport(rows: Sequence[transport.Row]) -> None:
    """The table of the transport, and what is asked of it."""
    cells = [(f"{r.size:,}", r.raw_ms, r.link_ms, r.size / r.link_ms / 1e3, r.share) for r in rows]
    print(
        table(
            "\nA frame over gloo (the first: half a round trip)",
            ("bytes", "raw ms", "link ms", "MB/s", "share"),
            cells,
        )
    )
    large = [r.share for r in rows if r.size >= 256 * transport.KIB]
    if large:
        met = "met" if min(large) >= 0.7 else "NOT met"
        print(f"  asked: >= 0.7 of raw gloo from 256 KiB on: {met}, the least {min(large):.2f}")
    added = rows[0].link_ms - rows[0].raw_ms
    print(f"  asked: <= 0.3 ms added to a small one: {'met' if added <= 0.3 else 'NOT met'}, {added:.3f} ms")


def show_flat(job: Job, points: Sequence[flat.Point]) -> None:
    """The table of the server's memory over exchanges, and what is asked of it."""
    cells = [(f"{p.exchanges:,}", f"{p.megabytes:.1f}", p.threads) for p in points]
    title = (
        f"\nThe server's process with {job.workers} workers, {models.layout(job.model).numel:,} parameters"
    )
    print(table(title, ("exchanges", "MB", "threads"), cells))
    grown = flat.grown(points)
    met = "met" if grown <= 0.01 else "NOT met"
    print(f"  asked: flat, the second half at most 1 % over the first tenth: {met}, {100 * grown:+.1f} %")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", choices=models.SHAPES, default="resnet18")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4, 16, 32])
    parser.add_argument("--exchanges", type=int, default=320, help="of all workers together, in each run")
    parser.add_argument("--density", type=float, default=0.01)
    parser.add_argument("--codec", default="float32")
    parser.add_argument("--threads", type=int, default=1, help="torch's, at each of the server's desks")
    parser.add_argument("--repeats", type=int, default=15, help="rounds of pull and transport")
    parser.add_argument("--parts", nargs="+", choices=(*PARTS, "flat"), default=list(PARTS))
    parser.add_argument("--out", type=Path, default=Path("out/server"), help="folder for JSON and plot")
    parser.add_argument(
        "--page", type=Path, help="docs/benchmarks.md: write the tables there, JSON and plot beside it"
    )
    parser.add_argument("--smoke", action="store_true", help="a tiny model, a moment of each part")
    args = parser.parse_args(arguments)
    if args.smoke:
        args.model, args.workers, args.exchanges, args.repeats = "tiny", [2], 8, 1
    return args


def main() -> None:
    args = parse()
    logging.basicConfig(level=logging.ERROR)
    numel, cores = models.layout(args.model).numel, len(os.sched_getaffinity(0))
    whole: dict[str, Any] = {"machine": machine(torch.device("cpu"))}
    print(
        f"{whole['machine']['cpu']}, {cores} cores, torch {torch.__version__}, load {os.getloadavg()[0]:.2f}"
    )
    if "transport" in args.parts:
        sizes = transport.SIZES[:3] if args.smoke else transport.SIZES
        rows = transport.measure(sizes, args.repeats)
        show_transport(rows)
        whole["transport"] = [asdict(r) for r in rows]
    if "pull" in args.parts:
        pulls = [pull_path.measure(args.model, n, args.repeats) for n in sorted({1, cores})]
        show_pulls(pulls)
        whole["pull"] = [asdict(r) for r in pulls]
    if "exchange" in args.parts:
        whole["exchange"] = [record(outcome, numel) for outcome in exchanges(args)]
        show_exchanges(whole["exchange"], numel)
    if "flat" in args.parts:
        job = Job(
            args.model, max(args.workers), args.exchanges // max(args.workers), args.density, args.codec
        )
        points = flat.measure(job)
        show_flat(job, points)
        whole["flat"] = [asdict(point) for point in points]
    whole["machine"]["load at the end"] = os.getloadavg()[0]
    folder: Path = args.out if args.page is None else args.page.parent
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "server.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    if "exchange" in whole:
        draw(whole["exchange"], whole["machine"], folder / "server.png")
    if args.page is not None:
        server_page.write(args.page, whole)
    print(f"\n{folder / 'server.json'}")


if __name__ == "__main__":
    main()
