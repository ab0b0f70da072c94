# SPDX-License-Identifier: Apache-2.0
"""One process of the demo: trains a small convnet on scikit-learn's digits, as server, as worker, or alone.

Prints what happens as JSON, one object a line, for demo.py to draw. By hand, in two terminals:

    python example/digits.py --world-size 2 --rank 0
    python example/digits.py --world-size 2 --rank 1
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

import dgs

EVALUATIONS = 40  # of the server's model, over the run
TELL_EVERY = 0.2  # seconds between two lines of a worker
SIDE = 8  # pixels


@dataclass(frozen=True)
class Digits:
    """Standardised images float32 [n, 1, 8, 8] and their labels int64 [n]; every fifth is for the test."""

    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor


def load() -> Digits:
    """The 1797 digits, split by label and always in the same way."""
    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, SIDE, SIDE)
    images = (images - images.mean()) / images.std()
    chosen, kept = train_test_split(range(len(labels)), test_size=0.2, random_state=0, stratify=labels)
    targets = torch.tensor(labels)
    return Digits(images[chosen], targets[chosen], images[kept], targets[kept])


def make_net() -> nn.Sequential:
    """A convnet of 548,138 parameters, nearly all of them in tensors large enough to be sent sparsely."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * (SIDE // 2) ** 2, 512, bias=False),
        nn.ReLU(),
        nn.Linear(512, 10),
    )


def batches(data: Digits, rows: Tensor, size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of the images in `rows` without end, each image moved by at most a pixel each way."""
    generator = torch.Generator().manual_seed(seed)
    margin = pad(data.images, (1, 1, 1, 1), value=float(data.images.min()))[:, 0]
    line = torch.arange(SIDE)
    while True:
        order = rows[torch.randperm(len(rows), generator=generator)]
        for chosen in order.split(size):
            top, left = torch.randint(3, (2, len(chosen), 1, 1), generator=generator)
            moved = margin[chosen.view(-1, 1, 1), top + line.view(SIDE, 1), left + line]
            yield moved.unsqueeze(1), data.labels[chosen]


def tell(kind: str, **what: Any) -> None:
    """One line for demo.py, with the time."""
    print(json.dumps({"kind": kind, "time": time.time(), **what}), flush=True)


@torch.no_grad()
def evaluate(net: nn.Module, data: Digits, version: int) -> None:
    """Tells loss and accuracy on the test images."""
    scores = net(data.test_images)
    accuracy = (scores.argmax(1) == data.test_labels).float().mean().item()
    tell("test", version=version, loss=cross_entropy(scores, data.test_labels).item(), accuracy=accuracy)


def serve(args: argparse.Namespace, data: Digits) -> None:
    """Rank 0: serves the model, and evaluates it while the workers train."""
    net, shown = make_net(), make_net()

    def look(snapshot: dgs.ModelSnapshot) -> None:
        snapshot.load_into(shown)
        evaluate(shown, data, snapshot.version)

    evaluate(net, data, version=0)
    report = dgs.init_server(args, net, on_version=look, every=max(1, args.max_version // EVALUATIONS))
    evaluate(net, data, report.version)


def work(args: argparse.Namespace, data: Digits) -> None:
    """Ranks 1 and up, or rank 0 alone in mode sgd: trains until the run is done."""
    net = make_net()
    alone = args.mode == "sgd"
    with dgs.GradientSGD(net.parameters(), args.lr, net, args.momentum, args=args) as optimizer:
        rows = torch.arange(optimizer.worker_index, len(data.images), optimizer.num_workers)
        meter = Meter(optimizer)
        for images, labels in batches(data, rows, args.batch_size, args.seed * 1000 + optimizer.rank):
            if alone and optimizer.version % max(1, args.max_version // EVALUATIONS) == 0:
                evaluate(net, data, optimizer.version)
            if optimizer.done:
                break
            optimizer.param_groups[0]["lr"] = args.lr * (1 - optimizer.progress)
            optimizer.zero_grad()
            loss = cross_entropy(net(images), labels)
            loss.backward()
            optimizer.step()
            meter.add(loss.item(), len(images))
        meter.tell()
    if alone:
        evaluate(net, data, optimizer.version)


class Meter:
    """What a worker has done so far, told a few times a second."""

    def __init__(self, optimizer: dgs.GradientSGD) -> None:
        self.optimizer = optimizer
        self.steps = self.images = 0
        self.losses: list[float] = []
        self.tell()

    def add(self, loss: float, images: int) -> None:
        self.steps += 1
        self.images += images
        self.losses.append(loss)
        if time.time() - self.told > TELL_EVERY:
            self.tell()

    def tell(self) -> None:
        traffic = self.optimizer.traffic
        tell(
            "train",
            version=self.optimizer.version,
            steps=self.steps,
            images=self.images,
            loss=sum(self.losses) / len(self.losses) if self.losses else None,
            up=traffic.bytes_up,
            down=traffic.bytes_down,
            other=traffic.other_bytes,
            staleness=traffic.staleness,
        )
        self.losses.clear()
        self.told = time.time()


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rank", type=int, default=0)
    parser.add_argument("--world-size", type=int, default=2)
    parser.add_argument("--master", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=29500)
    parser.add_argument("--mode", choices=dgs.MODES, default="dgs")
    parser.add_argument("--density", type=float, default=0.01)
    parser.add_argument("--density-down", type=float)
    parser.add_argument("--codec", default="float32")
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--momentum", type=float, default=0.7)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--max-version", type=int, default=900, help="steps of all workers together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="of torch, in this process")
    return parser


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    args = options().parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    data = load()
    if args.rank == 0:
        tell("model", parameters=sum(p.numel() for p in make_net().parameters()))
    if args.rank == 0 and args.mode != "sgd":
        serve(args, data)
    else:
        work(args, data)


if __name__ == "__main__":
    main()
