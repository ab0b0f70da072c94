# SPDX-License-Identifier: Apache-2.0
"""What surrounds the Python blocks of each page when they are run: a net, data, a server and workers in threads."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from textwrap import indent
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

import dgs

Names = dict[str, Any]
SECONDS = 120


def make_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 40), nn.ReLU(), nn.Linear(40, 3))


def batches(count: int = 5) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(torch.randn(4, 8), torch.randint(3, (4,))) for _ in range(count)]


def step_through(net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """The loop that a page leaves to its reader."""
    for images, labels in batches():
        optimizer.zero_grad()
        cross_entropy(net(images), labels).backward()
        optimizer.step()


def together(*roles: tuple[str, Names]) -> list[Names]:
    """Run each piece of code in a thread, with its names; return them."""
    with ThreadPoolExecutor(len(roles)) as pool:
        for done in [pool.submit(exec, compile(code, "<page>", "exec"), names) for code, names in roles]:
            done.result(SECONDS)
    return [names for _, names in roles]


def readme(code: list[str]) -> None:
    begin, pause, resume, use = code
    _first_loop(begin)
    state = _paused(pause)
    serve = "report = dgs.init_server(None, net, state=state, checkpoint_dir='checkpoints')"
    net, more = make_net(), "\nstep_through(net, optimizer); optimizer.close()"
    server, worker = together(
        (serve, {"dgs": dgs, "net": net, "state": state}),
        (
            resume + more,
            {"dgs": dgs, "net": make_net(), "rank": 1, "path": "worker", "step_through": step_through},
        ),
    )
    assert server["report"].version == 10 and worker["optimizer"].traffic.exchanges == 5
    bare = make_net()
    exec(use, {"net": bare})
    assert all(map(torch.equal, bare.parameters(), net.parameters()))


def _first_loop(code: str) -> None:
    def role(rank: int) -> tuple[str, Names]:
        args = SimpleNamespace(rank=rank, world_size=2, lr=0.1, momentum=0.7, weight_decay=0.0)
        return code, {"args": args, "net": make_net()}

    _, worker = together(role(0), role(1))
    assert isinstance(worker["optimizer"], dgs.GradientSGD)


def _paused(code: str) -> Any:
    """The server's state once a worker has paused after five steps, and saved its own."""
    begin = """
optimizer = dgs.GradientSGD(net.parameters(), 0.1, net, momentum=0.7, rank=1)
step_through(net, optimizer)
"""
    server, _ = together(
        ("report = dgs.init_server(None, net)", {"dgs": dgs, "net": make_net()}),
        (begin + code, {"dgs": dgs, "net": make_net(), "path": "worker", "step_through": step_through}),
    )
    dgs.checkpoint.save("server", server["report"].state)
    return dgs.checkpoint.load("server")


def index(code: list[str]) -> None:
    def role(rank: int) -> tuple[str, Names]:
        return code[0], {"rank": rank, "net": make_net(), "train": step_through}

    server, worker = together(role(0), role(1))
    assert worker["optimizer"].version == 5
    assert not all(map(torch.equal, server["net"].parameters(), make_net().parameters()))


def quickstart(code: list[str]) -> None:
    serve, work, account = code

    def worker(rank: int) -> Names:
        return {"net": make_net(), "rank": rank, "batches": batches(), "cross_entropy": cross_entropy}

    server, *workers = together((serve, {"net": make_net()}), (work, worker(1)), (work, worker(2)))
    assert server["report"].version == 10
    exec(account, workers[0])
    assert workers[0]["sent"].exchanges == 5


def choosing(code: list[str]) -> None:
    net = make_net()
    optimizer = dgs.GradientSGD(net.parameters(), 0.3, net, momentum=0.7, mode="sgd", max_version=10)
    step_through(net, optimizer)  # half of the run
    exec(code[0], {"optimizer": optimizer, "math": math})
    assert math.isclose(optimizer.param_groups[0]["lr"], 0.15)


def metrics(code: list[str]) -> None:
    told, look = code
    net = make_net()
    watch = {"net": make_net(), "accuracy": lambda net: 0.5}
    exec(look, watch)
    serve = "dgs.init_server(None, net, run_dir='run', metrics_every=0.01, on_version=look, every=5)"
    work = """
with dgs.GradientSGD(net.parameters(), 0.1, net) as optimizer:
    for images, labels in batches:
        optimizer.zero_grad()
        loss = cross_entropy(net(images), labels)
        loss.backward()
""" + indent(told, " " * 8)
    worker = {"dgs": dgs, "net": net, "batches": batches(), "cross_entropy": cross_entropy}
    together((serve, {"dgs": dgs, "net": make_net(), "look": watch["look"]}), (work, worker))
    found = Path("run/evaluations.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["values"]["accuracy"] for line in found] == [0.5]


STAGES: dict[str, Callable[[list[str]], None]] = {
    "README.md": readme,
    "docs/choosing.md": choosing,
    "docs/index.md": index,
    "docs/metrics.md": metrics,
    "docs/quickstart.md": quickstart,
}
