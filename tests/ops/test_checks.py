# SPDX-License-Identifier: Apache-2.0
"""Wrong operands are refused with op, argument, rule and value, and before anything is written."""

from __future__ import annotations

import re
from functools import partial

import pytest
import torch

VALID = {
    "select": ["x"],
    "select_difference": ["x", "y"],
    "step_velocity": ["weights", "velocity", "velocity_out"],
    "step_dgc": ["weights", "velocity", "residual", "velocity_out", "residual_out"],
    "push_velocity": ["weights", "velocity", "velocity_out"],
    "push_dgc": ["weights", "velocity", "residual", "velocity_out", "residual_out"],
    "pull": ["x", "mirror"],
    "step_dense": ["weights", "out"],
    "apply_velocity_": ["velocity"],
    "apply_dgc_": ["velocity", "residual"],
    "sparse_add_": ["x"],
    "dense_add_": ["x"],
    "sparse_overflow": ["x"],
    "dense_overflow": ["x"],
}
RATES = ("lr", "weight_decay", "momentum", "keep")
SIZES = [10, 0, 100]


def takes(*names):
    """The ops that have one of these arguments."""
    return [
        op
        for op in VALID
        if {a.name for a in getattr(torch.ops.dgs, op).default._schema.arguments} & set(names)
    ]


@pytest.fixture(params=VALID)
def op(request):
    return request.param


def operands(make_problem, op, device, style="list"):
    """Valid operands of an op by name: a layout of 10, 0 and 100 elements, k of 10 %."""
    p = make_problem(SIZES, 0.1, device, style)
    available = {
        "grads": p.normal(0), **p.layout(), **p.selection(), "codec": 2, "subtract": False,
        "grad_scale": 1.0, "nesterov": False, "sampled": False, **{rate: p.rates(i) for i, rate in enumerate(RATES)},
    }  # fmt: skip
    available["first"] = torch.zeros(1, dtype=torch.int64, device=device)
    if op.startswith("dense_"):
        available["values"] = torch.randn(p.numel, device=device)
    names = [a.name for a in getattr(torch.ops.dgs, op).default._schema.arguments]
    return {name: p.normal(len(name)) if name in VALID[op] else available[name] for name in names}


@pytest.fixture
def valid(make_problem, device):
    """Make valid operands of an op on each device."""
    return partial(operands, make_problem, device=device)


@pytest.fixture
def valid_on_cpu(make_problem):
    """Make valid operands where the op looks at counts and indices: a GPU's are not read by the host."""
    return partial(operands, make_problem, device="cpu")


def refused(op, operands, words, error=RuntimeError):
    """Fail unless the op refuses the operands with these words and leaves them as they were."""
    before = {n: [t.clone() for t in v] if isinstance(v, list) else v for n, v in operands.items()}
    with pytest.raises(error, match=f"^dgs::{op}: {re.escape(words)}"):
        getattr(torch.ops.dgs, op)(**operands)
    for name, value in before.items():
        if isinstance(value, list):
            assert all(torch.equal(a, b) for a, b in zip(value, operands[name], strict=True)), name


def test_the_operands_here_are_valid(op, valid):
    for style in ("flat", "list"):
        getattr(torch.ops.dgs, op)(**valid(op, style=style))


def changed(tensors, i, tensor):
    return [tensor if j == i else t for j, t in enumerate(tensors)]


def test_operands(op, valid, device):
    for name in VALID[op]:
        good = valid(op)
        third = good[name][2]
        for bad, words in [
            (third.double(), f"{name}[2] is Double, must be Float"),
            (third.half(), f"{name}[2] is Half, must be Float"),
            (third.repeat_interleave(2)[::2], f"{name}[2] is not contiguous; pass {name}.contiguous()"),
            (third[:99], f"{name}[2] has 99 elements, segment 2 has 100"),
        ]:
            refused(op, good | {name: changed(good[name], 2, bad)}, words)
        shape = "must be one flat tensor of 110 elements or 3 tensors, one per segment"
        refused(op, good | {name: good[name][:2]}, f"{name} has 2 tensors, {shape}")
        refused(op, good | {name: [third]}, f"{name} has 1 tensors, {shape}")
        refused(op, good | {name: []}, f"{name} has 0 tensors, {shape}")


