# SPDX-License-Identifier: Apache-2.0
"""A whole program, to copy: put in your model and data, and start it once per process.

    python -m dgs.launch --workers 2 own_loop.py                  # a server and two workers, here
    python own_loop.py --rank 1 --world-size 3 --master ADDRESS   # one of several machines; rank 0 serves
"""

import argparse

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import dgs
from dgs.config import resolve


def batch(size: int) -> tuple[Tensor, Tensor]:
    """Points of the plane, and which of four rings each lies in: learned in some hundred steps."""
    points = torch.rand(size, 2) * 2 - 1
    return points, (points.norm(dim=1) * 3).long().clamp(max=3)


parser = argparse.ArgumentParser()
parser.add_argument("--rank", type=int, help="0 serves, 1.. work; else as dgs.launch, torchrun or srun say")
parser.add_argument("--world-size", type=int, help="the server and all workers; else the same")
parser.add_argument("--master", help="the server's address, on all machines; else $MASTER_ADDR, or this machine")
parser.add_argument("--max-version", type=int, default=1500, help="steps of all workers together")
args = parser.parse_args()
rank = resolve(args).rank or 0

torch.manual_seed(rank)  # each worker draws points of its own; all begin with the server's weights
net = nn.Sequential(nn.Linear(2, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 4))
if rank == 0:
    dgs.init_server(args, net)  # returns when the workers are done, and net is trained
    points, rings = batch(10_000)
    print(f"accuracy {(net(points).argmax(1) == rings).float().mean():.1%}")
else:
    with dgs.GradientSGD(net.parameters(), lr=0.1, model=net, momentum=0.7, args=args) as optimizer:
        while not optimizer.done:
            points, rings = batch(64)
            optimizer.zero_grad()
            cross_entropy(net(points), rings).backward()
            optimizer.step()
        print(f"{optimizer.traffic.bytes_up / optimizer.traffic.exchanges:,.0f} bytes up per exchange")
