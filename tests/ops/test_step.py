# SPDX-License-Identifier: Apache-2.0
"""The workers' steps against their twins."""

from __future__ import annotations

import pytest
import torch

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture(params=DTYPES, ids=str)
def dtype(request):
    return request.param


def velocity_operands(p, dtype=torch.float32):
    return {
        "grads": p.normal(1, dtype),
        "weights": p.normal(2),
        "velocity": p.normal(3),
        "velocity_out": p.normal(4),
        "lr": p.rates(5),
        "weight_decay": p.rates(6),
    }


def dgc_operands(p, dtype=torch.float32, nesterov=False, grad_scale=0.37):
    return {
        **velocity_operands(p, dtype),
        "residual": p.normal(7),
        "residual_out": p.normal(8),
        "momentum": p.rates(9),
        "grad_scale": grad_scale,
        "nesterov": nesterov,
    }


@pytest.mark.parametrize("density", [0.01, 0.3])
def test_step_velocity(agree, make_problem, sizes, density, dtype, device, style):
    p = make_problem(sizes, density, device, style)
    got = agree("step_velocity", **velocity_operands(p, dtype), **p.layout(), **p.selection())
    assert got["nnz"].tolist() == p.counts.tolist()
    agree("step_velocity", **velocity_operands(p, dtype), sampled=True, **p.layout(), **p.selection(spare=20))


@pytest.mark.parametrize("nesterov", [False, True], ids=["plain", "nesterov"])
def test_step_dgc(agree, make_problem, sizes, nesterov, dtype, device, style):
    p = make_problem(sizes, 0.01, device, style)
    got = agree("step_dgc", **dgc_operands(p, dtype, nesterov), **p.layout(), **p.selection())
    assert got["nnz"].tolist() == p.counts.tolist()
    agree("step_dgc", **dgc_operands(p, dtype, nesterov), sampled=True, **p.layout(), **p.selection(spare=20))


def test_step_dense(agree, make_problem, sizes, dtype, device, style):
    p = make_problem(sizes, 1.0, device, style)
    operands = velocity_operands(p, dtype)
    operands["out"] = operands.pop("velocity_out")
    del operands["velocity"]
    nnz = p.selection()["nnz"]
    assert agree("step_dense", **operands, offsets=p.offsets, nnz=nnz)["nnz"].tolist() == sizes


@pytest.mark.parametrize("n", [100, 200_000, 5_000_000])
def test_a_dense_step_is_what_float32_says_on_the_wire(agree, make_problem, n, dtype, device):
    """Below 2^-126 is +0, as quantize_ would make it, whether results are streamed or not."""
    p = make_problem([n], 1.0, device)
    grads = [(g.float() * 2.0**-10).to(dtype) for g in p.normal(1)]
    lr = torch.tensor([2.0**-116])
    got = agree(
        "step_dense", grads=grads, weights=p.normal(2), out=p.normal(3), lr=lr, weight_decay=torch.zeros(1),
        offsets=p.offsets, nnz=p.selection()["nnz"],
    )["out"][0]  # fmt: skip
    exact = grads[0].double() * lr.double()
    lost = exact.abs() < 2.0**-126
    assert 0.5 < lost.double().mean() < 0.8
    assert torch.equal(got.double(), exact.masked_fill(lost, 0.0))
    assert not got[lost].signbit().any()


def missing(p, which):
    grads = p.normal(1)
    return [torch.empty(0, device=p.device) if s in which else g for s, g in enumerate(grads)]


def test_a_missing_gradient_leaves_the_state_of_its_segment(agree, make_problem, device):
    p = make_problem([100, 70_000, 64, 200_000], 0.01, device, "list")
    operands = velocity_operands(p) | {"grads": missing(p, {1, 2})}
    got = agree("step_velocity", **operands, **p.layout(), **p.selection())
    assert torch.equal(got["velocity_out"][1], operands["velocity"][1])
    assert got["nnz"].tolist() == p.counts.tolist(), "what it holds is still sent"
    operands = dgc_operands(p) | {"grads": missing(p, {0, 3})}
    got = agree("step_dgc", **operands, **p.layout(), **p.selection())
    assert torch.equal(got["residual_out"][3], operands["residual"][3])
    assert torch.equal(got["velocity_out"][0], operands["velocity"][0])


