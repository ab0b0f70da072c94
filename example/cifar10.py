# SPDX-License-Identifier: Apache-2.0
"""Trains a ResNet on CIFAR-10 with a server and any number of workers, on one machine or several.

    python example/cifar10.py --world-size 2 --rank 0 --cuda   # server
    python example/cifar10.py --world-size 2 --rank 1 --cuda   # worker
    python example/cifar10.py --mode sgd --cuda                # plain SGD, in one process

On several machines add --master <the server's address> on each.
"""

from __future__ import annotations

import argparse
import fcntl
import logging
import math
import os
import pickle
import warnings
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad
from tqdm import tqdm

import dgs
from dgs.config import resolve

IMAGES = 50_000
MEAN = torch.tensor([0.4914, 0.4822, 0.4465]).view(3, 1, 1)
STD = torch.tensor([0.2470, 0.2435, 0.2616]).view(3, 1, 1)
MODELS = {  # widths of the stages, blocks in each, stride of the first convolution
    "resnet18": ((64, 128, 256, 512), 2, 1),  # 11.2 million parameters
    "small": ((32, 64, 128), 1, 2),  # 0.3 million
}


class Block(nn.Module):
    """Two convolutions and a way around them."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inner, outer, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outer),
            nn.ReLU(inplace=True),
            nn.Conv2d(outer, outer, 3, padding=1, bias=False),
            nn.BatchNorm2d(outer),
        )
        same = inner == outer and stride == 1
        short = nn.Sequential(nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))
        self.short = nn.Identity() if same else short

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.short(x))


def make_net(widths: tuple[int, ...], blocks: int, stride: int) -> nn.Sequential:
    """A ResNet for images of 32 × 32 (He et al., arXiv 1512.03385)."""
    stem = [nn.Conv2d(3, widths[0], 3, stride, padding=1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()]
    layers: list[nn.Module] = list(stem)
    inner = widths[0]
    for stage, outer in enumerate(widths):
        for block in range(blocks):
            layers.append(Block(inner, outer, 2 if stage and not block else 1))
            inner = outer
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inner, 10))


def load(root: Path, train: bool) -> tuple[Tensor, Tensor]:
    """Images uint8 [n, 3, 32, 32] and labels int64 [n], from the binary or the Python version in `root`."""
    names = [f"data_batch_{i}" for i in range(1, 6)] if train else ["test_batch"]
    binary, python = root / "cifar-10-batches-bin", root / "cifar-10-batches-py"
    if not binary.is_dir() and not python.is_dir():
        download(root)
    if binary.is_dir():
        rows = np.concatenate([np.fromfile(binary / f"{name}.bin", np.uint8).reshape(-1, 3073) for name in names])
        labels, images = rows[:, 0], rows[:, 1:]
    else:
        batches = [pickle.loads((python / name).read_bytes(), encoding="bytes") for name in names]
        labels = np.concatenate([batch[b"labels"] for batch in batches])
        images = np.concatenate([batch[b"data"] for batch in batches])
    return torch.from_numpy(images.reshape(-1, 3, 32, 32).copy()), torch.from_numpy(labels.astype(np.int64))


def download(root: Path) -> None:
    """Fetches the Python version, unless another process of this machine is doing so."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            from torchvision.datasets import CIFAR10

            CIFAR10(str(root), download=True)
        except (ImportError, OSError, RuntimeError) as error:
            raise SystemExit(
                f"{root} holds neither cifar-10-batches-bin nor cifar-10-batches-py, and downloading failed ({error}).\n"
                "Unpack https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz there, or name another folder: --data"
            ) from error


def normalised(images: Tensor, device: torch.device) -> Tensor:
    return ((images.float() / 255 - MEAN) / STD).to(device)


def augmented(images: Tensor) -> Tensor:
    """Each image moved by up to four pixels each way, and half of them mirrored."""
    count, line = len(images), torch.arange(32)
    top, left = torch.randint(9, (2, count, 1, 1))
    columns = left + torch.where(torch.rand(count, 1, 1) < 0.5, line, 31 - line)
    moved = pad(images, (4, 4, 4, 4))[torch.arange(count).view(-1, 1, 1), :, top + line.view(32, 1), columns]
    return moved.permute(0, 3, 1, 2)


