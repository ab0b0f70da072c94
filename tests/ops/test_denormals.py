# SPDX-License-Identifier: Apache-2.0
"""Results do not depend on whether the caller's thread flushes denormals (torch.set_flush_denormal)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from dgs_ext import reference

SIZES = [70_000, 40_000, 0, 300]
TINY = 2.0**-128
OPS = (
    *("select", "select_difference", "step_velocity", "step_dgc", "step_dense"),
    *("push_velocity", "push_dgc", "pull"),
    *("quantize_", "quantize_blocks_", "apply_velocity_", "apply_dgc_", "sparse_add_", "dense_add_"),
    *("sparse_overflow", "dense_overflow"),
)


def flushes():
    """Whether this thread takes denormals for zeros."""
    return not bool((torch.tensor([TINY]) * 1.0).any())


@pytest.fixture
def keeping_twins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The twins compute with denormals, and alone, whatever their caller's thread does; it does so afterwards."""

    def keeping(twin):
        def call(*operands):
            before, threads = flushes(), torch.get_num_threads()
            torch.set_flush_denormal(False)
            torch.set_num_threads(1)
            twin(*operands)
            torch.set_num_threads(threads)
            torch.set_flush_denormal(before)

        return call

    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush denormals")
    torch.set_flush_denormal(False)
    for name in OPS:
        monkeypatch.setattr(reference, name, keeping(getattr(reference, name)))
    yield
    torch.set_flush_denormal(False)


def tiny(p, seed, dtype=torch.float32):
    """An operand on both sides of 2^-126; of float16 it is that type's own denormals."""
    scale = 2.0**-20 if dtype == torch.float16 else TINY
    return [(x * scale).to(dtype) for x in p.normal(seed)]


def everything(p, dtype):
    """The operands of every op, each near the end of its range."""
    x, y, layout = tiny(p, 1), tiny(p, 2), p.layout()
    large, unity = torch.full((len(SIZES),), 2.0**20), torch.ones(len(SIZES))
    rates = {"lr": large, "weight_decay": unity}
    step = {"grads": tiny(p, 3, dtype), "weights": tiny(p, 4), **rates}
    state = {"velocity": tiny(p, 5), "velocity_out": y}
    dgc = {"residual": tiny(p, 6), "residual_out": x, "momentum": unity, "grad_scale": 0.7, "nesterov": True}
    sent = {**p.selection(), "offsets": p.offsets}
    to = (sent[name] for name in ("indices", "values", "nnz"))
    reference.select(x, p.offsets, p.counts, sent["starts"], False, *to)
    flat = torch.cat(y)
    return {
        "select": {"x": x, **layout, **p.selection()},
        "select_difference": {"x": x, "y": y, **layout, **p.selection()},
        "step_velocity": {**step, **state, **layout, **p.selection()},
        "step_dgc": {**step, **state, **dgc, **layout, **p.selection()},
        "push_velocity": {**step, **state, "keep": unity / 2, **layout, **p.selection(), "codec": 1},
        "push_dgc": {**step, **state, **dgc, **layout, **p.selection(), "codec": 1},
        "pull": {"x": x, "mirror": y, **layout, **p.selection(), "codec": 3},
        "step_dense": {**step, "out": y, "offsets": p.offsets, "nnz": p.selection()["nnz"]},
        "quantize_": {"values": flat, "codec": 3},
        "quantize_blocks_": {**{k: sent[k] for k in ("offsets", "values", "starts", "nnz")}, "codec": 4},
        "apply_velocity_": {"velocity": y, "keep": unity / 2, **sent},
        "apply_dgc_": {"velocity": x, "residual": y, "counts": p.counts, **sent},
        "sparse_add_": {"x": y, **sent, "subtract": True},
        "dense_add_": {"x": x, "offsets": p.offsets, "values": flat, "subtract": False},
        "sparse_overflow": {"x": y, **sent, "first": torch.tensor([7])},
        "dense_overflow": {"x": x, "offsets": p.offsets, "values": flat, "first": torch.tensor([7])},
    }  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("threads", [1, 2])
def test_every_op(agree, make_problem, keeping_twins, threads, dtype):
    torch.set_num_threads(threads)
    operands = everything(make_problem(SIZES, 0.01, "cpu", "list"), dtype)
    assert operands.keys() == set(OPS)
    torch.set_flush_denormal(True)
    for name in OPS:
        agree(name, **operands[name])
        assert flushes(), "as before the op"
