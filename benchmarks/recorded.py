# SPDX-License-Identifier: Apache-2.0
"""On real training runs: what share of the parameters the selection has to read a second time.

    python benchmarks/recorded.py --data DIR --text FILE     # a ResNet on CIFAR-10, a transformer on a text
    python benchmarks/recorded.py --smoke                    # seconds, on noise

A selection estimates its threshold from a sample; a segment whose estimate was too high is read again. How often that
happens depends on how gradients are distributed and change, so it is counted where they are real: one worker trains,
each step is the method's own, and what it sends is applied at once. The share of all steps must not pass --limit.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from harness import table
from operands import Problem
from steps import STEPS
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm, trange

from dgs.layout import Layout
from dgs_ext import ops

# The model and the images are the example's own.
sys.path.append(str(Path(__file__).resolve().parents[1] / "example"))
from cifar10 import make_net
from cifar10_data import batches, load, normalised

CONTEXT = 64  # characters that the transformer sees
Losses = Iterator[Tensor]  # of one batch after the other


@dataclass(frozen=True)
class Task:
    """A model, and its losses without end."""

    name: str
    model: nn.Module
    losses: Callable[[nn.Module], Losses]
    lr: float


@dataclass(frozen=True)
class Run:
    """What was counted in one run; losses are means of ten steps."""

    task: str
    method: str
    parameters: int
    steps: int
    density: float
    read_again: int  # elements of all steps
    worst_step: int  # of them in one step
    first_loss: float
    last_loss: float

    @property
    def share(self) -> float:
        """Of the parameters of all steps, how many were read a second time."""
        return self.read_again / (self.parameters * self.steps)


class Characters(nn.Module):
    """A transformer that predicts the next character (Vaswani et al., arXiv 1706.03762; 1.9 million parameters)."""

    def __init__(self, alphabet: int, width: int = 192, layers: int = 4) -> None:
        super().__init__()
        self.embed = nn.Embedding(alphabet, width)
        self.place = nn.Parameter(0.02 * torch.randn(CONTEXT, width))
        block = nn.TransformerEncoderLayer(
            width, 6, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, alphabet)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(CONTEXT))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.blocks(self.embed(x) + self.place, mask=self.mask, is_causal=True))
        return logits


def resnet(data: Path | None) -> Task:
    """The small ResNet of the CIFAR-10 example; on noise without `data`."""

    def losses(model: nn.Module) -> Losses:
        if data is None:
            noise = torch.randint(256, (512, 3, 32, 32), dtype=torch.uint8), torch.randint(10, (512,))
        for images, labels in batches(load(data, train=True) if data else noise, 128, 0, 1):
            yield cross_entropy(model(normalised(images, torch.device("cpu"))), labels)

    return Task("small ResNet on CIFAR-10", make_net("small"), losses, 0.1)


def transformer(text: Path | None) -> Task:
    """A small transformer on the characters of `text`; on noise without."""
    raw = text.read_bytes() if text else bytes(torch.randint(32, 96, (4096,), dtype=torch.uint8).tolist())
    codes, characters = torch.tensor(list(raw)).unique(return_inverse=True)

    def losses(model: nn.Module) -> Losses:
        window = torch.arange(CONTEXT + 1)
        while True:
            at = torch.randint(len(characters) - CONTEXT, (16, 1))
            rows = characters[at + window]
            yield cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())

    return Task("transformer on a text", Characters(len(codes)), losses, 0.05)


def operands(model: nn.Module, density: float, lr: float, weight_decay: float, momentum: float) -> Problem:
    """The operands of a model that begins to train, over its own weights and gradients, which stay where they are."""
    parameters = dict(model.named_parameters())
    grads = [torch.zeros_like(p) for p in parameters.values()]
    for p, grad in zip(parameters.values(), grads, strict=True):
        p.grad = grad
    return Problem.of(
        Layout((name, p.shape) for name, p in parameters.items()),
        grads,
        [p.data for p in parameters.values()],
        density,
        lr=lr,
        weight_decay=weight_decay,
        momentum=momentum,
    )


def train(task: Task, method: str, p: Problem, steps: int) -> tuple[list[int], list[float]]:
    """Trains; returns of each step how many parameters were read again, and the loss."""
    again, losses = [], []
    batch = task.losses(task.model)
    for _ in trange(steps, desc=f"{method}, {task.name}", disable=None):
        task.model.zero_grad(set_to_none=False)
        loss = next(batch)
        loss.backward()
        ops.selection_counters(reset=True)
        STEPS[method].run(p, ops)
        counted = ops.selection_counters()
        if counted.elements != p.numel:
            raise SystemExit(f"{counted.elements} elements were selected from, not the {p.numel} parameters")
        if p.out.failed() is not None:
            raise SystemExit(f"{method}, {task.name}: a gradient is not finite; lower the learning rate")
        ops.sparse_add_(p.weights, p.offsets, p.out, subtract=True)
        for now, following in ((p.velocity, p.velocity_next), (p.residual, p.residual_next)):
            now[0], following[0] = following[0], now[0]
        again.append(counted.read_again)
        losses.append(loss.item())
    return again, losses


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="holds cifar-10-batches-bin or -py")
    parser.add_argument("--text", type=Path, help="any text of some 100,000 characters")
    parser.add_argument("--methods", nargs="+", choices=("dgs", "gd", "dgc"), default=["dgs", "gd", "dgc"])
    parser.add_argument("--density", type=float, default=0.01)
    parser.add_argument("--momentum", type=float, default=0.7)
    parser.add_argument("--weight-decay", type=float, default=5e-4)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument(
        "--limit",
        type=float,
        help="greatest share that may be read again; default 0.01, and with --smoke any",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="file for what was counted, as JSON")
    parser.add_argument("--smoke", action="store_true", help="three steps on noise: does everything run?")
    args = parser.parse_args()
    if args.limit is None:
        args.limit = 1.0 if args.smoke else 0.01
    if args.smoke:
        args.steps = 3
    elif args.data is None and args.text is None:
        parser.error("name the images (--data DIR), a text (--text FILE) or both, or try --smoke")
    return args


def run(task: Task, method: str, args: argparse.Namespace) -> Run:
    """Trains a fresh model by one method."""
    p = operands(task.model, args.density, task.lr, args.weight_decay, args.momentum)
    again, losses = train(task, method, p, args.steps)
    first, last = (sum(part) / len(part) for part in (losses[:10], losses[-10:]))
    return Run(task.name, method, p.numel, args.steps, args.density, sum(again), max(again), first, last)


def main() -> None:
    args = parse()
    done: list[Run] = []
    for make, source in ((resnet, args.data), (transformer, args.text)):
        if source is None and not args.smoke:
            continue
        for method in args.methods:
            torch.manual_seed(args.seed)
            done.append(run(make(source), method, args))
            if args.out is not None:  # after each: they take minutes
                args.out.write_text(json.dumps([asdict(r) for r in done], indent=1) + "\n", encoding="utf-8")
            r = done[-1]
            tqdm.write(
                f"{r.task}, {method}: {r.share:.3%} read again, loss {r.first_loss:.3f} -> {r.last_loss:.3f}"
            )
    rows = [
        (r.task, r.method, r.parameters, f"{r.share:.3%}", f"{r.worst_step / r.parameters:.2%}",
         r.first_loss, r.last_loss)
        for r in done
    ]  # fmt: skip
    columns = ("run", "method", "parameters", "read again", "worst step", "loss at first", "at last")
    print(table(f"{args.steps} steps, density {args.density:g}", columns, rows))
    worst = max(r.share for r in done)
    if worst > args.limit:
        raise SystemExit(f"{worst:.3%} of the parameters were read a second time, more than {args.limit:.1%}")


if __name__ == "__main__":
    main()
