# SPDX-License-Identifier: Apache-2.0
"""Trains a small transformer to continue a text, byte by byte, with a server and any number of workers.

    python example/char_lm.py shakespeare.txt --world-size 3 --rank 0   # the server
    python example/char_lm.py shakespeare.txt --world-size 3 --rank 1   # a worker; --rank 2 the other
    python example/char_lm.py shakespeare.txt --mode sgd                # plain SGD, one process

Nearly all parameters are in a table with a row for each pair of bytes, of which a batch looks up some hundred. Its
gradient is zero elsewhere, and zeros are never sent: what the first worker prints of its exchanges shows it.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import math
from pathlib import Path

import torch
from arguments import add_settings
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import dgs
from dgs.options import settings_of

BYTES = 256
HEADS = 4


class CharLM(nn.Module):
    """A transformer over bytes; each position is looked up by its byte, and by that and the one before it."""

    def __init__(self, width: int, layers: int, context: int) -> None:
        super().__init__()
        self.bytes = nn.Embedding(BYTES, width)
        self.pairs = nn.Embedding(BYTES * BYTES, width)
        self.places = nn.Parameter(torch.zeros(context, width))
        layer = nn.TransformerEncoderLayer(width, HEADS, 4 * width, 0.0, batch_first=True, norm_first=True)
        self.body = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, BYTES)
        nn.init.zeros_(self.pairs.weight)

    def forward(self, text: Tensor) -> Tensor:
        """Scores [n, length, 256] of the byte that follows each of `text`, int64 [n, length + 1], but the first."""
        before, here = text[:, :-1], text[:, 1:]
        length = here.shape[1]
        x = self.bytes(here) + self.pairs(before * BYTES + here) + self.places[:length]
        ahead = nn.Transformer.generate_square_subsequent_mask(length, device=text.device)
        return self.head(self.body(x, ahead, is_causal=True))


def read(path: Path) -> tuple[Tensor, Tensor]:
    """A text's bytes, uint8: nine tenths to train on, and the rest."""
    text = torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)
    cut = len(text) * 9 // 10
    return text[:cut], text[cut:]


def windows(text: Tensor, starts: Tensor, context: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """What to read, int64 [n, context + 1] (a byte more in front), and what follows each, [n, context]."""
    cut = text[starts[:, None] + torch.arange(context + 2)].long().to(device)
    return cut[:, :-1], cut[:, 2:]


def loss_of(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Mean cross-entropy in nats per byte."""
    text, following = batch
    return cross_entropy(net(text).flatten(0, 1), following.flatten())


@torch.no_grad()
def bits_per_byte(net: nn.Module, held_out: Tensor, context: int, device: torch.device) -> float:
    """The loss on the first 256 windows of the held-out text."""
    starts = torch.arange(0, len(held_out) - context - 1, context)[:256]
    net.eval()
    nats = [loss_of(net, windows(held_out, part, context, device)) * len(part) for part in starts.split(32)]
    net.train()
    return float(sum(nats)) / len(starts) / math.log(2)


@torch.no_grad()
def written(net: nn.Module, context: int, length: int, device: torch.device) -> str:
    """A text of the model's own."""
    text = torch.full((1, 2), ord("\n"), device=device)
    for _ in range(length):
        scores = net(text[:, -context - 1 :])[:, -1]
        text = torch.cat([text, scores.softmax(1).multinomial(1)], 1)
    return bytes(text[0].tolist()).decode(errors="replace").strip()


def serve(args: argparse.Namespace, device: torch.device) -> nn.Module:
    """Rank 0: holds the parameters, and evaluates them while the workers train."""
    net, shown = (CharLM(args.width, args.layers, args.context).to(device) for _ in range(2))
    held_out = read(args.text)[1]

    def look(snapshot: dgs.ModelSnapshot) -> dict[str, float]:
        snapshot.load_into(shown)
        return {"bits per byte": bits_per_byte(shown, held_out, args.context, device)}

    dgs.init_server(args, net, on_version=look, every=args.evaluate_every)
    return net


def train(args: argparse.Namespace, device: torch.device) -> nn.Module:
    """Ranks 1 and up, or rank 0 alone in mode sgd: trains until the run is done."""
    net, text = CharLM(args.width, args.layers, args.context).to(device), read(args.text)[0]
    groups = [
        # Few rows of it have a gradient, and small ones. A momentum would go on moving those of batches long past.
        {"params": [net.pairs.weight], "lr": 10 * args.lr, "momentum": 0.0},
        {"params": [p for name, p in net.named_parameters() if name != "pairs.weight"]},
    ]
    with dgs.GradientSGD(groups, args.lr, net, args.momentum, args=args) as optimizer:
        rates = [group["lr"] for group in optimizer.param_groups]
        while not optimizer.done:
            at = optimizer.progress
            # Up over a twentieth of the run, level until a fifth of it, then down to 0.
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * min(1, 20 * at + 0.05, 1.25 * (1 - at))
            starts = torch.randint(len(text) - args.context - 1, (args.batch_size,))
            optimizer.zero_grad()
            loss = loss_of(net, windows(text, starts, args.context, device))
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            before = dataclasses.replace(optimizer.traffic)
            optimizer.step()
            optimizer.observe(loss, samples=args.batch_size)
            applied = optimizer.traffic.exchanges > before.exchanges  # the run's end may have been before it
            if optimizer.rank == 1 and applied and before.exchanges % args.show_every == 0:
                print(exchanged(net, optimizer, before), flush=True)
    return net


def exchanged(net: CharLM, optimizer: dgs.GradientSGD, before: dgs.Traffic) -> str:
    """What the last exchange took, and how much of the table its gradient was about."""
    traffic, table = optimizer.traffic, net.pairs.weight
    up, down = traffic.bytes_up - before.bytes_up, traffic.bytes_down - before.bytes_down
    dense = 4 * sum(p.numel() for p in net.parameters())
    assert table.grad is not None
    rows, values = int(table.grad.any(1).sum()), int(table.grad.count_nonzero())
    return (
        f"version {optimizer.version}: up {up:,} bytes, down {down:,}, dense {dense:,}, of which pairs.weight "
        f"{4 * table.numel():,}; a gradient in {rows} of its {len(table):,} rows: {4 * values:,}"
    )


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("text", type=Path, help="any file; it is read as bytes")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--context", type=int, default=64, help="bytes that the model looks back at")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--lr", type=float, default=0.2)
    parser.add_argument("--momentum", type=float, default=0.7)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show-every", type=int, default=100, help="exchanges")
    parser.add_argument("--evaluate-every", type=int, default=500, help="versions")
    parser.add_argument("--write", type=int, default=300, help="bytes of a text of its own, in the end")
    add_settings(parser)
    parser.set_defaults(max_version=3000)
    return parser


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = options()
    args = parser.parse_args()
    settings = settings_of(parser, args)
    torch.manual_seed(args.seed + 1000 * (settings.rank or 0))
    device = dgs.device(args)
    if settings.rank and not settings.local:
        train(args, device)
        return
    net = train(args, device) if settings.local else serve(args, device)
    found = bits_per_byte(net, read(args.text)[1], args.context, device)
    print(f"the final model: {found:.3f} bits per byte\n{written(net, args.context, args.write, device)}")


if __name__ == "__main__":
    main()
