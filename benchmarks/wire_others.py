# SPDX-License-Identifier: Apache-2.0
"""What else could be sent instead of a frame, packed and unpacked: the packer's benchmark runs it in turn."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

Pair = tuple[Tensor, Tensor]  # indices int64 [k], values float32 [k]


@dataclass(frozen=True)
class Other:
    """One way to send entries: `pack` makes the message and `unpack` reads it; both may be run again and again."""

    name: str
    length: int
    pack: Callable[[], object]
    unpack: Callable[[], Pair]


class Compressor(Protocol):
    """What zlib and both zstd modules have."""

    def compress(self, data: Any, level: int, /) -> bytes: ...
    def decompress(self, data: bytes, /) -> bytes: ...


def zstd() -> Compressor | None:
    """Python's own (3.14), or the package zstandard, or none."""
    try:
        from compression import zstd as own  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        try:
            import zstandard
        except ImportError:
            return None
        return zstandard
    module: Compressor = own
    return module


def copied(entries: Pair, index: torch.dtype, value: torch.dtype, name: str) -> Other:
    """Indices and values of those dtypes side by side, in a buffer that is there already."""
    indices, values = entries
    message = torch.empty_like(indices, dtype=index), torch.empty_like(values, dtype=value)
    received = torch.empty_like(indices), torch.empty_like(values)

    def pack() -> None:
        message[0].copy_(indices)
        message[1].copy_(values)

    def unpack() -> Pair:
        received[0].copy_(message[0])
        received[1].copy_(message[1])
        return received

    return Other(name, sum(t.numel() * t.element_size() for t in message), pack, unpack)


def compressed(entries: Pair, by: Compressor, level: int, name: str) -> Other:
    """int32 indices and float32 values, compressed."""
    indices, values = entries
    k = indices.numel()
    plain = torch.empty(2 * k, dtype=torch.int32)

    def pack() -> bytes:
        plain[:k].copy_(indices)
        plain[k:].copy_(values.view(torch.int32))
        return by.compress(plain.numpy(), level)

    message = pack()

    def unpack() -> Pair:
        words = torch.frombuffer(bytearray(by.decompress(message)), dtype=torch.int32)
        return words[:k].long(), words[k:].view(torch.float32)

    return Other(name, len(message), pack, unpack)


def saved(entries: Pair) -> Other:
    """torch.save of both."""

    def pack() -> bytes:
        file = io.BytesIO()
        torch.save(entries, file)
        return file.getvalue()

    message = pack()

    def unpack() -> Pair:
        indices, values = torch.load(io.BytesIO(message), weights_only=True)
        return indices, values

    return Other("torch.save", len(message), pack, unpack)


def others(entries: Pair) -> list[Other]:
    """All that this Python has; the first is the floor: what an entry is in memory, moved and nothing computed."""
    found = [
        copied(entries, torch.int64, torch.float32, "copy (floor)"),
        copied(entries, torch.int32, torch.float32, "int32 + float32"),
        copied(entries, torch.float64, torch.float64, "float64 pairs"),
        compressed(entries, zlib, 1, "zlib"),
    ]
    if (by := zstd()) is not None:
        found.append(compressed(entries, by, 3, "zstd"))
    return [*found, saved(entries)]
