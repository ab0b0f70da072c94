# SPDX-License-Identifier: Apache-2.0
"""What was selected goes where it belongs: the apply ops, the adds and their overflow, against their twins."""

from __future__ import annotations

import pytest
import torch

from dgs_ext import reference


def chosen(p, seed=1):
    """A selection of p's k from normal numbers."""
    slots = p.selection()
    reference.select(
        p.normal(seed), p.offsets, p.counts, slots["starts"], False, slots["indices"], slots["values"], slots["nnz"]
    )  # fmt: skip
    return slots


@pytest.mark.parametrize("density", [0.0, 0.01, 0.5, 1.0])
def test_apply_velocity(agree, make_problem, sizes, density, device, style):
    p = make_problem(sizes, density, device, style)
    got = agree("apply_velocity_", velocity=p.normal(2), keep=p.rates(3), offsets=p.offsets, **chosen(p))
    if density == 0.0:
        assert all(torch.equal(a, b) for a, b in zip(got["velocity"], p.normal(2), strict=True))


@pytest.mark.parametrize("density", [0.01, 0.5, 1.0])
def test_apply_dgc(agree, make_problem, sizes, density, device, style):
    p = make_problem(sizes, density, device, style)
    sent = chosen(p)
    sent["values"][::5] = 0.0  # underflowed in its codec: not sent, so not masked
    agree("apply_dgc_", velocity=p.normal(2), residual=p.normal(3), **p.layout(), **sent)


@pytest.mark.parametrize("subtract", [False, True], ids=["add", "subtract"])
@pytest.mark.parametrize("density", [0.01, 1.0])
def test_sparse_add(agree, make_problem, sizes, density, subtract, device, style):
    p = make_problem(sizes, density, device, style)
    agree("sparse_add_", x=p.normal(2), offsets=p.offsets, **chosen(p), subtract=subtract)


@pytest.mark.parametrize("subtract", [False, True], ids=["add", "subtract"])
def test_sparse_add_of_entries_that_came_as_one_list(agree, make_problem, subtract, device, style):
    p = make_problem([5, 0, 70_000, 1, 300], 0.2, device, style)
    whole = make_problem([p.numel], 0.2, device)
    sent = chosen(whole)
    spread = torch.zeros(len(p.sizes) + 1, dtype=torch.int64)
    spread[3:] = int(sent["starts"][-1])  # all of them in the slots of the third segment
    count = torch.zeros(len(p.sizes), dtype=torch.int64, device=device)
    count[2] = int(sent["nnz"][0])
    sent |= {"starts": spread, "nnz": count}
    got = agree("sparse_add_", x=p.normal(2), offsets=p.offsets, **sent, subtract=subtract)
    changed = sum(int((a != b).sum()) for a, b in zip(got["x"], p.normal(2), strict=True))
    assert changed == int(count[2])


@pytest.mark.parametrize("subtract", [False, True], ids=["add", "subtract"])
def test_dense_add(agree, make_problem, sizes, subtract, device, style):
    p = make_problem(sizes, 1.0, device, style)
    values = torch.randn(p.numel, device=device)
    agree("dense_add_", x=p.normal(2), offsets=p.offsets, values=values, subtract=subtract)


def test_sums_below_the_smallest_normal_become_plus_zero(agree, make_problem, device):
    p = make_problem([6], 1.0, device)
    smallest = 2.0**-126
    x = torch.tensor([smallest, -smallest, 1.5 * smallest, -smallest, 1e-41, -0.0])
    q = torch.tensor([-smallest / 2, smallest / 2, -smallest / 4, -smallest, 0.0, -0.0])
    slots = p.selection() | {"indices": torch.arange(6, device=device), "values": q.to(device)}
    slots["nnz"] += 6
    want = [0.0, 0.0, 1.25 * smallest, -2 * smallest, 0.0, 0.0]
    for got in (
        agree("sparse_add_", x=p.operand(x), offsets=p.offsets, **slots, subtract=False),
        agree("dense_add_", x=p.operand(x), offsets=p.offsets, values=q.to(device), subtract=False),
        agree("dense_add_", x=p.operand(x), offsets=p.offsets, values=-q.to(device), subtract=True),
    ):
        assert got["x"][0].tolist() == want
        assert not got["x"][0].signbit()[[0, 1, 4, 5]].any()


