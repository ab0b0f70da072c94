# SPDX-License-Identifier: Apache-2.0
"""The counts of a CUDA selection on the host, with a device made up: what is copied when, and what is waited for."""

from __future__ import annotations

import pytest
import torch

from dgs_ext.selection import HostCounts, Selection


class Device:
    """A stream and its event: what happened, in order; copies arrive when somebody waits for the event."""

    def __init__(self, pinned):
        self.pinned, self.log, self.arriving = pinned, [], None

    def record(self, stream):
        assert stream is self
        self.log.append("record")
        self.arriving = self.pinned.clone()
        self.pinned.fill_(-99)

    def synchronize(self):
        self.log.append("wait")
        self.pinned.copy_(self.arriving)


@pytest.fixture
def device(monkeypatch):
    device = Device(torch.zeros(3, dtype=torch.int64))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: device)
    return device


@pytest.fixture
def selection(device):
    empty = Selection.allocate(torch.tensor([2, 1, 4]))
    host = HostCounts(device.pinned, device)
    return Selection(empty.indices, empty.values, empty.starts, empty.nnz, host)


def test_nothing_waits_until_the_counts_are_asked_for(selection, device):
    selection.nnz.copy_(torch.tensor([2, 0, 3]))
    selection.written()
    assert device.log == ["record"]
    assert selection.total() == 5
    assert selection.failed() is None
    assert device.log == ["record", "wait", "wait"]


def test_counts_that_were_written_later_are_copied_anew(selection, device):
    selection.nnz.copy_(torch.tensor([2, 0, 3]))
    selection.written()
    selection.nnz.copy_(torch.tensor([1, -1, 4]))
    assert selection.counts().tolist() == [1, -1, 4]
    assert selection.failed() == 1
    assert device.log == ["record"]


def test_counts_that_never_set_out_are_copied(selection, device):
    selection.nnz.fill_(1)
    assert selection.total() == 3
    assert device.log == []


def test_the_next_op_replaces_them(selection, device):
    for value in (1, 2):
        selection.nnz.fill_(value)
        selection.written()
    assert selection.counts().tolist() == [2, 2, 2]
    assert device.log == ["record", "record", "wait"]


def test_the_cpu_needs_none():
    selection = Selection.allocate(torch.tensor([2]))
    assert selection.host is None
    selection.written()
    assert selection.total() == 0
