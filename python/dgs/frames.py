# SPDX-License-Identifier: Apache-2.0
"""The buffers in which one end of a session packs and unpacks its frames, reused from message to message."""

from __future__ import annotations

import sys

import torch
from torch import Tensor

from dgs_ext import wire
from dgs_ext.ops import Selection
from dgs_ext.wire import Codec, Decoded, Header

from . import memory
from .layout import Layout


class Packer:
    """Packs into one buffer and unpacks into another pair; each result is valid until the next of its kind.

    Buffers grow to what a message needs: a frame cannot make them larger than the layout.

    Args:
        layout: of what is sent.
        into: indices int64 and values float32 to unpack into, as long as they are large enough.
    """

    def __init__(self, layout: Layout, into: tuple[Tensor, Tensor] | None = None) -> None:
        self._layout = layout
        self._out = torch.empty(0, dtype=torch.uint8)
        self._indices, self._values = into or (torch.empty(0, dtype=torch.int64), torch.empty(0))

    def sparse(self, header: Header, meta: bytes, selection: Selection) -> Tensor:
        """A frame of a selection on the CPU, uint8 [length]."""
        out = self._room(selection.indices.numel(), header.codec, meta)
        length = wire.encode_sparse(
            out,
            header,
            meta,
            selection.indices,
            selection.values,
            selection.starts,
            selection.nnz,
            self._layout.numel,
        )
        return out[:length]

    def dense(self, header: Header, meta: bytes, values: Tensor) -> Tensor:
        """A frame of a whole vector, float32 [N] on the CPU."""
        out = self._room(values.numel(), header.codec, meta)
        return out[: wire.encode_dense(out, header, meta, values)]

    def opaque(self, header: Header, meta: bytes, body: Tensor | None = None) -> Tensor:
        """A frame of bytes, or of metadata alone."""
        out = self._room(0 if body is None else body.numel(), Codec.BYTES, meta)
        return out[: wire.encode_bytes(out, header, meta, body)]

    def decode(self, frame: Tensor) -> Decoded:
        """Checks a frame whole and unpacks it; the entries are then in `entries` or `values`."""
        header = wire.parse_header(frame)
        if header.codec is not Codec.BYTES:
            most = self._layout.numel
            need = min(header.count, most)
            self._values = _enough(self._values, need, most)
            if need < most:  # all N entries are always sent dense, which needs no room for indices
                self._indices = _enough(self._indices, need, most)
        return wire.decode(
            frame,
            numel=self._layout.numel,
            fingerprint=self._layout.fingerprint,
            indices=self._indices,
            values=self._values,
        )

    def entries(self, decoded: Decoded) -> tuple[Tensor, Tensor]:
        """Indices int64 [count], ascending, and values float32 [count] of a sparse frame."""
        return self._indices[: decoded.count], self._values[: decoded.count]

    def values(self, decoded: Decoded) -> Tensor:
        """The vector float32 [N] of a dense frame, or the values of a sparse one."""
        return self._values[: decoded.count]

    def _room(self, entries: int, codec: Codec, meta: bytes) -> Tensor:
        capacity = wire.frame_capacity(
            entries,
            codec,
            numel=self._layout.numel,
            segments=len(self._layout.segments),
            meta_bytes=len(meta),
        )
        self._out = _enough(self._out, capacity)
        return self._out


def _enough(buffer: Tensor, need: int, most: int = sys.maxsize) -> Tensor:
    """`buffer` if it has `need` elements, or else a larger one; what it held is lost.

    A quarter larger than needed: sizes vary from message to message, and what is not written takes no memory.
    """
    if buffer.numel() >= need:
        return buffer
    return memory.scratch(min(need + need // 4, most), buffer.dtype)
