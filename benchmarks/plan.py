# SPDX-License-Identifier: Apache-2.0
"""Does dgs.plan foretell real runs? Predicts gradients a second, and then measures them over links of a given rate.

    python benchmarks/plan.py [--rates 20mbit 100mbit] [--workers 1 2 4] [--methods dgs asgd all-reduce]

Every process is a machine of its own at a switch (shaped.py): the server, the workers. A gradient takes its time
asleep, so that this machine's cores are not the limit; asynchronous workers' gradients take anything up to twice that
time, or those that began together would stay in step. What is predicted stands on the costs that dgs.plan measures
here, and on the link as its probe finds it, between two of the machines. Runs that would take too long are left out.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
from harness import table
from shaped import Shaped, ShapingError
from torch import Tensor, distributed, nn

import dgs
from dgs.plan import Case, Costs, Link
from dgs.plan.measure import measured as costs_of
from dgs.plan.probe import answer, measure
from dgs.plan.rows import ALL_REDUCE, exchanged, reduced
from dgs.plan.shapes import resnet18_shapes
from dgs.server import desks
from dgs.transport import GlooListener, dial
from dgs.units import bits, rate

PORT = 29700
WARM = 2  # gradients of each worker before those that count
LEAST, MOST = 10, 40  # gradients of each worker in a run
COLUMNS = ("link", "run", "predicted/s", "measured/s", "error %", "limited by")


class Net(nn.Module):
    """The tensors of a ResNet-18 scaled down; every gradient is a new random one."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        for i, shape in enumerate(resnet18_shapes()):
            smaller = [max(1, n // scale) if n > 10 else n for n in shape]
            self.register_parameter(f"p{i}", nn.Parameter(torch.zeros(smaller)))

    def gradient(self, seconds: float, generator: torch.Generator) -> None:
        """Takes so long for it."""
        until = time.perf_counter() + seconds
        for p in self.parameters():
            p.grad = torch.randn(p.shape, generator=generator)
        time.sleep(max(0.0, until - time.perf_counter()))


def layout(scale: int) -> dgs.layout.Layout:
    return dgs.layout.Layout((name, tuple(p.shape)) for name, p in Net(scale).named_parameters())


# What runs on one of the machines, in a process of its own.


def listen(args: argparse.Namespace) -> None:
    listener = GlooListener(args.master, PORT)
    answer(listener, 1)
    listener.close()


def probe(args: argparse.Namespace) -> None:
    link = dial(args.master, PORT, timedelta(seconds=60))
    found = measure(link)
    link.close()
    print(json.dumps([found.bandwidth, found.latency]))


def serve(args: argparse.Namespace) -> None:
    """Prints the versions a second, from the second of every worker to the last."""
    seen: list[tuple[float, int]] = []
    dgs.init_server(
        None, Net(args.scale), rank=0, mode=args.methods[0], world_size=args.world, master=args.master, port=PORT,
        max_version=args.versions, every=1, threads=1, progress=False,
        on_version=lambda snapshot: seen.append((time.perf_counter(), snapshot.version)),
    )  # fmt: skip
    counted = [(when, version) for when, version in seen if version >= WARM * (args.world - 1)]
    (began, first), (ended, last) = counted[0], counted[-1]
    print(json.dumps((last - first) / (ended - began)))


def work(args: argparse.Namespace) -> None:
    net, generator = Net(args.scale), torch.Generator().manual_seed(args.rank)
    settings = {"mode": args.methods[0], "world_size": args.world, "master": args.master, "port": PORT}
    with dgs.GradientSGD(net.parameters(), 1e-3, net, rank=args.rank, threads=1, **settings) as optimizer:
        wait_for_all(args.meet, args.rank, args.world - 1)
        for seconds in times(args.compute, args.rank):
            net.gradient(seconds, generator)
            optimizer.step()
            if optimizer.done:
                break


def times(mean: float, seed: int) -> Iterator[float]:
    """Seconds of gradients: evenly between nothing and twice the mean, which eight together have."""
    draw = random.Random(seed)
    while True:
        yield from draw.sample([mean * (2 * i + 1) / 8 for i in range(8)], 8)


def wait_for_all(meet: Path, rank: int, workers: int) -> None:
    """Returns once each worker is here: processes of one machine take their turns to start."""
    (meet / str(rank)).touch()
    while len(list(meet.iterdir())) < workers:
        time.sleep(0.02)


def reduce(args: argparse.Namespace) -> None:
    """Data parallelism of one bucket, as DistributedDataParallel reduces it; rank 0 prints the rate."""
    distributed.init_process_group(
        "gloo", init_method=f"tcp://{args.master}:{PORT}", rank=args.rank, world_size=args.world
    )
    net, generator = Net(args.scale), torch.Generator().manual_seed(args.rank)
    optimizer = torch.optim.SGD(net.parameters(), 1e-3, momentum=0.9, weight_decay=1e-4)
    steps = args.versions // args.world
    for step in range(steps):
        if step == WARM:
            began = time.perf_counter()
        net.gradient(args.compute, generator)
        flat = torch.cat([_gradient(p).reshape(-1) for p in net.parameters()])
        distributed.all_reduce(flat)
        for p, part in zip(net.parameters(), flat.split([p.numel() for p in net.parameters()]), strict=True):
            _gradient(p).copy_(part.view(p.shape))
        optimizer.step()
    if args.rank == 0:
        print(json.dumps((steps - WARM) * args.world / (time.perf_counter() - began)))


def _gradient(p: Tensor) -> Tensor:
    assert p.grad is not None
    return p.grad


ROLES = {"listen": listen, "probe": probe, "serve": serve, "work": work, "reduce": reduce}


# What sets them up, and compares.


@contextmanager
def started(network: Shaped, roles: list[tuple[str, ...]]) -> Iterator[list[subprocess.Popen[str]]]:
    """A process on each machine, from the first on; none is left."""
    quiet = {"TORCH_CPP_LOG_LEVEL": "ERROR"}  # that an address has no name
    environ = os.environ | quiet | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "eth"}
    processes = []
    try:
        for host, options in enumerate(roles):
            command = network.command(
                host, sys.executable, __file__, "--master", network.address(0), *options
            )
            processes.append(subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True))
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def told(network: Shaped, roles: list[tuple[str, ...]], who: int) -> object:
    """Runs a process on each machine; returns what the one of number `who` prints."""
    with started(network, roles) as processes:
        printed, _ = processes[who].communicate(timeout=600)
        for process in processes:
            if process.wait(120):
                raise SystemExit(f"a process of {roles} failed")
    return json.loads(printed)


