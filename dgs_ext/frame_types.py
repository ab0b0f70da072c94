# SPDX-License-Identifier: Apache-2.0
"""The vocabulary of frames: kinds, codecs, headers, and what decoding one yields (docs/wire_format.md)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

from torch import Tensor

from dgs_ext import _wire

HEADER_BYTES: int = _wire.HEADER_BYTES
VALUE_BLOCK: int = _wire.VALUE_BLOCK  # slots of a segment that share a scale

Form = Literal["dense", "sparse", "bytes"]


class Kind(IntEnum):
    """What a frame is for."""

    PUSH = 1
    PULL = 2
    SNAPSHOT = 3
    REQUEST = 4
    BUFFERS = 5
    GOODBYE = 6
    ERROR = 7


class Codec(IntEnum):
    """How the values of a frame's body are stored; BYTES is an opaque body.

    From INT8 on, values are codes of a few bits and share one scale per 128 slots of a segment.
    """

    BYTES = 0
    FLOAT32 = 1
    FLOAT16 = 2
    BFLOAT16 = 3
    INT8 = 4
    LEVEL4 = 5
    LEVEL3 = 6
    LEVEL2 = 7
    SIGN = 8

    @property
    def in_blocks(self) -> bool:
        """Whether values share a scale; a whole vector is never sent so."""
        return self >= Codec.INT8

    @property
    def width(self) -> float:
        """Bytes per value, its share of a full block's scale included."""
        bits = (8, 32, 16, 16, 8, 4, 3, 2, 1)[self]
        table = 0 if not self.in_blocks else 2 if self is Codec.INT8 else 3
        return bits / 8 + table / VALUE_BLOCK


@dataclass(frozen=True, slots=True)
class Header:
    """A frame's header; the encoders take the first seven fields from it and compute the others."""

    kind: Kind
    codec: Codec = Codec.BYTES
    worker: int = 0
    fingerprint: int = 0
    sequence: int = 0
    version: int = 0
    done: bool = False
    count: int = 0
    payload_length: int = 0
    meta_length: int = 0

    @property
    def frame_length(self) -> int:
        """Bytes of the whole frame."""
        return HEADER_BYTES + self.payload_length


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a frame held.

    ``form`` "sparse": ``count`` entries stand in the caller's indices and values. "dense": ``count`` = numel
    values stand in the caller's values. "bytes": ``body``, else None, is a view of the frame, uint8 [count].
    """

    header: Header
    form: Form
    count: int
    meta: bytes
    body: Tensor | None
