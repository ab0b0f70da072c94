# SPDX-License-Identifier: Apache-2.0
"""What several wire tests need: samples as the selection ops leave them, packing and unpacking in one call."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

import torch
from reference_decoder import xxh64
from torch import Tensor

from dgs_ext import wire
from dgs_ext.errors import FrameError

FINGERPRINT = 0x0123456789ABCDEF
CODECS = list(wire.Codec)[1:]
VALUE_CODECS = [codec for codec in CODECS if not codec.in_blocks]
PUSH = wire.Header(
    wire.Kind.PUSH, wire.Codec.FLOAT32, worker=1, fingerprint=FINGERPRINT, sequence=7, version=9
)


@dataclass
class Received:
    """A decoded frame and the scratch that it was decoded into."""

    decoded: wire.Decoded
    indices: list[int]
    values: Tensor


def quantised(values: Tensor, codec: wire.Codec) -> Tensor:
    dtype = {1: torch.float32, 2: torch.float16, 3: torch.bfloat16}[codec]
    return values.to(dtype).to(torch.float32)


def pack(
    indices: Tensor,
    values: Tensor,
    *,
    numel: int,
    codec: wire.Codec = wire.Codec.FLOAT32,
    counts: list[int] | None = None,
    header: wire.Header = PUSH,
    meta: bytes = b"",
) -> Tensor:
    """One frame of these entries; counts are the entries of each segment, all used."""
    nnz = torch.tensor([indices.numel()] if counts is None else counts, dtype=torch.int64)
    starts = torch.cat([torch.zeros(1, dtype=torch.int64), nnz.cumsum(0)])
    capacity = wire.frame_capacity(
        indices.numel(), codec, numel=numel, segments=nnz.numel(), meta_bytes=len(meta)
    )
    out = torch.full((capacity,), 0xCD, dtype=torch.uint8)
    length = wire.encode_sparse(out, replace(header, codec=codec), meta, indices, values, starts, nnz, numel)
    return out[:length].clone()


def unpack(
    frame: Tensor, *, numel: int, room: int | None = None, fingerprint: int | None = FINGERPRINT
) -> Received:
    room = numel if room is None else room
    indices, values = torch.full((room,), -7, dtype=torch.int64), torch.full((room,), -7.0)
    decoded = wire.decode(frame, numel=numel, fingerprint=fingerprint, indices=indices, values=values)
    used = decoded.count if decoded.form == "sparse" else 0
    return Received(
        decoded, indices[:used].tolist(), values[: decoded.count if decoded.form != "bytes" else 0]
    )


def code_of(frame: Tensor, *, numel: int, room: int | None = None, cap: int | None = None) -> str:
    """The error code of this frame, or "ok"."""
    try:
        wire.parse_header(frame, cap=cap)
        unpack(frame, numel=numel, room=room)
    except FrameError as error:
        return error.code
    return "ok"


def as_tensor(frame: bytes) -> Tensor:
    return torch.tensor(list(frame), dtype=torch.uint8)


def as_bytes(frame: Tensor) -> bytes:
    return frame.numpy().tobytes()


def sealed(frame: bytes) -> bytes:
    """The frame with lengths and checksums that agree with its bytes, so that damage gets past them."""
    payload = frame[64:]
    header = bytearray(frame[:64])
    struct.pack_into("<QQ", header, 48, len(payload), xxh64(payload))
    return with_check(bytes(header)) + payload


def with_check(header: bytes) -> bytes:
    blank = header[:12] + bytes(4) + header[16:]
    return header[:12] + struct.pack("<I", xxh64(blank) & 0xFFFFFFFF) + header[16:]
