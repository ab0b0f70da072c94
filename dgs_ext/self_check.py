# SPDX-License-Identifier: Apache-2.0
"""One exchange, in miniature, on one device: does what was compiled compute what its twin says?"""

from __future__ import annotations

import torch
from torch import Tensor

from dgs_ext import ops, reference, wire
from dgs_ext.errors import BuildError
from dgs_ext.ops import Selection
from dgs_ext.wire import Codec, Header, Kind

# Two segments sent whole, one selected in cache, one large enough for threshold estimation.
OFFSETS = (0, 1, 40, 5000, 60000)
COUNTS = (1, 39, 50, 550)


def run(device: torch.device | str) -> str:
    """Select a difference, quantise it, send it through a frame, apply it; return what was checked, in words.

    Raises BuildError when an op differs from its plain-torch twin in one bit, or the frame from its source.
    """
    offsets, counts = torch.tensor(OFFSETS), torch.tensor(COUNTS)
    generator = torch.Generator().manual_seed(0)
    theta, mirror = torch.randn(2, OFFSETS[-1], generator=generator).to(device).unbind()
    sent, expected = (Selection.allocate(counts, device) for _ in range(2))

    ops.select_difference([theta], [mirror], offsets, counts, sent)
    reference.select_difference(
        [theta], [mirror], offsets, counts, expected.starts, False, expected.indices, expected.values, expected.nnz
    )  # fmt: skip
    _agree("select_difference", device, sent, expected)

    ops.quantize_(sent.values, Codec.BFLOAT16)
    reference.quantize_(expected.values, Codec.BFLOAT16)
    _agree("quantize_", device, sent, expected)

    received, size = _through_a_frame(sent.to_cpu())
    _equal("the frame", device, received.indices, sent.indices.cpu())
    _equal("the frame", device, received.values, sent.values.cpu())

    updated = mirror.clone()
    ops.sparse_add_([updated], offsets, sent)
    reference.sparse_add_(
        [mirror], offsets, expected.indices, expected.values, expected.starts, expected.nnz, False
    )
    _equal("sparse_add_", device, updated, mirror)
    return f"{sum(COUNTS)} of {OFFSETS[-1]} entries selected, sent in {size} bytes, applied; as the twins do"


def _through_a_frame(sent: Selection) -> tuple[Selection, int]:
    numel = OFFSETS[-1]
    capacity = wire.frame_capacity(sent.indices.numel(), Codec.BFLOAT16, numel=numel, segments=len(COUNTS))
    frame = torch.empty(capacity, dtype=torch.uint8)
    header = Header(Kind.PULL, Codec.BFLOAT16)
    size = wire.encode_sparse(frame, header, b"", sent.indices, sent.values, sent.starts, sent.nnz, numel)
    indices, values = torch.empty_like(sent.indices), torch.empty_like(sent.values)
    wire.decode(frame[:size], numel=numel, fingerprint=0, indices=indices, values=values)
    return Selection(indices, values, sent.starts, sent.nnz), size


def _agree(op: str, device: torch.device | str, got: Selection, expected: Selection) -> None:
    for name in ("indices", "values", "nnz"):
        _equal(f"{op} ({name})", device, getattr(got, name), getattr(expected, name))


def _equal(what: str, device: torch.device | str, got: Tensor, expected: Tensor) -> None:
    wrong = int((got != expected).sum())
    if wrong:
        raise BuildError(
            f"self-check on {device}: {what} differs from its plain-torch twin in {wrong} of {got.numel()}"
            " places; rebuild, and report this with the output of python -m dgs_ext if it stays"
        )
