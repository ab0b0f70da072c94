# SPDX-License-Identifier: Apache-2.0
"""Is the simulator's throughput that of real processes? Predicts it, and then measures it on loopback.

python benchmarks/simulation.py [--workers 2 4 8] [--compute 0.1] [--steps 60] [--modes dgs asgd]

A gradient takes its time asleep, so that the machine's cores are not what limits the real run. What worker and server
take for an exchange is measured first, by the simulator's own parts in one thread; what the link takes, by a real run
with one worker. So what is predicted is how the rate grows with the workers.
"""

from __future__ import annotations

import argparse
import functools
import json
import logging
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from harness import table
from models import resnet18_shapes
from torch import Tensor, nn

import dgs
from dgs import config
from dgs.simulate import Always, Network, ServerCost, simulate
from dgs.simulate.host import Host
from dgs.simulate.node import Node, Task
from dgs.transport.address import held


class Net(nn.Module):
    """The tensors of a ResNet-18 scaled down, and a gradient that is the same random one each time."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.gradients: list[Tensor] = []
        for i, shape in enumerate(resnet18_shapes()):
            smaller = [max(1, n // scale) if n > 10 else n for n in shape]
            self.register_parameter(f"p{i}", nn.Parameter(torch.zeros(smaller)))
            self.gradients.append(torch.randn(smaller, generator=generator))

    def loss(self, _: object) -> Tensor:
        """A loss with that gradient."""
        terms = ((p * g).sum() for p, g in zip(self.parameters(), self.gradients, strict=True))
        return torch.stack(list(terms)).sum()


def forever(_: int) -> Iterator[None]:
    while True:
        yield None


def costs(mode: str, scale: int, steps: int) -> tuple[float, float]:
    """Median seconds that a worker and the server take for an exchange."""
    settings = {"mode": mode, "threads": 1, "heartbeat": 1e8, "heartbeat_timeout": 1e9}
    make = functools.partial(Net, scale)
    host = Host(make(), config.resolve(None, rank=0, world_size=2, **settings))
    task = Task(make, Net.loss, forever, 1e-6, 0.0, 0.0, None, settings | {"world_size": 2})
    node = Node(0, task, host, 0)
    node.connect()
    assert node.end is not None
    working, serving = [], []
    for _ in range(steps):
        node.gradient()
        began = time.perf_counter()
        (push,) = node.post()
        sent = time.perf_counter()
        replies = node.end.deliver(push)
        came = time.perf_counter()
        node.end.inbox.extend(replies)
        node.settle()
        working.append(time.perf_counter() - began - (came - sent))
        serving.append(came - sent)
    node.leave()
    return statistics.median(working), statistics.median(serving)


def predicted(
    mode: str, args: argparse.Namespace, workers: int, cost: tuple[float, float], link: float
) -> float:
    """Pushes per second by the simulator, once all workers are there; the link takes so long for both ways."""
    result = simulate(
        functools.partial(Net, args.scale), Net.loss, forever, workers=workers, max_version=args.steps * workers,
        lr=1e-6, mode=mode, compute=Always(args.compute + cost[0]), server=ServerCost(cost[1]),
        network=Network(latency=link / 2), every=args.steps * workers // 4,
    )  # fmt: skip
    return _rate([(p.time, p.version) for p in result.points])


def _rate(seen: list[tuple[float, int]]) -> float:
    """Versions per second between the first and the last of these."""
    (began, first), (ended, last) = seen[0], seen[-1]
    return (last - first) / (ended - began)


def measured(mode: str, args: argparse.Namespace, workers: int) -> float:
    """The same with a process for each worker, the server in this one."""
    with held() as port:
        return _rate(_run(mode, args, workers, port))


def _run(mode: str, args: argparse.Namespace, workers: int, port: int) -> list[tuple[float, int]]:
    own = [sys.executable, __file__, "--scale", str(args.scale), "--compute", str(args.compute)]
    shared = ["--modes", mode, "--port", str(port), "--world-size", str(workers + 1)]
    environ = os.environ | {"OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen([*own, *shared, "--rank", str(rank)], env=environ) for rank in range(1, workers + 1)
    ]
    seen: list[tuple[float, int]] = []
    dgs.init_server(
        None, Net(args.scale), mode=mode, world_size=workers + 1, port=port, max_version=args.steps * workers,
        on_version=lambda snapshot: seen.append((time.perf_counter(), snapshot.version)),
        every=args.steps * workers // 4, threads=1, rank=0,
    )  # fmt: skip
    for process in processes:
        process.wait()
    return seen


def work(args: argparse.Namespace) -> None:
    """A worker's process."""
    net = Net(args.scale)
    settings = {"mode": args.modes[0], "rank": args.rank, "world_size": args.world_size, "port": args.port}
    with dgs.GradientSGD(net.parameters(), 1e-6, net, threads=1, **settings) as optimizer:
        for p, gradient in zip(net.parameters(), net.gradients, strict=True):
            p.grad = gradient.clone()
        while not optimizer.done:
            time.sleep(args.compute)
            optimizer.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--modes", nargs="+", default=["dgs", "asgd"])
    parser.add_argument("--compute", type=float, default=0.1, help="seconds of a gradient")
    parser.add_argument("--steps", type=int, default=60, help="of each worker")
    parser.add_argument("--scale", type=int, default=4, help="ResNet-18's channels are divided by it")
    parser.add_argument("--out", type=Path, help="a file for the figures, as JSON")
    for name in ("rank", "port", "world-size"):
        parser.add_argument(f"--{name}", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    torch.set_num_threads(1)
    if args.rank:
        work(args)
        return
    rows = []
    for mode in args.modes:
        cost = costs(mode, args.scale, 30)
        link = max(0.0, 1 / measured(mode, args, 1) - 1 / predicted(mode, args, 1, cost, 0.0))
        for workers in args.workers:
            expected, seen = predicted(mode, args, workers, cost, link), measured(mode, args, workers)
            took = (1e3 * seconds for seconds in (*cost, link))
            rows.append((f"{mode} × {workers}", *took, expected, seen, 100 * (expected / seen - 1)))
    columns = ("run", "worker ms", "server ms", "link ms", "predicted/s", "measured/s", "error %")
    load = Path("/proc/loadavg").read_text().split()[0]
    numel = sum(p.numel() for p in Net(args.scale).parameters())
    print(
        table(f"{numel:,} parameters, a gradient in {args.compute:g} s, load average {load}", columns, rows)
    )
    if args.out:
        args.out.write_text(json.dumps([dict(zip(columns, row, strict=True)) for row in rows], indent=1))


if __name__ == "__main__":
    main()
