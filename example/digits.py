# SPDX-License-Identifier: Apache-2.0
"""One process of the demo: trains a small convnet on scikit-learn's digits, as server, as worker, or alone.

The log goes to stdout, the run's progress bar (rank 0's) to stderr. By hand, in two terminals:

    python example/digits.py --world-size 2 --rank 0 --run-dir out/digits
    python example/digits.py --world-size 2 --rank 1
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from arguments import add_settings
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

import dgs
from dgs.config import Settings
from dgs.options import settings_of

EVALUATIONS = 40  # of the server's model, over the run
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


@torch.no_grad()
def evaluate(net: nn.Module, data: Digits) -> dict[str, float]:
    """Loss and accuracy on the test images."""
    scores = net(data.test_images)
    right = (scores.argmax(1) == data.test_labels).float().mean().item()
    return {"test accuracy": right, "test loss": cross_entropy(scores, data.test_labels).item()}


def every(settings: Settings) -> int:
    """Versions between two evaluations."""
    return max(1, (settings.max_version or 0) // EVALUATIONS)


def serve(args: argparse.Namespace, settings: Settings, data: Digits) -> None:
    """Rank 0: serves the model, and evaluates it while the workers train."""
    shown = make_net()

    def look(snapshot: dgs.ModelSnapshot) -> dict[str, float]:
        snapshot.load_into(shown)
        return evaluate(shown, data)

    dgs.init_server(args, make_net(), on_version=look, every=every(settings))


def work(args: argparse.Namespace, settings: Settings, data: Digits) -> None:
    """Ranks 1 and up, or rank 0 alone in mode sgd: trains until the run is done."""
    net = make_net()
    with dgs.GradientSGD(net.parameters(), args.lr, net, args.momentum, args=args) as optimizer:
        rows = torch.arange(optimizer.worker_index, len(data.images), optimizer.num_workers)
        mine = batches(data, rows, args.batch_size, args.seed * 1000 + optimizer.rank)
        while not optimizer.done:
            images, labels = next(mine)
            optimizer.param_groups[0]["lr"] = args.lr * (1 - optimizer.progress)
            optimizer.zero_grad()
            loss = cross_entropy(net(images), labels)
            loss.backward()
            optimizer.step()
            optimizer.observe(loss, samples=len(images))
            if settings.local and (optimizer.done or optimizer.version % every(settings) == 0):
                optimizer.evaluated(**evaluate(net, data))


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lr", type=float, default=0.05, help="falls to 0 over the run")
    parser.add_argument("--momentum", type=float, default=0.7)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    add_settings(parser)
    parser.set_defaults(max_version=900, threads=1)
    return parser


def main() -> None:
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s", stream=sys.stdout
    )
    parser = options()
    args = parser.parse_args()
    settings = settings_of(parser, args)
    torch.manual_seed(args.seed)
    data = load()
    if settings.rank or settings.local:
        work(args, settings, data)
    else:
        serve(args, settings, data)


if __name__ == "__main__":
    try:
        main()
    except dgs.DGSError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
