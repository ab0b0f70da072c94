# SPDX-License-Identifier: Apache-2.0
"""The packer works on torch's threads, and its bytes and entries do not depend on how many there are."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from frames import CODECS, pack, unpack

from dgs_ext import wire

NUMEL, ENTRIES = 3_000_000, 700_000  # several tasks, and enough to wake threads for


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def message() -> tuple[torch.Tensor, torch.Tensor]:
    """Entries of one magnitude, which every codec holds."""
    generator = torch.Generator().manual_seed(3)
    indices = torch.randperm(NUMEL, generator=generator)[:ENTRIES].sort().values
    signs = torch.randint(0, 2, (ENTRIES,), generator=generator) * 2.0 - 1
    return indices, signs


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name.lower())
def test_the_same_bytes_and_entries(codec):
    indices, values = message()
    frames, received = [], []
    for count in (1, 2, 5):
        torch.set_num_threads(count)
        frames.append(pack(indices, values, numel=NUMEL, codec=codec, counts=[420_000, 0, 280_000]))
        received.append(unpack(frames[-1], numel=NUMEL, room=ENTRIES))
    assert torch.equal(frames[0], frames[1]) and torch.equal(frames[0], frames[2])
    for got in received:
        assert got.indices == indices.tolist()
        assert torch.equal(got.values, values)


def test_a_whole_vector_too():
    values = torch.randn(600_000)
    header = wire.Header(wire.Kind.SNAPSHOT, wire.Codec.FLOAT32)
    frames = []
    for count in (1, 3):
        torch.set_num_threads(count)
        out = torch.empty(wire.frame_capacity(600_000, wire.Codec.FLOAT32, numel=600_000), dtype=torch.uint8)
        frames.append(out[: wire.encode_dense(out, header, b"", values)])
        assert torch.equal(unpack(frames[-1], numel=600_000, fingerprint=None).values, values)
    assert torch.equal(*frames)


def test_callers_that_come_at_once():
    torch.set_num_threads(2)
    indices, values = message()
    expected = pack(indices, values, numel=NUMEL)
    with ThreadPoolExecutor(4) as callers:
        for frame in callers.map(lambda _: pack(indices, values, numel=NUMEL), range(12)):
            assert torch.equal(frame, expected)