def test_a_missing_gradient_is_a_dense_step_of_nothing(agree, make_problem, device):
    p = make_problem([100, 70_000], 1.0, device, "list")
    operands = {"weights": p.normal(2), "out": p.normal(4), "lr": p.rates(5), "weight_decay": p.rates(6)}
    got = agree("step_dense", grads=missing(p, {1}), **operands, offsets=p.offsets, nnz=p.selection()["nnz"])
    assert not got["out"][1].any()
    assert got["nnz"].tolist() == p.sizes


def test_every_tensor_may_have_a_gradient_type_of_its_own(agree, make_problem, device):
    p = make_problem([100, 70_000, 64, 9], 0.01, device, "list")
    operands = velocity_operands(p)
    types = [torch.float16, torch.bfloat16, torch.float32, torch.float16]
    operands["grads"] = [g.to(t) for g, t in zip(operands["grads"], types, strict=True)]
    agree("step_velocity", **operands, **p.layout(), **p.selection())


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16], ids=str)
def test_every_finite_half_gradient_is_read_exactly(agree, make_problem, half, device):
    patterns = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(half)
    patterns = patterns[patterns.isfinite()]
    p = make_problem([patterns.numel()], 1.0, device)
    nothing = p.operand(torch.zeros(p.numel))
    one, zero = torch.ones(1), torch.zeros(1)
    got = agree(
        "step_velocity", grads=p.operand(patterns), weights=nothing, velocity=nothing, velocity_out=nothing,
        lr=one, weight_decay=zero, **p.layout(), **p.selection(),
    )  # fmt: skip
    assert torch.equal(got["velocity_out"][0], patterns.float().to(device) + 0.0)


@pytest.mark.parametrize("where", ["grads", "weights", "velocity"])
@pytest.mark.parametrize("value", [torch.inf, torch.nan])
@pytest.mark.parametrize("n", [100, 200_000])
def test_step_velocity_reports_what_is_not_finite(agree, make_problem, where, value, n, dtype, device):
    p = make_problem([10, n], 0.01, device, "list")
    half = torch.full((2,), 0.5)
    operands = velocity_operands(p, dtype) | {"lr": half, "weight_decay": half}
    operands[where][1][n // 2] = value
    assert agree("step_velocity", **operands, **p.layout(), **p.selection())["nnz"].tolist() == [1, -1]


@pytest.mark.parametrize("where", ["velocity", "residual"])
@pytest.mark.parametrize("n", [100, 200_000])
def test_step_dgc_reports_either_state_even_without_a_gradient(agree, make_problem, where, n, device):
    p = make_problem([n, 10], 0.01, device, "list")
    operands = dgc_operands(p) | {"grads": missing(p, {0})}
    operands[where][0][n // 2] = torch.nan
    for sampled in (False, True):
        got = agree("step_dgc", **operands, sampled=sampled, **p.layout(), **p.selection())
        assert [nnz >= 0 for nnz in got["nnz"].tolist()] == [False, True]


def test_step_dense_reports_what_is_not_finite(agree, make_problem, device):
    p = make_problem([10, 200_000, 3], 1.0, device, "list")
    grads = p.normal(1)
    grads[1][150_000] = 3e38
    got = agree(
        "step_dense", grads=grads, weights=p.normal(2), out=p.normal(3), lr=torch.full((3,), 2.0),
        weight_decay=torch.zeros(3), offsets=p.offsets, nnz=p.selection()["nnz"],
    )  # fmt: skip
    assert got["nnz"].tolist() == [10, -1, 3]


def test_without_weight_decay_the_weights_do_not_matter(agree, make_problem, device):
    p = make_problem([1000], 0.1, device)
    operands = velocity_operands(p) | {
        "weights": p.operand(torch.full((1000,), torch.nan)),
        "weight_decay": torch.zeros(1),
    }
    assert agree("step_velocity", **operands, **p.layout(), **p.selection())["nnz"].tolist() == [100]
