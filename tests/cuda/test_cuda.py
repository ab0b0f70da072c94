# SPDX-License-Identifier: Apache-2.0
"""What only a GPU can show of the CUDA ops; that they compute what their twins do is in tests/ops, on each device."""

from __future__ import annotations

import pytest
import torch

from dgs_ext import ops, reference
from dgs_ext.ops import Selection

OPS = (
    *("select", "select_difference", "step_velocity", "step_dgc", "step_dense"),
    *("push_velocity", "push_dgc", "pull"),
    *("quantize_", "quantize_blocks_", "apply_velocity_", "apply_dgc_", "sparse_add_", "dense_add_"),
    *("sparse_overflow", "dense_overflow"),
)


@pytest.fixture
def layout():
    """The offsets and counts of three segments."""
    return torch.tensor([0, 100_000, 100_000, 150_000]), torch.tensor([1000, 0, 500])


def slots(layout, device):
    """Room for the counts of `layout`."""
    return Selection.allocate(layout[1], device)


@pytest.mark.parametrize("op", OPS)
def test_each_op_has_a_cuda_kernel(op):
    """Registered by the compiled module, or by what explains its absence: a call never ends in torch's dispatcher."""
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"dgs::{op}", "CUDA")


def calls(layout, device):
    """A call of each op, in an order in which a selection is there for those that take one."""
    x, w, v, r, v_out, r_out, q = (torch.randn(150_000, device=device) for _ in range(7))
    offsets, counts = layout
    out, rates, each = slots(layout, device), torch.full((3,), 0.1), {"device": device, "dtype": torch.int64}
    first, status = torch.zeros(1, **each), torch.zeros(3, **each)
    common = rates, rates, offsets
    return {
        "select": lambda: ops.select([x], *layout, out),
        "select_difference": lambda: ops.select_difference([x], [w], *layout, out),
        "step_dense": lambda: ops.step_dense([x], [w], [q], *common, status),
        "dense_overflow": lambda: ops.dense_overflow([w], offsets, q, first),
        "dense_add_": lambda: ops.dense_add_([w], offsets, q, subtract=True),
        "step_velocity": lambda: ops.step_velocity([x], [w], [v], [v_out], *common, counts, out),
        "quantize_": lambda: ops.quantize_(out.values, 3),
        "apply_velocity_": lambda: ops.apply_velocity_([v_out], rates, offsets, out),
        "step_dgc": lambda: ops.step_dgc(
            [x], [w], [v], [r], [v_out], [r_out], rates, rates, rates, *layout, out
        ),
        "push_velocity": lambda: ops.push_velocity([x], [w], [v], [v_out], rates, *common, counts, out, 1),
        "push_dgc": lambda: ops.push_dgc(
            [x], [w], [v], [r], [v_out], [r_out], rates, rates, rates, *layout, out, 5
        ),
        "pull": lambda: ops.pull([x], [q], *layout, out, 3),
        "quantize_blocks_": lambda: ops.quantize_blocks_(out, offsets, 4),
        "apply_dgc_": lambda: ops.apply_dgc_([v_out], [r_out], *layout, out),
        "sparse_overflow": lambda: ops.sparse_overflow([w], offsets, out, first),
        "sparse_add_": lambda: ops.sparse_add_([w], offsets, out, subtract=True),
    }


def test_every_op_is_called(layout):
    """On the CPU, so that a machine without a GPU sees that what follows asks for all of them, and rightly."""
    each = calls(layout, torch.device("cpu"))
    assert each.keys() == set(OPS)
    for call in each.values():
        call()


def test_nothing_waits_for_the_device(cuda, layout):
    each = calls(layout, cuda)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for call in each.values():
            call()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_counts_arrive_behind_the_op_and_not_behind_what_follows(cuda, layout):
    """The host learns them while a long kernel, launched after the op, is still at work."""
    x, out, after = torch.randn(150_000, device=cuda), slots(layout, cuda), torch.cuda.Event()
    ops.select([x], *layout, out)
    torch.cuda._sleep(2_000_000_000)
    after.record()
    assert out.total() == 1500
    assert out.failed() is None
    assert not after.query()
    out.nnz.fill_(-1)
    assert out.failed() == 0


def unaligned(n, cuda, past):
    return torch.randn(n + past, device=cuda)[past:]


