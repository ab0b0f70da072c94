# SPDX-License-Identifier: Apache-2.0
"""Trains a ResNet on CIFAR-10 with a server and any number of workers, on one machine or several.

    python example/cifar10.py --world-size 2 --rank 0 --cuda   # server
    python example/cifar10.py --world-size 2 --rank 1 --cuda   # worker
    python example/cifar10.py --mode sgd --cuda                # plain SGD, one process

On several machines add --master ADDRESS, the server's, on each. Every setting of the library is an option, too. With
--checkpoint-dir DIR the server, or plain SGD, saves what it has, and --checkpoint-resume goes on from there; a worker
that ended is started again as it was.
"""

from __future__ import annotations

import argparse
import logging
import math
from pathlib import Path

import torch
from arguments import add_settings
from cifar10_data import IMAGES, Images, batches, load, normalised
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import dgs
from dgs.options import settings_of

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
def accuracy(net: nn.Module, test: Images, device: torch.device) -> float:
    """The part of the test images that `net` knows."""
    net.eval()
    parts = zip(*(t.split(500) for t in test), strict=True)
    right = sum(int((net(normalised(x, device)).argmax(1).cpu() == y).sum()) for x, y in parts)
    net.train()
    return right / len(test[0])


def serve(args: argparse.Namespace, device: torch.device) -> nn.Module:
    """Rank 0: holds the parameters, and evaluates them while the workers train."""
    net, shown, test = make_net(args.model), make_net(args.model).to(device), load(args.data, train=False)

    def look(snapshot: dgs.ModelSnapshot) -> dict[str, float]:
        snapshot.load_into(shown)
        return {"test accuracy": accuracy(shown, test, device)}

    dgs.init_server(args, net, on_version=look, every=args.evaluate_every)
    return net


def train(args: argparse.Namespace, device: torch.device) -> nn.Module:
    """Ranks 1 and up, or rank 0 alone in mode sgd: trains until the run is done."""
    net, data = make_net(args.model).to(device), load(args.data, train=True)
    with dgs.GradientSGD(net.parameters(), args.lr, net, args.momentum, args.weight_decay, args) as optimizer:
        saved = Saved(args, net, optimizer)
        mine = batches(data, args.batch_size, optimizer.worker_index, optimizer.num_workers)
        while not optimizer.done:
            images, labels = next(mine)
            # The progress is the whole run's: a worker that joins late begins where the others are.
            optimizer.param_groups[0]["lr"] = args.lr * (1 + math.cos(math.pi * optimizer.progress)) / 2
            optimizer.zero_grad()
            loss = cross_entropy(net(normalised(images, device)), labels.to(device))
            loss.backward()
            optimizer.step()
            optimizer.observe(loss, samples=len(labels))  # for the server's progress bar and its records
            saved.at(optimizer.version)
    return net


class Saved:
    """Mode sgd's file: loaded again, and written with every pass. In other modes the server does all that."""

    def __init__(self, args: argparse.Namespace, net: nn.Module, optimizer: dgs.GradientSGD) -> None:
        self._net, self._optimizer, self._every = net, optimizer, args.evaluate_every
        alone = args.checkpoint_dir and optimizer.settings.local
        self._file = Path(args.checkpoint_dir) / "sgd.safetensors" if alone else None
        if self._file and args.checkpoint_resume and self._file.exists():
            state = dgs.checkpoint.load(self._file)
            net.load_state_dict(state["net"])
            optimizer.load_state_dict(state["optimizer"])

    def at(self, version: int) -> None:
        """After a step."""
        if self._file and (version % self._every == 0 or self._optimizer.done):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            state = {"net": self._net.state_dict(), "optimizer": self._optimizer.state_dict()}
            dgs.checkpoint.save(self._file, state)


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
    parser.add_argument(
        "--evaluate-every", type=int, help="versions (mode sgd: between two saves); by default one pass"
    )
    add_settings(parser)
    return parser


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = options()
    args = parser.parse_args()
    args.max_version = args.max_version or int(args.epochs * IMAGES / args.batch_size)
    args.evaluate_every = args.evaluate_every or math.ceil(IMAGES / args.batch_size)
    settings = settings_of(parser, args)
    torch.manual_seed(args.seed + 1000 * (settings.rank or 0))
    device = dgs.device(args)
    if settings.rank and not settings.local:
        train(args, device)
        return
    net = train(args, device) if settings.local else serve(args, device)
    found = accuracy(net.to(device), load(args.data, train=False), device)
    print(f"the final model: test accuracy {found:.2%}")


if __name__ == "__main__":
    main()