def link_of(network: Shaped) -> Link:
    """The link between two of the machines, as the plan's own probe finds it."""
    found = told(network, [("--role", "listen"), ("--role", "probe")], 1)
    assert isinstance(found, list)
    return Link(*found)


def measured(network: Shaped, method: str, workers: int, versions: int, args: argparse.Namespace) -> float:
    """Gradients a second of a real run."""
    with tempfile.TemporaryDirectory() as meet:
        return _measured(network, method, workers, args, ("--versions", str(versions), "--meet", meet))


def _measured(
    network: Shaped, method: str, workers: int, args: argparse.Namespace, run: tuple[str, ...]
) -> float:
    shared = ("--methods", method, "--scale", str(args.scale), "--compute", str(args.compute), *run)
    if method == ALL_REDUCE:
        own = ("--role", "reduce", "--world", str(workers))
        roles = [(*own, "--rank", str(rank), *shared) for rank in range(workers)]
    else:
        world = ("--world", str(workers + 1))
        roles = [("--role", "serve", *world, *shared)]
        roles += [("--role", "work", *world, "--rank", str(rank), *shared) for rank in range(1, workers + 1)]
    found = told(network, roles, 0)
    assert isinstance(found, float)
    return found


def compare(network: Shaped, costs: Costs, args: argparse.Namespace) -> list[tuple[object, ...]]:
    """All methods and numbers of workers on one network."""
    link, rows = link_of(network), []
    print(
        f"{bits(network.rate)}: {bits(link.bandwidth)} of payload, {1e3 * link.latency:.2f} ms",
        file=sys.stderr,
    )
    for method in args.methods:
        for workers in args.workers:
            if method == ALL_REDUCE and workers == 1:
                continue  # moves nothing
            case = Case(layout(args.scale), workers, args.compute, link, costs, cores=desks.for_cores())
            row = (
                reduced(case, "float32") if method == ALL_REDUCE else exchanged(case, method, 0.01, "float32")
            )
            if LEAST * workers / row.rate > args.patience:
                continue
            versions = workers * int(max(LEAST, min(MOST, args.seconds * row.rate / workers)))
            seen = measured(network, method, workers, versions, args)
            error = 100 * (row.rate / seen - 1)
            rows.append((bits(network.rate), f"{method} × {workers}", row.rate, seen, error, row.limited_by))
            print("  ".join(map(str, rows[-1])), file=sys.stderr)
    return rows


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--rates", nargs="+", default=["3mbit", "20mbit", "60mbit"], help="of every link, headers and all"
    )
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--methods", nargs="+", default=["dgs", "asgd", ALL_REDUCE])
    parser.add_argument("--compute", type=float, default=0.5, help="seconds of a gradient")
    parser.add_argument("--seconds", type=float, default=25.0, help="of a measured run, about")
    parser.add_argument("--patience", type=float, default=80.0, help="seconds that a run may take")
    parser.add_argument("--scale", type=int, default=4, help="ResNet-18's channels are divided by it")
    parser.add_argument("--out", type=Path, help="a file for the figures, as JSON")
    parser.add_argument("--role", choices=ROLES, help=argparse.SUPPRESS)
    parser.add_argument("--master", help=argparse.SUPPRESS)
    parser.add_argument("--meet", type=Path, help=argparse.SUPPRESS)
    for name in ("rank", "world", "versions"):
        parser.add_argument(f"--{name}", type=int, help=argparse.SUPPRESS)
    return parser


def main() -> None:
    args = options().parse_args()
    logging.basicConfig(level=logging.ERROR)
    torch.set_num_threads(1)
    if args.role:
        ROLES[args.role](args)
        return
    costs, rows = costs_of(layout(args.scale), torch.device("cpu")), []
    try:
        for named in args.rates:
            with Shaped(1 + max(args.workers), rate(named)) as network:
                rows += compare(network, costs, args)
    except ShapingError as error:
        sys.exit(f"benchmarks/plan.py: links cannot be shaped here: {error}")
    load, numel = Path("/proc/loadavg").read_text().split()[0], layout(args.scale).numel
    print(
        table(f"{numel:,} parameters, a gradient in {args.compute:g} s, load average {load}", COLUMNS, rows)
    )
    if args.out:
        args.out.write_text(json.dumps([dict(zip(COLUMNS, row, strict=True)) for row in rows], indent=1))


if __name__ == "__main__":
    main()