@pytest.mark.parametrize("past", [(0, 0, 0), (1, 1, 1), (0, 1, 2), (3, 3, 0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_arrays_at_any_alignment(cuda, past, dtype):
    n = 50_001
    offsets, counts, rates = torch.tensor([0, 20_003, n]), torch.tensor([200, 400]), torch.tensor([0.1, 0.2])
    (v, w, v_out), grad = (unaligned(n, cuda, p) for p in past), unaligned(n, cuda, past[2]).to(dtype)
    want_out, out, want = torch.empty_like(v_out), *(Selection.allocate(counts, cuda) for _ in range(2))
    ops.step_velocity([grad], [w], [v], [v_out], rates, rates, offsets, counts, out)
    reference.step_velocity(
        [grad], [w], [v], [want_out], rates, rates, offsets, counts,
        want.starts, False, want.indices, want.values, want.nnz,
    )  # fmt: skip
    assert torch.equal(v_out, want_out)
    assert torch.equal(out.indices, want.indices)
    assert torch.equal(out.values, want.values)


def test_segments_that_candidates_cannot_settle(cuda):
    """Ties that pass the candidates' bound, and more wanted than candidates are worth, beside an easy segment."""
    n = 100_000
    offsets, counts = torch.tensor([0, n, 2 * n, 3 * n]), torch.tensor([1000, 60_000, 1000])
    x = torch.cat([torch.full((n,), -0.5, device=cuda), torch.randn(2 * n, device=cuda)])
    out, want = (Selection.allocate(counts, cuda) for _ in range(2))
    ops.select([x], offsets, counts, out)
    reference.select([x], offsets, counts, want.starts, False, want.indices, want.values, want.nnz)
    assert torch.equal(out.indices, want.indices)
    assert torch.equal(out.values, want.values)


def test_the_current_stream_is_used(cuda, layout):
    """On a side stream, behind a long kernel of that stream, the op sees what was written there before it."""
    side, x = torch.cuda.Stream(cuda), torch.zeros(150_000, device=cuda)
    want = torch.randn(150_000, device=cuda)
    out = slots(layout, cuda)
    torch.cuda.synchronize(cuda)
    with torch.cuda.stream(side):
        torch.cuda._sleep(100_000_000)
        x.copy_(want)
        ops.select([x], *layout, out)
    side.synchronize()
    expected = slots(layout, cuda)
    reference.select([want], *layout, expected.starts, False, expected.indices, expected.values, expected.nnz)
    assert out.nnz.tolist() == [1000, 0, 500]
    assert torch.equal(out.indices, expected.indices)
    assert torch.equal(out.values, expected.values)


def test_another_device_than_the_current_one(cuda, layout):
    """Skipped on one GPU even where that is promised: nothing else shows that a device guard is there."""
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs that torch can use (FAIL_WITHOUT_CUDA promises one)")
    other = torch.device("cuda", 1)
    x, out = torch.randn(150_000, device=other), slots(layout, other)
    with torch.cuda.device(0):
        ops.select([x], *layout, out)
        assert torch.cuda.current_device() == 0
    assert out.nnz.tolist() == [1000, 0, 500]


def test_a_segment_of_more_chunks_than_a_block_has_threads(cuda):
    n = 300 * 16384 + 5
    offsets, counts = torch.tensor([0, n]), torch.tensor([n // 100])
    x = torch.randn(n, device=cuda).round(decimals=2)  # with ties
    out, want = Selection.allocate(counts, cuda), Selection.allocate(counts, cuda)
    ops.select([x], offsets, counts, out)
    reference.select([x], offsets, counts, want.starts, False, want.indices, want.values, want.nnz)
    assert torch.equal(out.indices, want.indices)
    assert torch.equal(out.values, want.values)


def test_indices_outside_are_dropped(cuda):
    x = torch.zeros(10, device=cuda)
    entries = Selection(
        torch.tensor([3, -1, 10, 9], device=cuda),
        torch.ones(4, device=cuda),
        torch.tensor([0, 4]),
        torch.tensor([4], device=cuda),
    )
    ops.sparse_add_([x], torch.tensor([0, 10]), entries, subtract=False)
    assert x.tolist() == [0, 0, 0, 1, 0, 0, 0, 0, 0, 1]


def test_an_output_on_the_cpu_is_refused(cuda, layout):
    with pytest.raises(RuntimeError, match=r"dgs::select: indices is on cpu, must be on the CUDA device"):
        ops.select([torch.randn(150_000, device=cuda)], *layout, slots(layout, "cpu"))
