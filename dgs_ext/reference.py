# SPDX-License-Identifier: Apache-2.0
"""Plain-torch twins of the ops in csrc/ops.cpp: the specification, the oracle and the benchmarks' baseline.

They take what the ops take and write where the ops write. Multiplications and additions stay apart (no addcmul, no
alpha=), so that each is rounded on its own. See csrc/ops.cpp for the operands.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from dgs_ext._composed import Composed

SAMPLE = 4096
SMALLEST_NORMAL = 2.0**-126
VALUE_BLOCK = 128  # slots of a segment with one scale
SQRT2 = 11863283 / 2**23  # as float32 has it


def segments(x: Sequence[Tensor], offsets: Tensor) -> list[Tensor]:
    """The S flat segments of a model-sized operand: one flat tensor [N], or S tensors."""
    bounds = offsets.tolist()
    if len(x) == 1 and x[0].numel() == bounds[-1]:
        return [x[0].view(-1)[a:b] for a, b in pairwise(bounds)]
    return [t.view(-1) for t in x]


def _entries(starts: Tensor, nnz: Tensor) -> Iterator[tuple[int, slice]]:
    for s, (start, n) in enumerate(zip(starts.tolist(), nnz.tolist(), strict=False)):
        yield s, slice(start, start + max(n, 0))


def flush(x: Tensor) -> Tensor:
    """`x` with everything below 2^-126 in magnitude set to +0."""
    return torch.where(x.abs() < SMALLEST_NORMAL, torch.zeros_like(x), x)


def top(x: Tensor, k: int) -> Tensor:
    """Ascending indices of the min(k, nonzeros) entries of x [n] largest in magnitude, ties lowest index first."""
    magnitude = x.abs()
    order = torch.argsort(magnitude, descending=True, stable=True)[:k]
    return order[magnitude[order] > 0].sort().values


def _write(
    s: int,
    x: Tensor,
    keep: Tensor,
    offsets: Tensor,
    starts: Tensor,
    indices: Tensor,
    values: Tensor,
    nnz: Tensor,
) -> None:
    if not bool(torch.isfinite(x).all()):
        nnz[s] = -1
        return
    start, n = int(starts[s]), keep.numel()
    indices[start : start + n] = keep + offsets[s].to(keep.device)
    values[start : start + n] = x[keep]
    nnz[s] = n


def sampled_threshold(x: Tensor, k: int) -> float:
    """The magnitude that about k entries of x [n] reach, from every (n // SAMPLE)-th entry; 0 takes all."""
    n = x.numel()
    if k >= n:
        return 0.0
    sample = x[:: max(1, n // SAMPLE)].abs()
    rank = max(1, (k * sample.numel() + n // 2) // n)
    return float(sample.sort(descending=True).values[rank - 1])


def above_sampled(x: Tensor, k: int, slots: int) -> Tensor:
    """Ascending indices of the first `slots` nonzeros of x [n] that reach the sampled threshold."""
    keep = (x.abs() >= sampled_threshold(x, k)) & (x != 0)
    return keep.nonzero().view(-1)[:slots]


def select(
    x: Sequence[Tensor],
    offsets: Tensor,
    counts: Tensor,
    starts: Tensor,
    sampled: bool,
    indices: Tensor,
    values: Tensor,
    nnz: Tensor,
) -> None:
    for s, segment in enumerate(segments(x, offsets)):
        k, slots = int(counts[s]), int(starts[s + 1] - starts[s])
        keep = above_sampled(segment, k, slots) if sampled else top(segment, k)
        _write(s, segment, keep, offsets, starts, indices, values, nnz)


def select_difference(
    x: Sequence[Tensor],
    y: Sequence[Tensor],
    offsets: Tensor,
    counts: Tensor,
    starts: Tensor,
    sampled: bool,
    indices: Tensor,
    values: Tensor,
    nnz: Tensor,
) -> None:
    difference = [a - b for a, b in zip(segments(x, offsets), segments(y, offsets), strict=True)]
    select(difference, offsets, counts, starts, sampled, indices, values, nnz)


def _decayed(grad: Tensor, weight: Tensor, weight_decay: Tensor) -> Tensor:
    grad = grad.reshape(-1).float()
    return grad if weight_decay == 0 else grad + weight * weight_decay.to(weight.device)


def step_velocity(
    grads: Sequence[Tensor],
    weights: Sequence[Tensor],
    velocity: Sequence[Tensor],
    velocity_out: Sequence[Tensor],
    lr: Tensor,
    weight_decay: Tensor,
    offsets: Tensor,
    counts: Tensor,
    starts: Tensor,
    sampled: bool,
    indices: Tensor,
    values: Tensor,
    nnz: Tensor,
) -> None:
    operands = (segments(t, offsets) for t in (grads, weights, velocity, velocity_out))
    for s, (grad, w, v, out) in enumerate(zip(*operands, strict=True)):
        u = v if grad.numel() != v.numel() else v + _decayed(grad, w, weight_decay[s]) * lr[s].to(v.device)
        out.copy_(u)
    select(velocity_out, offsets, counts, starts, sampled, indices, values, nnz)


def step_dgc(
    grads: Sequence[Tensor],
    weights: Sequence[Tensor],
    velocity: Sequence[Tensor],
    residual: Sequence[Tensor],
    velocity_out: Sequence[Tensor],
    residual_out: Sequence[Tensor],
    lr: Tensor,
    weight_decay: Tensor,
    momentum: Tensor,
    grad_scale: float,
    nesterov: bool,
    offsets: Tensor,
    counts: Tensor,
    starts: Tensor,
    sampled: bool,
    indices: Tensor,
    values: Tensor,
    nnz: Tensor,
) -> None:
    operands = (
        segments(t, offsets) for t in (grads, weights, velocity, residual, velocity_out, residual_out)
    )
    scale = torch.tensor(grad_scale, dtype=torch.float32)
    for s, (grad, w, u, r, u_out, r_out) in enumerate(zip(*operands, strict=True)):
        if grad.numel() == u.numel():
            m = momentum[s].to(u.device)
            g = _decayed(grad.reshape(-1).float() * scale.to(u.device), w, weight_decay[s])
            u = u * m + g
            r = r + (g + u * m if nesterov else u) * lr[s].to(u.device)
        u_out.copy_(u)
        r_out.copy_(r)
    select(residual_out, offsets, counts, starts, sampled, indices, values, nnz)
    for s, u in enumerate(segments(velocity_out, offsets)):
        if not bool(torch.isfinite(u).all()):
            nnz[s] = -1


def step_dense(
    grads: Sequence[Tensor],
    weights: Sequence[Tensor],
    out: Sequence[Tensor],
    lr: Tensor,
    weight_decay: Tensor,
    offsets: Tensor,
    nnz: Tensor,
) -> None:
    operands = (segments(t, offsets) for t in (grads, weights, out))
    for s, (grad, w, q) in enumerate(zip(*operands, strict=True)):
        if grad.numel() != q.numel():
            q.zero_()
        else:
            q.copy_(flush(_decayed(grad, w, weight_decay[s]) * lr[s].to(q.device)))
        nnz[s] = q.numel() if bool(torch.isfinite(q).all()) else -1


def quantize_(values: Tensor, codec: int) -> None:
    if codec != 1:
        dtype = {2: torch.float16, 3: torch.bfloat16}[codec]
        limit = torch.finfo(dtype).max
        values.copy_(values.clamp(-limit, limit).to(dtype).float())
    values.copy_(flush(values))


def quantize_blocks_(values: Tensor, offsets: Tensor, starts: Tensor, nnz: Tensor, codec: int) -> None:
    for _, entries in _entries(starts, nnz):
        for block in values[entries].split(VALUE_BLOCK):
            block.copy_(_quantized_block(block, codec))


def _quantized_block(x: Tensor, codec: int) -> Tensor:
    """What one block makes of x [n <= 128]: int8 (4), levels of 4, 3 or 2 bits (5, 6, 7), or sign (8)."""
    m = x.abs().nan_to_num(nan=0.0, posinf=torch.finfo(torch.float32).max).double()
    m[m < SMALLEST_NORMAL] = 0
    if not bool(m.any()):
        return torch.where(x.isnan(), x, 0.0)
    exponent = math.frexp(float(m.max()))[1] - 1
    if codec == 4:
        scale = 2.0 ** max(exponent - 6, -126)
        q = (m / scale).round().clamp(max=127) * scale
    elif codec == 8:
        unit = 2.0 ** (exponent - 23)
        mean = int((m / unit).floor().sum()) // int((m > 0).sum())
        few = mean.bit_length() - 8
        scale = max((mean >> few << few) * unit, SMALLEST_NORMAL)
        q = torch.where(m >= scale / 2, scale, 0.0)
    else:
        t = _half_octave(m)
        lowest = (t.max() - (2 ** (8 - codec) - 1)).clamp(min=-252)
        q = torch.where(t >= lowest, _of_half_octave(t), _of_half_octave(lowest))
        q[m < q / 2] = 0
    q[m == 0] = 0
    return torch.where(x.isnan(), x, torch.where(q > 0, q.float().copysign(x), 0.0))


def _half_octave(m: Tensor) -> Tensor:
    """The t whose 2^(t/2) is nearest to m > 0."""
    fraction, exponent = torch.frexp(m.clamp(min=SMALLEST_NORMAL))
    between = (2 * fraction >= (1 + SQRT2) / 2).int() + (2 * fraction >= (SQRT2 + 2) / 2).int()
    return (2 * (exponent - 1) + between).clamp(max=255)


def _of_half_octave(t: Tensor) -> Tensor:
    return torch.where(t % 2 == 0, 1.0, SQRT2).double() * 2.0 ** t.div(2, rounding_mode="floor").double()


def apply_velocity_(
    velocity: Sequence[Tensor],
    keep: Tensor,
    offsets: Tensor,
    indices: Tensor,
    values: Tensor,
    starts: Tensor,
    nnz: Tensor,
) -> None:
    v = segments(velocity, offsets)
    for s, entries in _entries(starts, nnz):
        i = indices[entries] - offsets[s].to(indices.device)
        v[s][i] -= values[entries] * keep[s].to(values.device)


def apply_dgc_(
    velocity: Sequence[Tensor],
    residual: Sequence[Tensor],
    offsets: Tensor,
    counts: Tensor,
    indices: Tensor,
    values: Tensor,
    starts: Tensor,
    nnz: Tensor,
) -> None:
    u, r = segments(velocity, offsets), segments(residual, offsets)
    for s, entries in _entries(starts, nnz):
        i, q = indices[entries] - offsets[s].to(indices.device), values[entries]
        r[s][i] -= q
        if int(counts[s]) < u[s].numel():
            u[s][i[q != 0]] = 0


def sparse_add_(
    x: Sequence[Tensor],
    offsets: Tensor,
    indices: Tensor,
    values: Tensor,
    starts: Tensor,
    nnz: Tensor,
    subtract: bool,
) -> None:
    filled = [entries for _, entries in _entries(starts, nnz)]
    i = torch.cat([indices[:0], *(indices[entries] for entries in filled)])
    q = torch.cat([values[:0], *(values[entries] for entries in filled)])
    for s, segment in enumerate(segments(x, offsets)):
        inside = (i >= offsets[s].item()) & (i < offsets[s + 1].item())
        at = i[inside] - offsets[s].item()
        segment[at] = flush(segment[at] - q[inside] if subtract else segment[at] + q[inside])


def dense_add_(x: Sequence[Tensor], offsets: Tensor, values: Tensor, subtract: bool) -> None:
    for segment, q in zip(segments(x, offsets), segments([values], offsets), strict=True):
        segment.copy_(flush(segment - q if subtract else segment + q))


def sparse_overflow(
    x: Sequence[Tensor],
    offsets: Tensor,
    indices: Tensor,
    values: Tensor,
    starts: Tensor,
    nnz: Tensor,
    first: Tensor,
) -> None:
    flat = torch.cat([values[:0], *(t.reshape(-1) for t in x)])
    filled = [entries for _, entries in _entries(starts, nnz)]
    i = torch.cat([indices[:0], *(indices[entries] for entries in filled)])
    q = torch.cat([values[:0], *(values[entries] for entries in filled)])
    _lowest(i[~(flat[i] - q).isfinite()], first)


def dense_overflow(x: Sequence[Tensor], offsets: Tensor, values: Tensor, first: Tensor) -> None:
    flat = torch.cat([values[:0], *(t.reshape(-1) for t in x)])
    _lowest((~(flat - values).isfinite()).nonzero().view(-1), first)


def _lowest(indices: Tensor, first: Tensor) -> None:
    first.fill_(int(indices.min()) if indices.numel() else -1)


_together = Composed(sys.modules[__name__])
push_velocity, push_dgc, pull = _together.push_velocity, _together.push_dgc, _together.pull
