# SPDX-License-Identifier: Apache-2.0
"""What must hold for any layout and any values: of the methods (DESIGN §3), not only of the twins."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dgs_ext import ops
from dgs_ext.ops import Selection

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
LEVELS = st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0, 1e-40, -1e-40, 1e30])
LIMITS = settings(max_examples=80, deadline=None)


@st.composite
def layouts(draw):
    """Segments of mixed sizes, k for each, and as many values: a few levels with ties, or anything finite."""
    sizes = draw(st.lists(st.integers(0, 40), max_size=6))
    counts = [draw(st.integers(0, n)) for n in sizes]
    element = draw(st.sampled_from([FINITE, LEVELS]))
    values = draw(st.lists(element, min_size=sum(sizes), max_size=sum(sizes)))
    return sizes, torch.tensor(counts, dtype=torch.int64), torch.tensor(values, dtype=torch.float32)


def offsets_of(sizes):
    return torch.tensor([0, *sizes]).cumsum(0)


def dense(selection, n):
    indices, values = selection.compact()
    return torch.zeros(n).index_put((indices,), values)


@LIMITS
@given(layouts())
def test_a_selection_is_the_largest_and_no_zeros(layout):
    sizes, counts, x = layout
    out = Selection.allocate(counts)
    ops.select([x], offsets_of(sizes), counts, out)
    q = dense(out, x.numel())
    for s, (part, kept) in enumerate(zip(x.split(sizes), q.split(sizes), strict=True)):
        n = int(out.nnz[s])
        assert n == min(int(counts[s]), int(part.count_nonzero())) == int(kept.count_nonzero())
        left = part[kept == 0].abs()
        chosen = kept[kept != 0].abs()
        if n and left.numel():
            assert chosen.min() >= left.max()
            ties = (part.abs() == chosen.min()).nonzero().view(-1)
            taken = (kept.abs() == chosen.min()).nonzero().view(-1)
            assert taken.tolist() == ties[: taken.numel()].tolist(), "lowest index first"
    assert out.compact()[0].tolist() == sorted(set(out.compact()[0].tolist()))


@LIMITS
@given(layouts(), st.sampled_from([1, 2, 3]), st.sampled_from([0.0, 0.5, 1.0]))
def test_velocity_keeps_what_was_not_sent(layout, codec, keep):
    sizes, counts, grad = layout
    grad = grad.clamp(-1e4, 1e4)
    zero, offsets = torch.zeros(len(sizes)), offsets_of(sizes)
    u, out = [torch.empty_like(grad)], Selection.allocate(counts)
    nothing = [torch.zeros_like(grad)]
    ops.step_velocity([grad], nothing, nothing, u, zero + 1, zero, offsets, counts, out)
    before = u[0].clone()
    ops.quantize_(out.values, codec)
    ops.apply_velocity_(u, zero + keep, offsets, out)
    q = dense(out, grad.numel())
    untouched = torch.ones(grad.numel(), dtype=torch.bool).index_fill(0, out.compact()[0], False)
    assert torch.equal(u[0][untouched], before[untouched])
    assert torch.equal(u[0], before - q * keep)
    assert u[0].double().norm() <= before.double().norm(), "the error of a codec does not grow the velocity"


@LIMITS
@given(layouts(), st.sampled_from([1, 2, 3]))
def test_a_pull_brings_the_mirror_nearer_and_loses_nothing(layout, codec):
    sizes, counts, theta = layout
    theta = theta.clamp(-1e4, 1e4)
    offsets, mirror, worker = offsets_of(sizes), [torch.zeros_like(theta)], [torch.zeros_like(theta)]
    for _ in range(3):
        out, gap = Selection.allocate(counts), (theta - mirror[0]).abs()
        ops.select_difference([theta], mirror, offsets, counts, out)
        ops.quantize_(out.values, codec)
        ops.sparse_add_(mirror, offsets, out)
        ops.sparse_add_(worker, offsets, out)
        assert torch.equal(worker[0].view(torch.int32), mirror[0].view(torch.int32))
        assert ((theta - mirror[0]).abs() <= gap).all()


@LIMITS
@given(layouts())
def test_flat_and_list_are_the_same(layout):
    sizes, counts, x = layout
    a, b = Selection.allocate(counts), Selection.allocate(counts)
    ops.select([x], offsets_of(sizes), counts, a)
    ops.select(list(x.split(sizes)) if sizes else [], offsets_of(sizes), counts, b)
    assert torch.equal(a.nnz, b.nnz)
    assert all(torch.equal(p, q) for p, q in zip(a.compact(), b.compact(), strict=True))


@LIMITS
@given(layouts(), st.booleans())
def test_dgc_sends_or_keeps_every_bit_of_the_update(layout, nesterov):
    sizes, counts, grad = layout
    grad = grad.clamp(-1e4, 1e4)
    zero, offsets = torch.zeros(len(sizes)), offsets_of(sizes)
    state = [[torch.zeros_like(grad)] for _ in range(4)]
    out = Selection.allocate(counts)
    ops.step_dgc(
        [grad], [grad], state[0], state[1], state[2], state[3], zero + 1, zero, zero + 0.5, offsets, counts, out,
        nesterov=nesterov,
    )  # fmt: skip
    u, r = state[2][0].clone(), state[3][0].clone()
    ops.apply_dgc_(state[2], state[3], offsets, counts, out)
    q = dense(out, grad.numel())
    assert torch.equal(state[3][0] + q, r)
    n = torch.tensor(sizes, dtype=torch.int64)
    masked = (q != 0) & (counts < n).repeat_interleave(n)
    assert torch.equal(state[2][0], torch.where(masked, torch.zeros_like(u), u))
