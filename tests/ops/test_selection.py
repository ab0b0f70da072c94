# SPDX-License-Identifier: Apache-2.0
"""The Selection that ops write to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from dgs_ext.ops import Selection


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def filled(device="cpu"):
    s = Selection.allocate(torch.tensor([2, 0, 3, 1]), device)
    s.indices[:] = torch.tensor([3, 99, 10, 12, 99, 20])
    s.values[:] = torch.tensor([0.3, 9.0, 1.0, 1.2, 9.0, 2.0])
    s.nnz[:] = torch.tensor([1, 0, 2, 1])
    return s


def test_allocate(device):
    s = Selection.allocate(torch.tensor([2, 0, 3]), device)
    assert s.starts.tolist() == [0, 2, 2, 5]
    assert s.starts.device.type == "cpu"
    assert [s.indices.device.type, s.values.device.type, s.nnz.device.type] == [device.type] * 3
    assert [s.indices.shape, s.values.shape, s.nnz.shape] == [(5,), (5,), (3,)]
    assert s.total() == 0
    assert Selection.allocate(torch.zeros(0, dtype=torch.int64), device).compact()[0].numel() == 0


def test_slots_that_were_never_written_take_no_memory():
    before, slots = resident(), 20_000_000
    s = Selection.allocate(torch.tensor([slots, slots]))
    s.indices[:1000] = 1
    s.values[:1000] = 1.0
    assert resident() - before < 12 * slots / 4


@pytest.mark.parametrize(
    ("capacity", "words"),
    [
        (torch.tensor([1.0]), "must be int64 .S. on the CPU, got torch.float32"),
        (torch.tensor([[1]]), r"got torch.int64 \[1, 1\]"),
        (torch.tensor([3, -1]), "must not be negative, got -1"),
    ],
)
def test_allocate_refuses(capacity, words):
    with pytest.raises(ValueError, match=words):
        Selection.allocate(capacity)


def test_compact_and_total(device):
    s = filled(device)
    indices, values = s.compact()
    assert indices.tolist() == [3, 10, 12, 20]
    assert values.tolist() == pytest.approx([0.3, 1.0, 1.2, 2.0])
    assert s.total() == 4


def test_a_failed_segment(device):
    s = filled(device)
    assert s.failed() is None
    s.nnz[2] = -1
    assert s.failed() == 2
    assert s.total() == 2
    assert s.compact()[0].tolist() == [3, 20]


def test_to_cpu(cuda):
    s = filled()
    assert s.to_cpu() is s
    moved = filled(cuda).to_cpu()
    assert moved.indices.device.type == moved.values.device.type == moved.nnz.device.type == "cpu"
    assert moved.compact()[0].tolist() == s.compact()[0].tolist()