@pytest.mark.parametrize("subtract", [False, True], ids=["add", "subtract"])
def test_a_process_that_flushes_denormals_adds_the_same_bits(make_problem, subtract):
    torch.manual_seed(0)
    p = make_problem([10_000], 1.0)
    x, q = (torch.randn(p.numel) * torch.logspace(-40, -36, p.numel) for _ in range(2))
    torch.ops.dgs.quantize_(x, 1)  # what a parameter or a mirror holds, and what is sent, is never denormal
    torch.ops.dgs.quantize_(q, 1)
    results = []
    for flushing in (False, True):
        if not torch.set_flush_denormal(flushing):
            pytest.skip("this processor cannot flush denormals")
        try:
            results.append(x.clone())
            torch.ops.dgs.dense_add_([results[-1]], p.offsets, q, subtract)
        finally:
            torch.set_flush_denormal(False)
    assert torch.equal(*(r.view(torch.int32) for r in results))
    assert 0 < int(results[0].count_nonzero()) < p.numel


@pytest.mark.parametrize("op", ["apply_velocity_", "apply_dgc_", "sparse_add_"])
def test_a_failed_segment_holds_no_entries(agree, make_problem, op, device):
    p = make_problem([100, 100], 0.1, device, "list")
    sent = chosen(p)
    sent["nnz"][0] = -1
    sent["indices"][:10] = 10**9  # scratch
    rest = {
        "apply_velocity_": {"velocity": p.normal(2), "keep": torch.ones(2), "offsets": p.offsets},
        "apply_dgc_": {"velocity": p.normal(2), "residual": p.normal(2), **p.layout()},
        "sparse_add_": {"x": p.normal(2), "offsets": p.offsets, "subtract": True},
    }[op]
    got = agree(op, **rest, **sent)
    first = next(iter(rest))
    assert torch.equal(got[first][0], p.normal(2)[0])
    assert not torch.equal(got[first][1], p.normal(2)[1])


BOUND = torch.finfo(torch.float32).max


@pytest.mark.parametrize("at", [[], [0], [-1], [70_004, 70_005, 140_000], [5, 60_000, 210_305]], ids=str)
@pytest.mark.parametrize("kind", ["sparse", "dense"])
def test_the_lowest_index_that_would_overflow_is_found(agree, make_problem, kind, at, device, style):
    p = make_problem([5, 0, 70_000, 1, 140_000, 300, 0], 1.0, device, style)
    x, q = torch.randn(p.numel), torch.randn(p.numel)
    x[::1000], q[::1000] = BOUND, BOUND / 2**26  # large, and finite all the same
    x[at], q[at] = BOUND, -BOUND
    first = torch.tensor([7], device=device)
    if kind == "dense":
        got = agree("dense_overflow", x=p.operand(x), offsets=p.offsets, values=q.to(device), first=first)
    else:
        sent = p.selection()
        sent["indices"].copy_(torch.arange(p.numel))
        sent["values"].copy_(q)
        sent["nnz"].copy_(p.counts)
        got = agree("sparse_overflow", x=p.operand(x), offsets=p.offsets, first=first, **sent)
    assert int(got["first"]) == (min(i % p.numel for i in at) if at else -1)


def test_only_what_is_sent_can_overflow(agree, make_problem, device, style):
    p = make_problem([100, 3000], 0.1, device, style)
    sent = chosen(p)
    x = torch.full((p.numel,), -BOUND)
    sent["values"].fill_(0.0)
    quiet = agree(
        "sparse_overflow", x=p.operand(x), offsets=p.offsets, first=torch.tensor([7], device=device), **sent
    )
    assert int(quiet["first"]) == -1
    sent["values"].fill_(BOUND)
    sent["nnz"][0] = 0
    loud = agree(
        "sparse_overflow", x=p.operand(x), offsets=p.offsets, first=torch.tensor([7], device=device), **sent
    )
    assert int(loud["first"]) == int(sent["indices"][int(sent["starts"][1])])
