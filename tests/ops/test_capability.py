# SPDX-License-Identifier: Apache-2.0
"""Each instruction set that the CPU ops are compiled for computes what the twins do, and one is chosen by name."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from dgs_ext import _capability
from dgs_ext.errors import BuildError

SIZES = [5, 0, 70_001, 1, 140_000, 300]


@pytest.fixture(params=_capability.NAMES)
def capability(request):
    """Each of them in turn; afterwards what was in use before."""
    if request.param not in _capability.available():
        pytest.skip(f"this machine cannot run {request.param}")
    before = _capability.in_use()
    _capability.use(request.param)
    yield request.param
    _capability.use(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("density", [0.01, 0.2, 1.0])
def test_all_ops(agree, make_problem, capability, dtype, density):
    p = make_problem(SIZES, density, "cpu", "list")
    assert _capability.in_use() == capability
    x, y, layout = p.normal(1), p.normal(2), p.layout()
    for sampled in (False, True):
        agree("select", x=x, sampled=sampled, **layout, **p.selection())
        agree("select_difference", x=x, y=y, sampled=sampled, **layout, **p.selection())
    rates = {"lr": p.rates(5), "weight_decay": p.rates(6)}
    step = {"grads": p.normal(3, dtype), "weights": p.normal(4), **rates}
    state = {"velocity": x, "velocity_out": y}
    dgc = {"residual": p.normal(7), "residual_out": p.normal(8), "momentum": p.rates(9), "grad_scale": 0.3}
    sent = agree("step_velocity", **step, **state, **layout, **p.selection())
    agree("step_dgc", **step, **state, **dgc, nesterov=density == 0.2, **layout, **p.selection())
    for codec in (1, 3, 4):
        common = {**layout, **p.selection(), "codec": codec}
        agree("push_velocity", **step, **state, keep=p.rates(10), **common)
        agree("push_dgc", **step, **state, **dgc, nesterov=density == 0.2, **common)
        agree("pull", x=x, mirror=y, **common)
    agree("step_dense", **step, out=y, offsets=p.offsets, nnz=p.selection()["nnz"])
    small = {**step, "lr": rates["lr"] * 2.0**-126, "weights": p.operand(torch.zeros(p.numel))}
    agree("step_dense", **small, out=y, offsets=p.offsets, nnz=p.selection()["nnz"])
    sent = {name: sent[name] for name in ("indices", "values", "starts", "nnz")}
    blocks = {"offsets": p.offsets, **{name: sent[name] for name in ("values", "starts", "nnz")}}
    agree("apply_velocity_", velocity=x, keep=p.rates(7), offsets=p.offsets, **sent)
    agree("sparse_add_", x=x, offsets=p.offsets, **sent, subtract=True)
    agree("dense_add_", x=x, offsets=p.offsets, values=torch.randn(p.numel), subtract=True)
    for codec in (4, 5, 6, 7, 8):
        agree("quantize_blocks_", **blocks, codec=codec)
    overflow = {"offsets": p.offsets, "values": torch.randn(p.numel), "first": torch.tensor([7])}
    agree("dense_overflow", x=x, **overflow)
    x[2][69_999] = torch.inf
    assert agree("dense_overflow", x=x, **overflow)["first"].tolist() == [5 + 69_999]
    for codec in (1, 2, 3):
        agree("quantize_", values=torch.randn(50_001) * torch.logspace(-40, 10, 50_001), codec=codec)


@pytest.mark.parametrize("n", [3_000, 200_000])
def test_a_sudden_change_of_scale(agree, make_problem, capability, n):
    """The threshold is this step's: a thousand times larger gradients than before are no special case."""
    p = make_problem([n], 0.01)
    state = {"velocity": p.normal(1), "velocity_out": p.normal(2)}
    for scale in (1.0, 1000.0, 1.0):
        grads = [g * scale for g in p.normal(3)]
        step = {"grads": grads, "weights": p.normal(4), "lr": torch.ones(1), "weight_decay": torch.zeros(1)}
        got = agree("step_velocity", **step, **state, **p.layout(), **p.selection())
        assert got["nnz"].tolist() == p.counts.tolist()
        state["velocity"] = got["velocity_out"]


def test_the_best_is_the_default():
    assert _capability.available()[0] == "portable"
    if "DGS_CPU_CAPABILITY" not in os.environ:
        assert _capability.in_use() == _capability.available()[-1]


def test_unknown_and_unsupported_names_are_refused_with_the_choices(monkeypatch):
    with pytest.raises(
        BuildError, match=r"DGS_CPU_CAPABILITY=sse9: it is none of portable, avx2, avx512; use one of"
    ):
        _capability.use_wanted({"DGS_CPU_CAPABILITY": "sse9"})
    monkeypatch.setattr(_capability, "available", lambda: ["portable"])
    with pytest.raises(
        BuildError, match=r"cannot run it; dgs knows portable, avx2, avx512; use one of portable, or"
    ):
        _capability.use_wanted({"DGS_CPU_CAPABILITY": "avx2"})
    with pytest.raises(RuntimeError, match=r"dgs::cpu_capability: use = 3, must be in \[-1, 3\)"):
        torch.ops.dgs.cpu_capability(3)


@pytest.mark.parametrize(("name", "status"), [("portable", 0), ("", 0), ("AVX2", 1)])
def test_the_variable_is_read_at_import(name, status):
    code = "import dgs_ext._capability as c; print(c.in_use())"
    environment = {**os.environ, "DGS_CPU_CAPABILITY": name}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == status, run.stderr
    if name == "portable":
        assert run.stdout.strip() == "portable"
    if status:
        assert "BuildError: DGS_CPU_CAPABILITY=AVX2: it is none of portable, avx2, avx512" in run.stderr