@pytest.mark.parametrize("op", takes("grads"))
def test_gradients(op, valid):
    good = valid(op)
    third = good["grads"][2]
    for bad, words in [
        (third.double(), "grads[2] is Double, must be Float, Half or BFloat16"),
        (third[:99], "grads[2] has 99 elements, segment 2 has 100 (an empty tensor says: no gradient)"),
        (torch.randn(10, 10, device=third.device).t(), "grads[2] is not contiguous; pass grads.contiguous()"),
    ]:
        refused(op, good | {"grads": changed(good["grads"], 2, bad)}, words)


def test_layout(op, valid):
    good = valid(op)
    for bad, words in [
        (torch.tensor([1, 10, 10, 110]), "offsets[0] = 1, must be 0"),
        (torch.tensor([0, 10, 9, 110]), "offsets[2] = 9 is smaller than offsets[1] = 10"),
        (torch.tensor([0, 10, 10, 110], dtype=torch.int32), "offsets is Int, must be Long"),
        (torch.tensor([[0, 10, 10, 110]]), "offsets has 4 elements in 2 dimensions"),
        (torch.tensor([], dtype=torch.int64), "offsets is empty, must be [S + 1]"),
        (torch.tensor([0, 0, 10, 0, 10, 0, 110, 0])[::2], "offsets is not contiguous"),
    ]:
        refused(op, good | {"offsets": bad}, words)


@pytest.mark.parametrize("op", takes("counts"))
def test_counts(op, valid):
    good = valid(op)
    for bad, words in [
        (torch.tensor([1, 0, 101]), "counts[2] = 101 is larger than segment 2 (100 elements)"),
        (torch.tensor([-1, 0, 1]), "counts[0] = -1 is negative"),
        (torch.tensor([1, 1, 1]), "counts[1] = 1 is larger than segment 1 (0 elements)"),
        (torch.tensor([1, 0]), "counts has 2 elements in 1 dimensions, must be one vector [S] = [3]"),
        (torch.tensor([1.0, 0.0, 1.0]), "counts is Float, must be Long"),
    ]:
        refused(op, good | {"counts": bad}, words)


@pytest.mark.parametrize("op", takes(*RATES))
def test_rates(op, valid):
    good = valid(op)
    for name in (rate for rate in RATES if rate in good):
        refused(op, good | {name: good[name].double()}, f"{name} is Double, must be Float")
        refused(op, good | {name: torch.tensor(0.1)}, f"{name} has 1 elements in 0 dimensions")


@pytest.mark.parametrize("op", takes("starts"))
def test_selection(op, valid, device):
    good = valid(op)
    slots = good["indices"].numel()
    for name, bad, words in [
        ("starts", torch.tensor([0, 1, 1]), "starts has 3 elements in 1 dimensions, must be one vector [S + 1]"),
        ("starts", torch.tensor([-1, 1, 1, 11]), "starts[0] = -1 is negative"),
        ("starts", torch.tensor([0, 2, 1, 11]), "starts[2] = 1 is smaller than starts[1] = 2"),
        ("starts", torch.tensor([0, 1, 1, 12]), f"starts[3] = 12 is larger than the {slots} slots of indices"),
        ("indices", good["indices"].int(), "indices is Int, must be Long"),
        ("values", good["values"].double(), "values is Double, must be Float"),
        ("values", good["values"][:3], "values has 3 elements in 1 dimensions, must be one vector [K] like indices"),
        ("nnz", good["nnz"][:2].clone(), "nnz has 2 elements in 1 dimensions, must be one vector [S] = [3]"),
    ]:  # fmt: skip
        refused(op, good | {name: bad}, words)


@pytest.mark.parametrize("op", ["select", "select_difference", "step_velocity", "step_dgc"])
def test_too_few_slots(op, valid):
    words = "starts gives segment 2 9 slots, fewer than counts[2] = 10"
    refused(op, valid(op) | {"starts": torch.tensor([0, 1, 1, 10])}, words)


def test_what_is_written_shares_no_memory(op, valid):
    good = valid(op)
    schema = getattr(torch.ops.dgs, op).default._schema.arguments
    written = [a.name for a in schema if a.alias_info is not None and a.alias_info.is_write]
    large = [name for name in [*VALID[op], "grads"] if name in good]
    for out in (name for name in written if name in large):
        for other in (name for name in large if name != out):
            aliased = good | {out: changed(good[out], 2, good[other][2])}
            with pytest.raises(RuntimeError, match=rf"^dgs::{op}: .*\[2\] and .*\[2\] share memory"):
                getattr(torch.ops.dgs, op)(**aliased)


