# SPDX-License-Identifier: Apache-2.0
"""The ops that select, quantise and take out at once, against the three twins that they stand for.

On the CPU most of what is sent as float32 is taken out before it is known what is chosen: ties, missing slots,
numbers too small to be sent and estimates that are wrong (tests/cpp/test_take.cpp) are where that can go wrong.
"""

from __future__ import annotations

import pytest
import torch

from dgs_ext import ops
from dgs_ext._composed import Composed
from dgs_ext.ops import Selection

CODECS = [1, 2, 3, 4, 5, 6, 7, 8]
SIZES = [5, 70_000, 300_000, 1, 2_000, 0, 40_000]
LARGE = [5_000_000]  # results are streamed past the caches


def push(p, dtype=torch.float32):
    """The operands of push_velocity, for `agree`."""
    return {
        "grads": p.normal(1, dtype), "weights": p.normal(2), "velocity": p.normal(3),
        "velocity_out": p.normal(4), "keep": p.rates(5), "lr": p.rates(6), "weight_decay": p.rates(7),
    }  # fmt: skip


def dgc(p, dtype=torch.float32):
    """Those of push_dgc."""
    operands = push(p, dtype)
    del operands["keep"]
    state = {"residual": p.normal(8), "residual_out": p.normal(9), "momentum": p.rates(10)}
    return {**operands, **state, "grad_scale": 0.4, "nesterov": True}


def pull(p):
    """Those of pull."""
    return {"x": p.normal(1), "mirror": p.normal(2)}


EACH = {"push_velocity": push, "push_dgc": dgc, "pull": pull}


@pytest.fixture(params=EACH)
def op(request):
    return request.param


@pytest.mark.parametrize("density", [0.0, 0.01, 0.3, 1.0])
def test_small_and_odd_segments(agree, make_problem, op, sizes, density, device, style):
    p = make_problem(sizes, density, device, style)
    got = agree(op, **EACH[op](p), codec=1, **p.layout(), **p.selection())
    assert got["nnz"].tolist() == p.counts.tolist()


@pytest.mark.parametrize("density", [0.001, 0.1, 0.6])
@pytest.mark.parametrize("codec", CODECS)
def test_codecs(agree, make_problem, op, codec, density, device):
    p = make_problem(SIZES, density, device, "list")
    agree(op, **EACH[op](p), codec=codec, **p.layout(), **p.selection(spare=3))
    agree(op, **EACH[op](p), codec=codec, sampled=True, **p.layout(), **p.selection(spare=30))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("op", ["push_velocity", "push_dgc"])
def test_half_gradients(agree, make_problem, op, dtype):
    p = make_problem(SIZES, 0.01, "cpu", "list")
    agree(op, **EACH[op](p, dtype), codec=1, **p.layout(), **p.selection())


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_streamed_and_on_threads(agree, make_problem, op, threads):
    torch.set_num_threads(threads)
    for sizes in (SIZES, LARGE):
        p = make_problem(sizes, 0.01)
        for codec in (1, 4):
            agree(op, **EACH[op](p), codec=codec, **p.layout(), **p.selection())


def rounded(operands, levels):
    """The same with few distinct values."""
    for name in ("grads", "velocity", "residual", "x", "mirror"):
        operands[name] = [(t * levels).round() / levels for t in operands.get(name, [])]
    ones = torch.ones_like(operands["lr"]) if "lr" in operands else None
    changed = {"lr": ones, "weight_decay": ones * 0, "momentum": ones, "grad_scale": 1.0} if "lr" in operands else {}
    return {k: changed.get(k, v) for k, v in operands.items() if v != []}


@pytest.mark.parametrize("levels", [1, 20, 1000])
@pytest.mark.parametrize("sampled", [False, True])
def test_ties_of_which_some_are_chosen(agree, make_problem, op, levels, sampled):
    """Many are candidates and few are chosen; with one level in fact too many, and the segment is read again."""
    p = make_problem([300_000, 70_000], 0.01)
    agree(op, **rounded(EACH[op](p), levels), codec=1, sampled=sampled, **p.layout(), **p.selection(spare=9))


