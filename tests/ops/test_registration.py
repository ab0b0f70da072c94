# SPDX-License-Identifier: Apache-2.0
"""Every op has a wrapper, a twin, a CPU kernel and a fake kernel, and torch's own checks of custom ops hold."""

from __future__ import annotations

import inspect
import re

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from dgs_ext import ops, reference

NO_OPS = {"Selection", "SelectionCounters", "quantize_selection_", "selection_counters"}
OPS = sorted(set(ops.__all__) - NO_OPS)


def schema(op):
    """The op's arguments."""
    return getattr(torch.ops.dgs, op).default._schema.arguments


def operands(problem, op):
    """Valid operands of `op`, in the schema's order."""
    values = {
        "codec": 4 if op == "quantize_blocks_" else 3,
        "subtract": True, "grad_scale": 0.5, "nesterov": True, "sampled": True,
        **problem.layout(), **problem.selection(),
    }  # fmt: skip
    values["first"] = torch.zeros(1, dtype=torch.int64, device=problem.device)
    if op.startswith("dense_"):
        values["values"] = torch.randn(problem.numel, device=problem.device)
    listed = []
    for i, argument in enumerate(schema(op)):
        if argument.name in values:
            listed.append(values[argument.name])
        else:
            listed.append(problem.normal(i) if "List" in str(argument.type) else problem.rates(i))
    return listed


def test_the_lists_of_ops_agree(repository):
    declared = re.findall(r'm\.def\(\s*"(\w+)\(', (repository / "csrc/ops.cpp").read_text())
    assert sorted(declared) == sorted([*OPS, "cpu_capability", "selection_counters"])  # those two take no tensors
    for op in OPS:
        schema = getattr(torch.ops.dgs, op).default._schema
        assert list(inspect.signature(getattr(reference, op)).parameters) == [
            a.name for a in schema.arguments
        ]
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"dgs::{op}", "CPU")


@pytest.mark.parametrize("op", OPS)
def test_opcheck(op, make_problem, device, style):
    p = make_problem([70, 3, 0, 500], 0.1, device, style)
    torch.library.opcheck(getattr(torch.ops.dgs, op).default, operands(p, op))


@pytest.mark.parametrize("op", OPS)
def test_fake_tensors(op, make_problem):
    p = make_problem([70, 3, 0, 500], 0.1)
    real = operands(p, op)
    with FakeTensorMode(allow_non_fake_inputs=False) as mode:
        fake = torch.utils._pytree.tree_map_only(torch.Tensor, mode.from_tensor, real)
        assert getattr(torch.ops.dgs, op)(*fake) is None


@pytest.mark.parametrize("style", ["flat", "list"])
def test_compiled(make_problem, style):
    p = make_problem([70, 3, 0, 500], 0.1, "cpu", style)

    def pull(x, y, out, mirror):
        ops.select_difference(x, y, p_offsets, p_counts, out)
        ops.quantize_(out.values, 3)
        ops.sparse_add_(mirror, p_offsets, out)
        return [m * 2 for m in mirror]

    p_offsets, p_counts = p.offsets, p.counts
    results = []
    for run in (pull, torch.compile(pull, backend="aot_eager", fullgraph=True)):
        mirror = p.normal(3)
        results.append((run(p.normal(1), p.normal(2), ops.Selection.allocate(p.counts), mirror), mirror))
    for eager, compiled in zip(*results, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(eager, compiled, strict=True))


def wrapped(op, p, given):
    """Call the wrapper of `op` with what the op takes."""
    named = {a.name: v for a, v in zip(schema(op), given, strict=True)}
    wrapper = getattr(ops, op)
    parameters = inspect.signature(wrapper).parameters
    if "starts" in named:
        indices = named.get("indices", torch.zeros(named["values"].numel(), dtype=torch.int64))
        selection = ops.Selection(indices, named["values"], named["starts"], named["nnz"])
        named["sent" if "sent" in parameters else "out"] = selection
    wrapper(**{name: named[name] for name in parameters})


@pytest.mark.parametrize("op", OPS)
def test_wrappers_pass_their_arguments_on(op, make_problem, device, style):
    p = make_problem([70, 3, 0, 500], 0.1, device, style)
    direct, through = operands(p, op), operands(p, op)
    if op.startswith("dense_"):
        through[2].copy_(direct[2])
    getattr(torch.ops.dgs, op)(*direct)
    wrapped(op, p, through)
    for a, b in zip(direct, through, strict=True):
        for x, y in zip(a, b, strict=True) if isinstance(a, list) else [(a, b)]:
            assert torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y


@pytest.mark.parametrize("op", OPS)
def test_wrappers_say_what_was_written(op, make_problem, device):
    p = make_problem([70, 3, 0, 500], 0.1, device, "list")
    given = operands(p, op)
    tensors = [[t for t in (o if isinstance(o, list) else [o]) if isinstance(t, torch.Tensor)] for o in given]
    before = [[t._version for t in ts] for ts in tensors]
    wrapped(op, p, given)
    for argument, ts, versions in zip(schema(op), tensors, before, strict=True):
        written = argument.alias_info is not None and argument.alias_info.is_write
        assert [t._version > v for t, v in zip(ts, versions, strict=True)] == [written] * len(ts), (
            argument.name
        )


def test_parameters_may_be_operands_without_no_grad(make_problem):
    p = make_problem([70, 30], 0.1, "cpu", "list")
    parameters = [torch.nn.Parameter(t) for t in p.normal(1)]
    before = [t.detach().clone() for t in parameters]
    q = torch.ones(100)
    ops.dense_add_(parameters, p.offsets, q)
    assert all(torch.equal(a, b + 1) for a, b in zip(parameters, before, strict=True))
    assert all(t.is_leaf and t.requires_grad for t in parameters)
