# SPDX-License-Identifier: Apache-2.0
"""Trains a ResNet on CIFAR-10 with a server and any number of workers, on one machine or several.

    python example/cifar10.py --world-size 2 --rank 0 --cuda   # server
    python example/cifar10.py --world-size 2 --rank 1 --cuda   # worker
    python example/cifar10.py --mode sgd --cuda                # plain SGD, one process

On several machines add --master ADDRESS, the server's, on each. Every setting of the library is an option, too.
"""

from __future__ import annotations

import argparse
import logging
import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from cifar10_data import IMAGES, Images, batches, load, normalised
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm

import dgs
from dgs.config import resolve

MODELS = {  # widths of the stages, blocks in each, stride of the first convolution
    "resnet18": ((64, 128, 256, 512), 2, 1),  # 11.2 million parameters
    "small": ((32, 64, 128), 1, 2),  # 0.3 million
}


class Block(nn.Module):
    """Two convolutions, and a way around them."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inner, outer, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outer),
            nn.ReLU(),
            nn.Conv2d(outer, outer, 3, padding=1, bias=False),
            nn.BatchNorm2d(outer),
        )
        self.around = nn.Sequential()
        if inner != outer or stride != 1:
            self.around.extend([nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer)])

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.around(x))


def make_net(name: str) -> nn.Sequential:
    """A ResNet (He et al., arXiv 1512.03385) for images of 32 × 32."""
    widths, blocks, stride = MODELS[name]
    inner = widths[0]
    stem = nn.Conv2d(3, inner, 3, stride, padding=1, bias=False)
    net = nn.Sequential(stem, nn.BatchNorm2d(inner), nn.ReLU())
    for stage, outer in enumerate(widths):
        for block in range(blocks):
            net.append(Block(inner, outer, 2 if stage > 0 and block == 0 else 1))
            inner = outer
    return net.extend([nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inner, 10)])


@torch.no_grad()
def evaluate(net: nn.Module, test: Images, device: torch.device, what: str) -> None:
    """Prints the accuracy on the test images."""
    net.eval()
    parts = zip(*(t.split(500) for t in test), strict=True)
    right = sum(int((net(normalised(x, device)).argmax(1).cpu() == y).sum()) for x, y in parts)
    net.train()
    tqdm.write(f"{what}: test accuracy {right / len(test[0]):.2%}")


def serve(args: argparse.Namespace, device: torch.device) -> nn.Module:
    """Rank 0: holds the parameters, and evaluates them while the workers train."""
    net, shown, test = make_net(args.model), make_net(args.model).to(device), load(args.data, train=False)

    def look(snapshot: dgs.ModelSnapshot) -> None:
        snapshot.load_into(shown)
        evaluate(shown, test, device, f"version {snapshot.version} of {args.max_version}")

    report = dgs.init_server(args, net, on_version=look, every=args.evaluate_every)
    evaluate(net.to(device), test, device, f"the final model, version {report.version}")
    return net


def train(args: argparse.Namespace, device: torch.device) -> nn.Module:
    """Ranks 1 and up, or rank 0 alone in mode sgd: trains until the run is done."""
    net, data = make_net(args.model).to(device), load(args.data, train=True)
    with dgs.GradientSGD(net.parameters(), args.lr, net, args.momentum, args.weight_decay, args) as optimizer:
        mine = batches(data, args.batch_size, optimizer.worker_index, optimizer.num_workers)
        with tqdm(total=args.max_version, desc=f"rank {optimizer.rank}", mininterval=0.5) as bar:
            while not optimizer.done:
                images, labels = next(mine)
                # The progress is the whole run's: a worker that joins late begins where the others are.
                optimizer.param_groups[0]["lr"] = args.lr * (1 + math.cos(math.pi * optimizer.progress)) / 2
                optimizer.zero_grad()
                loss = cross_entropy(net(normalised(images, device)), labels.to(device))
                loss.backward()
                optimizer.step()
                bar.update(optimizer.version - bar.n)
                bar.set_postfix_str(f"loss {loss.item():.3f}{exchanged(net, optimizer)}", refresh=False)
    return net


def exchanged(net: nn.Module, optimizer: dgs.GradientSGD) -> str:
    """What has gone each way, how many times less than the dense model that is, and how stale the last push was."""
    traffic = optimizer.traffic
    dense = 4 * sum(p.numel() for p in net.parameters()) * traffic.exchanges
    if not dense:
        return ""
    up, down = (
        f"{sent / 1e6:.1f} MB (1/{dense / sent:.0f})" for sent in (traffic.bytes_up, traffic.bytes_down)
    )
    return f", up {up}, down {down}, staleness {traffic.staleness}"


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=MODELS, default="resnet18")
    parser.add_argument("--data", type=Path, default=Path("data"), help="holds cifar-10-batches-bin or -py")
    parser.add_argument("--epochs", type=float, default=30, help="passes over the images, of all workers")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=0.1, help="falls to 0 along a cosine")
    parser.add_argument("--momentum", type=float, default=0.7)
    parser.add_argument("--weight-decay", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--evaluate-every", type=int, help="versions; by default one pass over the images")
    parser.add_argument("--checkpoint", type=Path, default=Path("out/cifar10.pt"), help="written by rank 0")
    parser.add_argument("--sparsity", help="1 - density")
    for setting in fields(dgs.Settings):  # mode, rank, world size, master, port, density, codec, ...
        switch: dict[str, Any] = {"action": "store_true", "default": None} if setting.type == "bool" else {}
        parser.add_argument(f"--{setting.name.replace('_', '-')}", help=setting.metadata["doc"], **switch)
    return parser


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    args = options().parse_args()
    args.max_version = int(args.max_version or args.epochs * IMAGES / args.batch_size)
    args.evaluate_every = args.evaluate_every or math.ceil(IMAGES / args.batch_size)
    settings = resolve(args)
    torch.manual_seed(args.seed + 1000 * (settings.rank or 0))
    device, alone = dgs.device(args), settings.mode == "sgd"
    net = train(args, device) if alone or settings.rank != 0 else serve(args, device)
    if alone:
        evaluate(net, load(args.data, train=False), device, "the final model")
    if alone or settings.rank == 0:
        args.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        torch.save(net.cpu().state_dict(), args.checkpoint)
        tqdm.write(f"saved to {args.checkpoint}")


if __name__ == "__main__":
    main()
