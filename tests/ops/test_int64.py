# SPDX-License-Identifier: Apache-2.0
"""Positions beyond 2^31: in a segment of that size, and in segments behind one.

Mapped memory that was never written costs nothing to read (every page is the same one of zeros), so these tests need
some MB, not 8 GB each.
"""

from __future__ import annotations

import mmap

import pytest
import torch

from dgs_ext import ops
from dgs_ext.ops import Selection

N = 2**31 + 70_000
PLANTED = torch.tensor([3, 2**31 - 6, 2**31 - 1, 2**31, 2**31 + 7, N - 1])


def zeros():
    """float32 [N]; only what is written takes up memory."""
    return torch.frombuffer(
        mmap.mmap(-1, 4 * N, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), dtype=torch.float32
    )


@pytest.fixture
def flat():
    x = zeros()
    x[PLANTED] = torch.tensor([5.0, -4.0, 3.0, -2.0, 7.0, 1.0])
    return x


def test_a_segment_of_more_than_2_to_the_31(flat):
    out = Selection.allocate(torch.tensor([5]))
    ops.select([flat], torch.tensor([0, N]), torch.tensor([5]), out)
    assert out.nnz.tolist() == [5]
    assert out.indices.tolist() == PLANTED[:-1].tolist()
    assert torch.equal(out.values, flat[out.indices])


def test_segments_behind_2_to_the_31(flat):
    offsets, counts = torch.tensor([0, 2**31 - 5, 2**31 + 5, N]), torch.tensor([2, 2, 2])
    out = Selection.allocate(counts)
    ops.select_difference([flat], [zeros()], offsets, counts, out)
    assert out.nnz.tolist() == [2, 2, 2]
    assert out.indices.tolist() == PLANTED.tolist()
    assert torch.equal(out.values, flat[PLANTED])


def test_entries_beyond_2_to_the_31_are_added_where_they_belong(flat):
    offsets, counts = torch.tensor([0, 2**31 - 5, N]), torch.tensor([2, 4])
    out = Selection.allocate(counts)
    out.indices.copy_(PLANTED)
    out.values.copy_(flat[PLANTED])
    out.nnz.copy_(counts)
    to = zeros()
    overflow = torch.zeros(1, dtype=torch.int64)
    ops.sparse_overflow([to], offsets, out, overflow)
    assert overflow.item() == -1
    ops.sparse_add_([to], offsets, out)
    assert torch.equal(to[PLANTED], flat[PLANTED])
    ops.apply_velocity_([to], torch.ones(2), offsets, out)
    assert not to[PLANTED].any()
    to[N - 1] = -3e38
    out.values[-1] = 3e38
    ops.sparse_overflow([to], offsets, out, overflow)
    assert overflow.item() == N - 1