def batches(data: tuple[Tensor, Tensor], size: int, index: int, workers: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches without end. All workers shuffle alike and take every so-many-th image, so none is seen twice."""
    epoch = 0
    while True:
        order = torch.randperm(len(data[0]), generator=torch.Generator().manual_seed(epoch))
        for rows in order[index::workers].split(size):
            yield augmented(data[0][rows]), data[1][rows]
        epoch += 1


@torch.no_grad()
def evaluate(net: nn.Module, data: tuple[Tensor, Tensor], device: torch.device, what: str) -> float:
    """Prints and returns the accuracy on the test images."""
    net.eval()
    parts = zip(data[0].split(500), data[1].split(500), strict=True)
    right = sum(int((net(normalised(x, device)).argmax(1).cpu() == y).sum()) for x, y in parts)
    net.train()
    accuracy = right / len(data[0])
    tqdm.write(f"{what}: test accuracy {accuracy:.2%}")
    return accuracy


def serve(args: argparse.Namespace, device: torch.device) -> nn.Module:
    """Rank 0: holds the parameters, and evaluates them after each pass over the images."""
    net, shown, test = make_net(*MODELS[args.model]), make_net(*MODELS[args.model]).to(device), load(args.data, False)

    def look(snapshot: dgs.ModelSnapshot) -> None:
        snapshot.load_into(shown)
        evaluate(shown, test, device, f"version {snapshot.version} of {args.max_version}")

    report = dgs.init_server(args, net, on_version=look, every=math.ceil(IMAGES / args.batch_size))
    evaluate(net.to(device), test, device, f"the final model, version {report.version}")
    return net


def train(args: argparse.Namespace, device: torch.device) -> nn.Module:
    """A worker, or with --mode sgd the only process: trains until the run is done."""
    net = make_net(*MODELS[args.model]).to(device).train()
    data, alone = load(args.data, True), resolve(args).mode == "sgd"
    with dgs.GradientSGD(net.parameters(), args.lr, net, args.momentum, args.weight_decay, args) as optimizer:
        torch.manual_seed(args.seed + optimizer.rank)
        bar = tqdm(total=args.max_version, desc=f"worker {optimizer.rank}", initial=optimizer.version)
        for images, labels in batches(data, args.batch_size, optimizer.worker_index, optimizer.num_workers):
            if optimizer.done:
                break
            for group in optimizer.param_groups:  # a worker that joins late begins where the others are
                group["lr"] = args.lr * (1 + math.cos(math.pi * optimizer.progress)) / 2
            optimizer.zero_grad()
            loss = cross_entropy(net(normalised(images, device)), labels.to(device))
            loss.backward()
            optimizer.step()
            bar.update(optimizer.version - bar.n)
            bar.set_postfix_str(f"loss {loss.item():.3f}" + ("" if alone else exchanged(optimizer)), refresh=False)
        bar.close()
    if alone:
        evaluate(net, load(args.data, False), device, "the final model")
    return net


def exchanged(optimizer: dgs.GradientSGD) -> str:
    """How stale the last push was, and how much less than the dense model goes each way."""
    traffic, dense = optimizer.traffic, 4 * optimizer.layout.numel * optimizer.traffic.exchanges
    return f", staleness {traffic.staleness}, {dense / traffic.bytes_up:.0f}× up, {dense / traffic.bytes_down:.0f}× down"


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="resnet18")
    parser.add_argument("--data", type=Path, default=Path("data"), help="the folder that holds cifar-10-batches-*")
    parser.add_argument("--epochs", type=float, default=30, help="passes over the images, of all workers together")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=0.1, help="falls to 0 along a cosine")
    parser.add_argument("--momentum", type=float, default=0.7)
    parser.add_argument("--weight-decay", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint", type=Path, default=Path("out/cifar10.pt"), help="where rank 0 saves the model")
    parser.add_argument("--sparsity", help="1 - density")
    for f in fields(dgs.Settings):  # rank, world size, master, mode, density, codec, ...
        kind = {"action": "store_true", "default": None} if f.type == "bool" else {}
        parser.add_argument(f"--{f.name.replace('_', '-')}", help=f.metadata["doc"], **kind)
    return parser


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    args = options().parse_args()
    args.max_version = int(args.max_version or args.epochs * IMAGES / args.batch_size)
    settings = resolve(args)
    device = torch.device("cpu")
    if args.cuda and torch.cuda.is_available():
        number = int(os.environ.get("LOCAL_RANK", max(0, (settings.rank or 0) - 1)))
        device = torch.device("cuda", number % torch.cuda.device_count())
    elif args.cuda:
        warnings.warn("--cuda: torch finds no CUDA device here; the CPU is used", stacklevel=1)
    if settings.rank == 0 and settings.mode != "sgd":
        net = serve(args, device)
    else:
        net = train(args, device)
    if settings.rank == 0:
        args.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        torch.save(net.state_dict(), args.checkpoint)


if __name__ == "__main__":
    main()