def test_fewer_slots_than_reach_the_sampled_threshold(agree, make_problem, op):
    """What the sweep took of those that found no slot is put back."""
    p = make_problem([100_000, 50, 200_000, 90_000], 0.05)
    slots = p.selection() | {"starts": torch.tensor([0, 700, 702, 1500, 1500])}  # and none for the last
    got = agree(op, **EACH[op](p), codec=1, sampled=True, **p.layout(), **slots)
    assert got["nnz"].tolist() == [700, 2, 798, 0]


def test_nothing_is_taken_where_nothing_is_wanted(agree, make_problem, op):
    """As of a step that is not exchanged, or of a parameter without gradient: no count, and no slots."""
    p = make_problem([100_000, 300_000], 0.0)
    for sampled in (False, True):
        got = agree(op, **EACH[op](p), codec=1, sampled=sampled, **p.layout(), **p.selection())
        assert got["nnz"].tolist() == [0, 0]


@pytest.mark.parametrize("scale", [1e-37, 1e-39, 1e-41])
def test_what_is_too_small_for_the_wire_stays(agree, make_problem, op, scale):
    """Chosen, sent as zero, and still there."""
    p = make_problem(SIZES, 0.05)
    operands = EACH[op](p)
    for name in ("grads", "weights", "velocity", "residual", "x", "mirror"):
        if name in operands:
            operands[name] = [t * scale for t in operands[name]]
    agree(op, **operands, codec=1, **p.layout(), **p.selection())


@pytest.mark.parametrize("head", [0.02, 0.5])
def test_a_part_of_another_scale(agree, make_problem, op, head):
    p = make_problem([200_000, 400_000], 0.01)
    for factor in (1e-3, 1e3):
        operands = EACH[op](p)
        name = "x" if op == "pull" else "velocity" if op == "push_velocity" else "residual"
        operands[name][0][: int(head * 200_000)] *= factor
        got = agree(op, **operands, codec=1, **p.layout(), **p.selection())
        assert got["nnz"].tolist() == p.counts.tolist()


def test_a_failed_segment_leaves_the_others_right(agree, make_problem, op):
    """And a pull's mirror as it was."""
    p = make_problem([40_000, 200_000, 30], 0.01, "cpu", "list")
    operands = EACH[op](p)
    name = "x" if op == "pull" else "velocity"
    operands[name][1][123_456] = torch.nan
    got = agree(op, **operands, codec=1, **p.layout(), **p.selection())
    assert got["nnz"].tolist() == [400, -1, 1]
    if op == "pull":
        assert torch.equal(got["mirror"][1], operands["mirror"][1])


def test_a_missing_gradient(agree, make_problem):
    p = make_problem([100, 70_000, 64, 200_000], 0.01, "cpu", "list")
    for op in ("push_velocity", "push_dgc"):
        operands = EACH[op](p)
        operands["grads"] = [torch.empty(0) if s in {1, 2} else g for s, g in enumerate(operands["grads"])]
        got = agree(op, **operands, codec=1, **p.layout(), **p.selection())
        assert got["nnz"].tolist() == p.counts.tolist()


def test_its_parts_compute_the_same(make_problem, op):
    """Put together from the other ops, as a GPU has it."""
    p = make_problem(SIZES, 0.02, "cpu", "list")
    results = []
    for impl in (torch.ops.dgs, Composed(torch.ops.dgs)):
        operands = EACH[op](p)
        out = p.selection()
        getattr(impl, op)(**operands, **p.layout(), **out, sampled=False, codec=7)
        written = [t for name in ("velocity_out", "residual_out", "mirror") for t in operands.get(name, [])]
        results.append([*written, *Selection(**out).compact()])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("codec", [0, 9])
def test_an_unknown_codec_is_refused(make_problem, codec, device):
    p = make_problem([10], 0.1, device)
    x, mirror = p.normal(1), p.normal(2)
    before = mirror[0].clone()
    with pytest.raises(RuntimeError, match=rf"dgs::pull: codec = {codec}, must be 1 \(float32\), .* or 8"):
        ops.pull(x, mirror, p.offsets, p.counts, Selection.allocate(p.counts, device), codec)
    assert torch.equal(mirror[0], before)
