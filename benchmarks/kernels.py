# SPDX-License-Identifier: Apache-2.0
"""The ops against pure torch and against a copy of the model, on ResNet-18's 62 tensors.

python benchmarks/kernels.py [--density 0.01] [--threads 1 2] [--repeats 9]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from harness import copy_ms, heavy_tailed, median_ms, resnet18, table
from torch import Tensor

from dgs.layout import Layout
from dgs_ext import ops, reference
from dgs_ext.ops import Selection

Case = tuple[str, int, Callable[[], object], Callable[[], object]]  # name, bytes per parameter, op, torch


def per_tensor_topk(parts: list[Tensor], counts: list[int]) -> list[Tensor]:
    """What a library without kernels does: torch.topk of each tensor's magnitudes."""
    return [p[p.abs().topk(k, sorted=False).indices] for p, k in zip(parts, counts, strict=True)]


def cases(layout: Layout, density: float) -> list[Case]:
    """Each op beside the torch calls that it replaces."""
    counts, offsets = layout.counts(density), layout.offsets
    ks = counts.tolist()
    weights, velocity, mirror = (heavy_tailed(layout.numel, seed) for seed in range(3))
    spare = torch.empty_like(velocity)
    grads = [heavy_tailed(s.numel, 10 + i) for i, s in enumerate(layout.segments)]
    views = [weights[s.offset : s.offset + s.numel] for s in layout.segments]
    out = Selection.allocate(counts)
    lr, decay = torch.full((len(ks),), 0.1), torch.full((len(ks),), 1e-4)
    lengths = [s.numel for s in layout.segments]

    def torch_step() -> list[Tensor]:
        u = velocity + (torch.cat(grads) + weights * 1e-4) * 0.1
        return per_tensor_topk(list(u.split(lengths)), ks)

    def torch_pull() -> list[Tensor]:
        return per_tensor_topk(list((weights - mirror).split(lengths)), ks)

    def step() -> None:
        ops.step_velocity(grads, views, [velocity], [spare], lr, decay, offsets, counts, out)

    return [
        (
            "select",
            4,
            lambda: ops.select([weights], offsets, counts, out),
            lambda: per_tensor_topk(list(weights.split(lengths)), ks),
        ),
        ("step_velocity", 16, step, torch_step),
        (
            "select_difference (pull)",
            8,
            lambda: ops.select_difference([weights], [mirror], offsets, counts, out),
            torch_pull,
        ),
    ]


def verify(layout: Layout, density: float) -> None:
    """The op selects what its twin selects, bit for bit."""
    counts = layout.counts(density)
    x = heavy_tailed(layout.numel, 5)
    mine, twin = Selection.allocate(counts), Selection.allocate(counts)
    ops.select([x], layout.offsets, counts, mine)
    reference.select([x], layout.offsets, counts, twin.starts, False, twin.indices, twin.values, twin.nnz)
    if not (torch.equal(mine.indices, twin.indices) and torch.equal(mine.values, twin.values)):
        raise SystemExit("the op and its twin disagree: no timing is worth printing")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--density", type=float, default=0.01)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    layout = resnet18()
    verify(layout, args.density)
    for threads in args.threads:
        torch.set_num_threads(threads)
        floor = copy_ms(layout.numel, args.repeats)
        rows = []
        for name, width, op, baseline in cases(layout, args.density):
            ms, slow = median_ms(op, args.repeats), median_ms(baseline, max(1, args.repeats // 3))
            rows.append((name, ms, width * layout.numel / ms / 1e6, slow, slow / ms, ms / floor))
        title = f"{layout.numel} parameters, density {args.density}, {threads} threads, copy {floor:.3g} ms"
        print(table(title, ("op", "ms", "GB/s", "torch ms", "faster", "copies"), rows), "\n")


if __name__ == "__main__":
    main()
