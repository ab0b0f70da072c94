# SPDX-License-Identifier: Apache-2.0
"""The figures that DESIGN promises, on whole frames with their headers."""

from __future__ import annotations

import pytest
import torch
from frames import VALUE_CODECS, pack, quantised, unpack

from dgs_ext import ops, wire
from dgs_ext.selection import Selection

KEPT = 100_000


@pytest.fixture(scope="module")
def percent() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(11)
    chosen = torch.randperm(100 * KEPT, generator=generator)[:KEPT].sort().values
    return chosen, torch.randn(KEPT, generator=generator)


@pytest.mark.parametrize("codec", VALUE_CODECS, ids=lambda codec: codec.name.lower())
def test_bytes_per_kept_element_at_one_percent(percent, codec: wire.Codec) -> None:
    chosen, values = percent
    values = quantised(values, codec)
    kept = int((values != 0).sum())
    frame = pack(chosen, values, numel=100 * KEPT, codec=codec)
    assert frame.numel() / kept <= codec.width + 1.05
    assert (frame.numel() - 64 - kept * codec.width) * 8 / kept <= 8.2


def test_a_tensor_sent_whole_costs_a_few_bytes_beside_its_values() -> None:
    frame = pack(torch.arange(5000, 6000), torch.ones(1000), numel=10**7)
    assert frame.numel() <= 64 + 1000 * 4 + 10


def test_one_element_of_one_segment_costs_a_few_bytes() -> None:
    assert pack(torch.tensor([123456]), torch.ones(1), numel=10**7).numel() <= 64 + 4 + 10


def test_hundreds_of_small_tensors_sent_whole_share_a_run() -> None:
    counts = [64] * 300
    frame = pack(torch.arange(300 * 64), torch.ones(300 * 64), numel=10**7, counts=counts)
    assert frame.numel() <= 64 + 300 * 64 * 4 + 10


@pytest.mark.parametrize("codec", list(wire.Codec)[1:], ids=lambda codec: codec.name.lower())
def test_small_tensors_sent_whole_within_a_sparse_model_cost_their_values(codec: wire.Codec) -> None:
    """A bias, of 64 values, behind each of ten matrices of which a percent is sent."""
    generator = torch.Generator().manual_seed(14)
    part, bias, step = 50_000, 64, 50_064
    chosen = [torch.randperm(part, generator=generator)[: part // 100].sort().values for _ in range(10)]
    sparse = [k * step + indices for k, indices in enumerate(chosen)]
    whole = [k * step + part + torch.arange(bias) for k in range(10)]

    def length(segments: list[torch.Tensor]) -> int:
        indices, counts = torch.cat(segments), [len(s) for s in segments]
        return pack(indices, torch.ones(len(indices)), numel=10 * step, codec=codec, counts=counts).numel()

    both = [segment for pair in zip(sparse, whole, strict=True) for segment in pair]
    values = 10 * (bias * codec.width + 3)  # and a scale's entry in the table, of half a block
    assert length(both) - length(sparse) <= values + 10 * 4, "four bytes for the place of each"


def test_hundreds_of_tensors_with_one_entry_share_a_block() -> None:
    generator = torch.Generator().manual_seed(12)
    chosen = torch.arange(300) * 1000 + torch.randint(1000, (300,), generator=generator)
    frame = pack(chosen, torch.ones(300), numel=300_000, counts=[1] * 300)
    index_bytes = frame.numel() - 64 - 300 * 4
    assert index_bytes <= 300 * 12 / 8 + 20  # 11.5 bits are the entropy of 1 in 1000


def test_long_runs_inside_a_large_tensor_cost_little() -> None:
    """Touched rows of an embedding: all of a row or nothing of it."""
    rows = torch.arange(0, 20000, 977)
    chosen = (rows[:, None] * 512 + torch.arange(512)).reshape(-1)
    frame = pack(chosen, torch.ones(chosen.numel()), numel=20000 * 512)
    assert frame.numel() - 64 - chosen.numel() * 4 <= rows.numel() * 8 + 10


def test_nothing_to_send_is_a_header_and_two_bytes() -> None:
    frame = pack(torch.empty(0, dtype=torch.int64), torch.empty(0), numel=10**7)
    assert frame.numel() == 64 + 2
    assert unpack(frame, numel=10**7, room=0).decoded.count == 0


def test_zeros_are_never_sent() -> None:
    frame = pack(torch.tensor([1, 5, 9]), torch.tensor([0.0, 2.0, -0.0]), numel=1000)
    received = unpack(frame, numel=1000)
    assert received.indices == [5]
    assert received.values.tolist() == [2.0]


@pytest.mark.parametrize("codec", VALUE_CODECS, ids=lambda codec: codec.name.lower())
def test_dense_where_that_is_smaller(codec: wire.Codec) -> None:
    generator = torch.Generator().manual_seed(13)
    chosen = torch.randperm(10_000, generator=generator)[:9_990].sort().values
    frame = pack(chosen, torch.full((9_990,), -2.0), numel=10_000, codec=codec)
    assert frame.numel() <= 64 + 1 + 10_000 * codec.width
    received = unpack(frame, numel=10_000)
    whole = torch.zeros(10_000)
    if received.decoded.form == "sparse":
        whole[received.indices] = received.values
    else:
        whole = received.values
    expected = torch.zeros(10_000).index_fill_(0, chosen, -2.0)
    assert torch.equal(whole, expected)


@pytest.mark.parametrize(
    ("codec", "most"), [("INT8", 2.1), ("LEVEL4", 1.6), ("LEVEL3", 1.5), ("LEVEL2", 1.35), ("SIGN", 1.2)]
)
def test_bytes_per_kept_element_of_the_codecs_in_blocks(percent, codec: str, most: float) -> None:
    """Values as a selection leaves them: the largest percent of normal ones."""
    chosen, _ = percent
    values = torch.randn(100 * KEPT, generator=torch.Generator().manual_seed(12))
    values = values[values.abs().topk(KEPT).indices]
    starts, nnz = torch.tensor([0, KEPT]), torch.tensor([KEPT])
    selection = Selection(chosen, values, starts, nnz)
    ops.quantize_blocks_(selection, torch.tensor([0, 100 * KEPT]), wire.Codec[codec])
    frame = pack(chosen, values, numel=100 * KEPT, codec=wire.Codec[codec])
    assert frame.numel() / int((values != 0).sum()) <= most
    received = unpack(frame, numel=100 * KEPT, room=KEPT)
    assert received.indices == chosen[values != 0].tolist()
    assert torch.equal(received.values, values[values != 0])
