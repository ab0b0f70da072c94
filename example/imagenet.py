# SPDX-License-Identifier: Apache-2.0
"""Trains a ResNet on ImageNet, or fine-tunes it on any folder of images, with a server and any number of workers.

    python example/imagenet.py --data DIR --world-size 5 --rank 0 --cuda    # the server
    python example/imagenet.py --data DIR --world-size 5 --rank 1 --cuda    # a worker; --rank 2, 3 and 4 the others
    python example/imagenet.py --data DIR --mode sgd --cuda                 # plain SGD, one process

DIR holds the folders train and val, and each of them one folder of images per class; every machine has its own copy.
NVIDIA DALI reads them where it is installed (requirements-dali.txt), on the GPU with --cuda; else torchvision. With
--checkpoint-dir the server saves its model; --init DIR/latest/model.safetensors begins another run with it.
"""

from __future__ import annotations

import argparse
import logging
import math
from pathlib import Path

import torch
from arguments import add_settings
from imagenet_data import LOADERS, Loader, Reading, default_loader, endless
from safetensors.torch import load_file
from torch import nn
from torch.nn.functional import cross_entropy
from torchvision import models
from torchvision.datasets import ImageFolder

import dgs
from dgs.options import settings_of

log = logging.getLogger(__name__)


def learning_rate(first: float, progress: float) -> float:
    """Divided by 10 after each third of the run: after 30 and 60 of the paper's 90 epochs."""
    return first * 0.1 ** min(2, int(3 * progress))


def momentum_for(workers: int) -> float:
    """The paper's 0.7 at 4 workers and 0.45 at 16, and on the line through both in log2(workers) elsewhere.

    Asynchrony is itself a momentum (arXiv 1605.09774): every doubling takes 0.125 from what is set. At most 0.9.
    """
    return min(0.9, max(0.0, 0.7 - 0.125 * math.log2(workers / 4)))


def make_net(args: argparse.Namespace) -> nn.Module:
    """The ResNet, with the weights in `args.init` where their shapes fit: a head of other classes begins afresh."""
    net: nn.Module = getattr(models, args.model)(num_classes=args.classes)
    if args.init:
        own = net.state_dict()
        if args.init.suffix == ".safetensors":
            saved = load_file(args.init)
        else:
            saved = torch.load(args.init, map_location="cpu", weights_only=True)
        fitting = {name: x for name, x in saved.items() if name in own and own[name].shape == x.shape}
        net.load_state_dict(own | fitting)
        log.info("%d of %d tensors are from %s", len(fitting), len(own), args.init)
    return net


def reader(
    args: argparse.Namespace, device: torch.device, *, train: bool, part: int = 0, parts: int = 1
) -> Loader:
    """This process's share of the images."""
    folder = args.data / ("train" if train else "val")
    reading = Reading(
        folder, train, args.size, args.batch_size, part, parts, args.readers, args.seed * 1000 + part
    )
    return LOADERS[args.loader](reading, device)


@torch.no_grad()
def accuracy(net: nn.Module, validation: Loader) -> float:
    """The part of the validation images that `net` knows."""
    net.eval()
    right = seen = 0
    for images, labels in validation:
        right += int((net(images).argmax(1) == labels).sum())
        seen += len(labels)
    net.train()
    return right / seen


def serve(args: argparse.Namespace, device: torch.device) -> nn.Module:
    """Rank 0: holds the parameters, and evaluates them while the workers train."""
    net, shown = make_net(args).to(device), make_net(args).to(device)
    validation = reader(args, device, train=False)

    def look(snapshot: dgs.ModelSnapshot) -> dict[str, float]:
        snapshot.load_into(shown)
        return {"accuracy": accuracy(shown, validation)}

    dgs.init_server(args, net, on_version=look, every=args.evaluate_every)
    return net


def train(args: argparse.Namespace, device: torch.device) -> nn.Module:
    """Ranks 1 and up, or rank 0 alone in mode sgd: trains until the run is done."""
    net = make_net(args).to(device, memory_format=torch.channels_last)
    bfloat16 = torch.autocast(device.type, torch.bfloat16, enabled=args.amp)
    with dgs.GradientSGD(net.parameters(), args.lr, net, args.momentum, args.weight_decay, args) as optimizer:
        part, parts = optimizer.worker_index, optimizer.num_workers
        batches = endless(reader(args, device, train=True, part=part, parts=parts))
        while not optimizer.done:
            images, labels = next(batches)
            optimizer.param_groups[0]["lr"] = learning_rate(args.lr, optimizer.progress)
            optimizer.zero_grad()
            with bfloat16:
                loss = cross_entropy(net(images.contiguous(memory_format=torch.channels_last)), labels)
            loss.backward()
            optimizer.step()
            optimizer.observe(loss, samples=len(labels))
    return net


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="holds train and val")
    parser.add_argument("--model", choices=("resnet18", "resnet50"), default="resnet18")
    parser.add_argument(
        "--init", type=Path, help="weights to begin with: .safetensors, or torchvision's .pth"
    )
    parser.add_argument("--loader", choices=LOADERS, default=default_loader(), help="here: %(default)s")
    parser.add_argument("--readers", type=int, default=4, help="threads or processes that read images")
    parser.add_argument("--size", type=int, default=224, help="pixels")
    parser.add_argument("--epochs", type=float, default=90, help="passes over the images, of all workers")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=0.1, help="a tenth of it after each third of the run")
    parser.add_argument(
        "--momentum", type=float, help="by default 0.7 with 4 workers, 0.45 with 16 (momentum_for)"
    )
    parser.add_argument("--weight-decay", type=float, default=1e-4)
    parser.add_argument("--amp", action="store_true", help="compute in bfloat16")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--evaluate-every", type=int, help="versions; by default one pass over the images")
    add_settings(parser)
    return parser


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = options()
    args = parser.parse_args()
    images = ImageFolder(str(args.data / "train"))
    args.classes, per_pass = len(images.classes), math.ceil(len(images) / args.batch_size)
    args.max_version = args.max_version or int(args.epochs * per_pass)
    args.evaluate_every = args.evaluate_every or per_pass
    settings = settings_of(parser, args)
    torch.manual_seed(args.seed + 1000 * (settings.rank or 0))
    if args.momentum is None:
        args.momentum = momentum_for(1 if settings.local else (settings.world_size or 5) - 1)
    device = dgs.device(args)
    if settings.rank and not settings.local:
        train(args, device)
        return
    net = train(args, device) if settings.local else serve(args, device)
    print(f"the final model: accuracy {accuracy(net, reader(args, device, train=False)):.2%}")


if __name__ == "__main__":
    main()
