# SPDX-License-Identifier: Apache-2.0
"""The memory of what lives as long as a run."""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest
import torch

from dgs import memory

HUGE = 2 << 20
SMAPS = Path("/proc/self/smaps")


@pytest.mark.parametrize("numel", [0, 1, 1000, HUGE // 4 - 1, HUGE // 4, HUGE // 4 + 1, 3_000_001])
def test_zeros_are_zeros_of_that_size_and_nothing_more(numel):
    x = memory.zeros(numel)
    assert x.shape == (numel,) and x.dtype == torch.float32 and not x.any()
    assert x.untyped_storage().nbytes() == 4 * numel
    x.fill_(1.5)
    assert x.sum(dtype=torch.float64) == 1.5 * numel
    assert not memory.zeros(numel).any()  # of its own


def test_a_copy_is_float32_in_memory_of_its_own():
    values = torch.arange(700_000, dtype=torch.float64)
    copied = memory.copy_of(values, torch.device("cpu"))
    assert copied.dtype == torch.float32 and torch.equal(copied, values.float())
    copied.zero_()
    assert values[-1] == 699_999


def test_a_view_keeps_it_alive():
    view = memory.zeros(3_000_000)[-5:]
    others = [memory.zeros(3_000_000).fill_(7.0) for _ in range(3)]
    assert view.tolist() == [0.0] * 5 and len(others) == 3


def test_without_huge_pages_it_is_torchs_memory(monkeypatch):
    class Refusing(mmap.mmap):
        def madvise(self, *_: int) -> None:
            raise OSError(22, "Invalid argument")

    monkeypatch.setattr(mmap, "mmap", Refusing)
    assert not memory.zeros(3_000_000).any()
    monkeypatch.delattr(mmap, "MADV_HUGEPAGE", raising=False)
    assert not memory.zeros(3_000_000).any()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.int64])
@pytest.mark.parametrize("nbytes", [0, 8, (64 << 10) - 8, 64 << 10, 3_000_000])
def test_scratch_has_room_for_so_many_and_stays_while_it_is_seen(nbytes, dtype):
    x = memory.scratch(nbytes // dtype.itemsize, dtype)
    assert x.shape == (nbytes // dtype.itemsize,) and x.dtype == dtype
    view = x.fill_(7)[-1:]
    del x
    others = [memory.scratch(nbytes // dtype.itemsize, dtype).fill_(8) for _ in range(3)]
    assert view.tolist() == [7] * min(1, nbytes) and len(others) == 3


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


@pytest.mark.skipif(not SMAPS.exists(), reason="needs a /proc")
def test_scratch_takes_what_is_written_and_gives_all_of_it_back():
    before, mib = resident(), 1 << 20
    x = memory.scratch(512 * mib, torch.uint8)
    assert resident() - before < 64 * mib
    x[: 128 * mib] = 1
    assert 96 * mib < resident() - before < 256 * mib
    del x
    assert resident() - before < 64 * mib


def test_where_nothing_can_be_mapped_scratch_is_torchs_memory(monkeypatch):
    monkeypatch.delattr(mmap, "MAP_ANONYMOUS")
    assert memory.scratch(3_000_000, torch.int64).fill_(1).sum() == 3_000_000


@pytest.mark.skipif(
    not (SMAPS.exists() and Path("/sys/kernel/mm/transparent_hugepage").exists()),
    reason="needs a Linux with huge pages and /proc/self/smaps",
)
def test_linux_is_asked_for_whole_pages_only():
    numel = 5 * HUGE // 4 + 1000
    x = memory.zeros(numel)
    asked = [
        part
        for part in SMAPS.read_text().split("VmFlags:")[:-1]
        if f"{x.data_ptr():x}-{x.data_ptr() + 5 * HUGE:x}" in part
    ]
    assert len(asked) == 1, "a mapping of exactly the whole pages, as the advice cuts it out"
