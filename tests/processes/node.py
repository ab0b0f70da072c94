# SPDX-License-Identifier: Apache-2.0
"""A server or a worker as a process of its own: `node.py OPTIONS` runs one, `node.py` alone forks them on request.

Importing torch takes seconds, so the tests keep one process that has imported it and forks: it reads a JSON command a
line, {"options": …, "out": path} to start one or {} to ask, and answers with [pid started, {pid: exit status}].
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from contextlib import nullcontext
from typing import Any

import torch
import torch._dynamo  # torch's optimizers import it at their first use, which takes seconds
from torch import nn

import dgs
from dgs import introduction, protocol
from dgs_ext import wire


def say(event: str, **values: Any) -> None:
    print(json.dumps({"event": event} | values), flush=True)


def build(seed: int, hidden: int) -> nn.Module:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(20, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, 5))
    net[1].running_mean.fill_(float(seed))
    return net


def data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(512, 20, generator=generator)
    return x, (x @ torch.randn(20, 5, generator=generator)).argmax(1)


def loss_of(net: nn.Module) -> float:
    net.eval()
    x, y = data()
    with torch.no_grad():
        return float(nn.functional.cross_entropy(net(x), y))


def digest(net: nn.Module) -> list[str]:
    """Hashes of the parameters and buffers."""
    return [f"{wire.xxh64(t.detach()):x}" for t in (*net.parameters(), *net.buffers())]


def serve(options: dict[str, Any]) -> None:
    net = build(0, options.get("hidden", 64))
    before = loss_of(net)
    say("serving", digest=digest(net))
    report = dgs.init_server(None, net, rank=0, **options["settings"])
    say(
        "report",
        version=report.version,
        workers=sorted([w.rank, w.outcome] for w in report.workers),
        reasons=[w.reason for w in report.workers],
        before=before,
        after=loss_of(net),
        mean=float(net[1].running_mean.mean()),
    )


def work(options: dict[str, Any]) -> None:
    for module, name, value in ((protocol, "PROTOCOL", "protocol"), (wire, "VERSION", "wire")):
        setattr(module, name, options.get(value, getattr(module, name)))
    if "codecs" in options:
        introduction.CODECS = dict.fromkeys(options["codecs"])
    net = build(options.get("seed", 5), options.get("hidden", 64))
    optimizer = dgs.GradientSGD(net.parameters(), 0.05, net, momentum=0.7, **options["settings"])
    say("joined", rank=optimizer.rank, version=optimizer.version, digest=digest(net))
    with optimizer if options.get("with") else nullcontext():
        train(net, optimizer, options)
    if options.get("close", True):
        optimizer.close()
    say("done", version=optimizer.version, staleness=optimizer.traffic.staleness)


def train(net: nn.Module, optimizer: dgs.GradientSGD, options: dict[str, Any]) -> None:
    x, y = data()
    generator = torch.Generator().manual_seed(optimizer.rank)
    net.train()
    for step in range(options.get("steps", 100)):
        batch = torch.randint(0, len(x), (32,), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x[batch]), y[batch]).backward()
        if options.get("busy_at") == step:
            compute_for(options["busy"])
        optimizer.step()
        if step % 10 == 0:
            say("step", step=step, version=optimizer.version)
        time.sleep(options.get("pause", 0.0))
        if options.get("raise_at") == step:
            raise RuntimeError("as the test asked")


def compute_for(seconds: float) -> None:
    """A step that takes its time: layer after layer."""
    say("busy")
    layer, deadline = torch.eye(256), time.monotonic() + seconds
    while time.monotonic() < deadline:
        layer = layer @ layer


def main(options: dict[str, Any]) -> None:
    os.environ.update(options.get("environ", {}))
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stdout)
    if options["role"] == "server" or (options["role"] == "torchrun" and os.environ["RANK"] == "0"):
        serve(options)
    else:
        work(options)


def fork_on_request() -> dict[str, Any]:
    """Answers commands until stdin ends; returns the options in each forked child."""
    ended: dict[int, int] = {}
    for line in sys.stdin:
        command = json.loads(line)
        pid = 0
        if "options" in command:
            pid = os.fork()
            if pid == 0:
                out = os.open(command["out"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                os.dup2(out, 1)
                os.dup2(out, 2)
                return dict(command["options"])
        while True:
            try:
                found, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if found == 0:
                break
            ended[found] = os.waitstatus_to_exitcode(status)
        print(json.dumps([pid, ended]), flush=True)
    sys.exit()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]) if len(sys.argv) > 1 else fork_on_request())
