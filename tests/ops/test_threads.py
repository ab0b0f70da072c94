# SPDX-License-Identifier: Apache-2.0
"""Results do not depend on how many threads there are."""

from __future__ import annotations

import pytest
import torch

SIZES = [1_500_000, 3, 70_000, 64, 0, 300_000, *([777] * 100)]


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("density", [0.01, 0.2])
@pytest.mark.parametrize("values", ["normal", "ties"])
def test_select_on_threads(agree, make_problem, threads, density, values):
    torch.set_num_threads(threads)
    p = make_problem(SIZES, density)
    x = p.normal(1)
    if values == "ties":
        x[0].mul_(4).round_()
    agree("select", x=x, **p.layout(), **p.selection())
    agree("select", x=x, sampled=True, **p.layout(), **p.selection(spare=5))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_steps_on_threads(agree, make_problem, threads):
    torch.set_num_threads(threads)
    p = make_problem(SIZES, 0.01, "cpu", "list")
    rates = {"lr": p.rates(5), "weight_decay": p.rates(6)}
    common = {"grads": p.normal(1, torch.bfloat16), "weights": p.normal(2), **rates}
    state = {"velocity": p.normal(3), "velocity_out": p.normal(4)}
    sent = agree("step_velocity", **common, **state, **p.layout(), **p.selection())
    sent = {name: sent[name] for name in ("indices", "values", "starts", "nnz")}
    agree("step_dense", **common, out=p.normal(4), offsets=p.offsets, nnz=p.selection()["nnz"])
    agree("apply_velocity_", velocity=p.normal(3), keep=p.rates(7), offsets=p.offsets, **sent)
    agree("sparse_add_", x=p.normal(3), offsets=p.offsets, **sent, subtract=True)
    agree("dense_add_", x=p.normal(3), offsets=p.offsets, values=torch.randn(p.numel), subtract=True)
    agree("quantize_", values=torch.randn(p.numel), codec=2)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_first_bad_index_is_named_on_threads(make_problem, threads):
    torch.set_num_threads(threads)
    p = make_problem([400_000], 1.0)
    slots = p.selection()
    slots["indices"][:] = torch.arange(400_000)
    slots["indices"][[123_456, 300_000]] = 400_000
    slots["nnz"][:] = 400_000
    x = p.normal(1)
    before = x[0].clone()
    with pytest.raises(IndexError, match=r"indices\[123456\] = 400000 is outside \[0, 400000\)"):
        torch.ops.dgs.sparse_add_(x=x, offsets=p.offsets, **slots, subtract=False)
    assert torch.equal(x[0], before)
