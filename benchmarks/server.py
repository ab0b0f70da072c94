# SPDX-License-Identifier: Apache-2.0
"""Whole exchanges against a server, in one process: in-process queues and gloo over loopback, against dense ASGD.

python benchmarks/server.py [--workers 1 4] [--steps 20]
"""

from __future__ import annotations

import argparse
import logging
import threading
import time
from datetime import timedelta

import torch
from harness import table
from models import resnet18_shapes
from torch import nn

import dgs
from dgs.transport import GlooListener, InProcessListener, Link, Listener, dial


def model() -> nn.Module:
    """ResNet-18's tensors without its arithmetic."""
    net = nn.Module()
    for i, shape in enumerate(resnet18_shapes()):
        net.register_parameter(f"p{i}", nn.Parameter(torch.zeros(shape)))
    return net


def worker(
    rank: int, mode: str, steps: int, connect: object, times: list[float], traffic: list[dgs.Traffic]
) -> None:
    """Steps on random gradients, timing each."""
    net = model()
    generator = torch.Generator().manual_seed(rank)
    with dgs.GradientSGD(
        net.parameters(), lr=0.01, model=net, momentum=0.0, mode=mode, rank=rank, dial=connect
    ) as optimizer:
        for p in net.parameters():
            p.grad = torch.randn(p.shape, generator=generator)
        optimizer.step()
        for _ in range(steps):
            began = time.perf_counter()
            optimizer.step()
            times.append(time.perf_counter() - began)
        traffic.append(optimizer.traffic)


def run(transport: str, mode: str, workers: int, steps: int) -> tuple[object, ...]:
    """One server and its workers; every worker's weights end as the server's mirror, which each digest checks."""
    listener: Listener = InProcessListener() if transport == "in-process" else GlooListener("127.0.0.1", 0)

    def connect(timeout: timedelta) -> Link:
        if isinstance(listener, InProcessListener):
            return listener.dial()
        assert isinstance(listener, GlooListener)
        return dial("127.0.0.1", listener.port, timeout)

    times: list[float] = []
    traffic: list[dgs.Traffic] = []
    threads = [
        threading.Thread(target=worker, args=(rank, mode, steps, connect, times, traffic))
        for rank in range(1, workers + 1)
    ]
    for thread in threads:
        thread.start()
    began = time.perf_counter()
    report = dgs.init_server(None, model(), listener=listener, mode=mode, world_size=workers + 1)
    seconds = time.perf_counter() - began
    for thread in threads:
        thread.join()
    if report.version != workers * (steps + 1):
        raise SystemExit(f"{report.version} pushes were applied, not {workers * (steps + 1)}")
    exchanges = sum(t.exchanges for t in traffic)
    up, down = (
        sum(getattr(t, name) for t in traffic) / exchanges / 1e6 for name in ("bytes_up", "bytes_down")
    )
    step = 1e3 * torch.tensor(times).median().item()
    waiting = 1e3 * sum(t.waiting for t in traffic) / exchanges
    return f"{transport} {mode} × {workers}", step, waiting, exchanges / seconds, up, down


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    torch.set_num_threads(args.threads)
    rows = [
        run(transport, mode, workers, args.steps)
        for workers in args.workers
        for transport in ("in-process", "gloo")
        for mode in ("dgs", "asgd")
    ]
    columns = ("exchange", "step ms", "waiting ms", "exchanges/s", "MB up", "MB down")
    print(table("ResNet-18's 11.17 M parameters, gradients at hand, workers as threads", columns, rows))


if __name__ == "__main__":
    main()