def test_parts_of_one_buffer_do_not_share_memory(valid):
    good = valid("step_velocity", style="flat")
    both = torch.randn(220, device=good["nnz"].device)
    torch.ops.dgs.step_velocity(**good | {"velocity": [both[:110]], "velocity_out": [both[110:]]})
    refused(
        "step_velocity",
        good | {"velocity": [both[:110]], "velocity_out": [both[109:219]]},
        "velocity_out and velocity share memory; what is written needs a buffer of its own",
    )


@pytest.mark.parametrize("codec", [-1, 0, 4])
def test_codec(codec, device):
    with pytest.raises(
        RuntimeError, match=rf"^dgs::quantize_: codec = {codec}, must be 1 \(float32\), 2 \(float16\)"
    ):
        torch.ops.dgs.quantize_(torch.zeros(3, device=device), codec)


def test_quantized_values_are_a_float32_vector(device):
    for bad, words in [
        (torch.zeros(3, dtype=torch.float64), "values is Double, must be Float"),
        (torch.zeros(6)[::2], "values is not contiguous"),
        (torch.zeros(2, 2), "values has 4 elements in 2 dimensions"),
    ]:
        with pytest.raises(RuntimeError, match=f"^dgs::quantize_: {words}"):
            torch.ops.dgs.quantize_(
                bad.to(device) if bad.is_contiguous() else bad.to(device).new_zeros(6)[::2], 1
            )


READING = ["apply_velocity_", "apply_dgc_", "sparse_add_", "sparse_overflow"]


@pytest.mark.parametrize("op", READING)
@pytest.mark.parametrize("nnz", [11, -2])
def test_counts_that_the_slots_cannot_hold(op, nnz, valid_on_cpu):
    bad = valid_on_cpu(op) | {"nnz": torch.tensor([0, 0, nnz])}
    refused(op, bad, f"nnz[2] = {nnz}, must be in [-1, 10], the slots")


@pytest.mark.parametrize("position", [0, 9])
@pytest.mark.parametrize(
    ("op", "index", "words"),
    [
        ("sparse_add_", -1, "is outside [0, 110); nothing was changed"),
        ("sparse_add_", 110, "is outside [0, 110); nothing was changed"),
        ("sparse_add_", 2**62, "is outside [0, 110); nothing was changed"),
        ("sparse_overflow", 110, "is outside [0, 110); nothing was changed"),
        ("apply_velocity_", 9, "is outside its segment 2 = [10, 110)"),
        ("apply_velocity_", 110, "is outside its segment 2 = [10, 110)"),
        ("apply_dgc_", -(2**63), "is outside its segment 2 = [10, 110)"),
    ],
)
def test_an_index_outside_is_refused_and_nothing_is_written(op, index, words, position, valid_on_cpu):
    good = valid_on_cpu(op)
    good["indices"][:] = torch.cat([torch.zeros(1), torch.arange(20, 30)]).long()
    good["values"][:] = 1.0
    good["nnz"][:] = torch.tensor([1, 0, 10])
    good["indices"][1 + position] = index
    refused(op, good, f"indices[{1 + position}] = {index} {words}", IndexError)


def test_an_index_outside_in_an_unused_slot_is_nobodys_business(valid_on_cpu):
    good = valid_on_cpu("sparse_add_")
    good["indices"][:] = 10**9
    good["nnz"][:] = 0
    torch.ops.dgs.sparse_add_(**good)


def test_host_metadata_on_a_gpu_is_refused(op, valid, cuda):
    for name in ("offsets", "counts", "starts", *RATES):
        good = valid(op)
        if name in good and good["offsets"].device.type == "cpu":
            with pytest.raises(RuntimeError, match=rf"{name} is on cuda:0, must be on cpu"):
                getattr(torch.ops.dgs, op)(**good | {name: good[name].to(cuda)})


def test_operands_on_two_devices_are_refused(valid, cuda):
    good = valid("select")
    other = "cpu" if good["nnz"].is_cuda else cuda
    with pytest.raises(
        RuntimeError, match=r"dgs::select: .* is on .*, must be on .* like the op's other operands"
    ):
        torch.ops.dgs.select(**good | {"x": changed(good["x"], 0, good["x"][0].to(other))})
