# SPDX-License-Identifier: Apache-2.0
"""Frames: what one side sends to the other, packed and unpacked on CPU tensors in place.

The format is docs/wire_format.md. Nothing is rounded here: values are float32 numbers that the codec holds
exactly. Encoders write into the caller's buffer; the decoder writes into the caller's scratch buffers, which are
garbage after a FrameError: apply nothing before decode has returned.

Bytes are worked on without the GIL, by torch's threads where the message is large; they do not depend on how many.
A process forked from one that has used those threads does not have them, and waits for ever, here as in torch's
own operators: spawn processes.
What is packed is read where it lies, more than once: nothing may write to it until the encoder has returned.

Arguments of a wrong dtype, device, layout, size or range are a TypeError or ValueError everywhere; what is
wrong with a frame, or cannot be put into one, is a FrameError.
"""

from __future__ import annotations

from operator import index
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from dgs_ext import _wire
from dgs_ext.frame_types import HEADER_BYTES, Codec, Decoded, Form, Header, Kind

VERSION: int = _wire.VERSION
MAX_META_BYTES = 65535

_FORMS: dict[int, Form] = {0: "dense", 1: "sparse", 255: "bytes"}
_DONE = 1
_U64 = 1 << 64

__all__ = [
    "HEADER_BYTES",
    "MAX_META_BYTES",
    "VERSION",
    "Codec",
    "Decoded",
    "Form",
    "Header",
    "Kind",
    "decode",
    "encode_bytes",
    "encode_dense",
    "encode_sparse",
    "fingerprint",
    "frame_capacity",
    "parse_header",
    "xxh64",
]


def _array(tensor: Tensor, name: str, dtype: torch.dtype) -> npt.NDArray[Any]:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"wire: {name} must be a torch.Tensor, got {type(tensor).__name__}")
    if tensor.dtype != dtype:
        raise TypeError(f"wire: {name} must be {dtype}, got {tensor.dtype}")
    if tensor.device.type != "cpu":
        raise ValueError(f"wire: {name} must be on the CPU, got {tensor.device}; copy it to the host first")
    if tensor.dim() != 1 or not tensor.is_contiguous():
        shape = f"shape {list(tensor.shape)}, strides {list(tensor.stride())}"
        raise ValueError(f"wire: {name} must be one contiguous vector, got {shape}")
    return tensor.detach().numpy()


def _integer(value: int, name: str, limit: int) -> int:
    number = index(value)
    if not 0 <= number < limit:
        raise ValueError(f"wire: {name} must be in [0, {limit}), got {number}")
    return number


def _meta(meta: bytes) -> bytes:
    if not isinstance(meta, bytes):
        raise TypeError(f"wire: meta must be bytes, got {type(meta).__name__}")
    return meta


def _chosen(header: Header) -> tuple[int, int, int, int, int, int, int]:
    return (
        Kind(header.kind),
        Codec(header.codec),
        _DONE if header.done else 0,
        _integer(header.worker, "header.worker", 1 << 16),
        _integer(header.fingerprint, "header.fingerprint", _U64),
        _integer(header.sequence, "header.sequence", _U64),
        _integer(header.version, "header.version", _U64),
    )


def _header(fields: tuple[int, int, int, int, int, int, int, int, int, int]) -> Header:
    kind, codec, flags, worker, fingerprint, sequence, version, count, payload_length, meta_length = fields
    return Header(
        kind=Kind(kind),
        codec=Codec(codec),
        worker=worker,
        fingerprint=fingerprint,
        sequence=sequence,
        version=version,
        done=bool(flags & _DONE),
        count=count,
        payload_length=payload_length,
        meta_length=meta_length,
    )


def _numel(numel: int) -> int:
    return _integer(numel, "numel", _wire.MAX_NUMEL + 1)


def frame_capacity(
    entries: int, codec: Codec, *, numel: int, segments: int = 1, meta_bytes: int = MAX_META_BYTES
) -> int:
    """Bytes that always suffice for a frame.

    Args:
        entries: most entries of a sparse frame (numel for a dense one; bytes of body for Codec.BYTES).
        codec: of the values.
        numel: length of the flat vector, at most 2^48.
        segments: of the layout.
        meta_bytes: most bytes of meta data.
    """
    return _wire.frame_capacity(
        _integer(entries, "entries", _wire.MAX_NUMEL + 1),
        Codec(codec),
        _numel(numel),
        _integer(segments, "segments", _wire.MAX_NUMEL + 1),
        _integer(meta_bytes, "meta_bytes", MAX_META_BYTES + 1),
    )


def encode_sparse(
    out: Tensor,
    header: Header,
    meta: bytes,
    indices: Tensor,
    values: Tensor,
    starts: Tensor,
    nnz: Tensor,
    numel: int,
) -> int:
    """Packs selected entries of a flat vector; zeros are left out, and the dense form is taken if smaller.

    With a codec of blocks there is no dense form, and each 128 slots of a segment, from its first on, are of one
    scale: what ops.quantize_blocks_ makes of the same selection.

    Args:
        out: uint8 [capacity], see frame_capacity; overwritten.
        header: kind, codec and the numbers to send.
        meta: a JSON object in UTF-8, or empty; at most 65535 bytes.
        indices: int64 [K], global flat indices, strictly increasing over the used slots.
        values: float32 [K], finite, each exactly a number of the codec.
        starts: int64 [S+1], first slot of each segment, and K or less at the end.
        nnz: int64 [S], how many slots of each segment are used; the others are not read.
        numel: length of the flat vector.

    Returns:
        The frame's length in bytes.

    Raises:
        FrameError: "bad_index" (.value is the slot), "bad_value" or "not_representable" (.value is the
            element of the vector), "capacity" or "too_large" (meta).
    """
    return _wire.encode_sparse(
        _array(out, "out", torch.uint8),
        _chosen(header),
        _meta(meta),
        _array(indices, "indices", torch.int64),
        _array(values, "values", torch.float32),
        _array(starts, "starts", torch.int64),
        _array(nnz, "nnz", torch.int64),
        _numel(numel),
    )


def encode_dense(out: Tensor, header: Header, meta: bytes, values: Tensor) -> int:
    """Packs a whole vector, bit for bit (zeros keep their sign), with a codec that has no blocks.

    Args:
        out: uint8 [capacity]; overwritten.
        header: kind, codec and the numbers to send.
        meta: a JSON object in UTF-8, or empty; at most 65535 bytes.
        values: float32 [numel], finite, each exactly a number of the codec.

    Returns:
        The frame's length in bytes.

    Raises:
        FrameError: "bad_value" or "not_representable" (.value is the element), "capacity" or "too_large"
            (meta).
    """
    return _wire.encode_dense(
        _array(out, "out", torch.uint8),
        _chosen(header),
        _meta(meta),
        _array(values, "values", torch.float32),
    )


def encode_bytes(out: Tensor, header: Header, meta: bytes, body: Tensor | None = None) -> int:
    """Packs an opaque body, or none; header.codec must be Codec.BYTES.

    Args:
        out: uint8 [capacity]; overwritten.
        header: kind and the numbers to send.
        meta: a JSON object in UTF-8, or empty; at most 65535 bytes.
        body: uint8 [count], or None for an empty one.

    Returns:
        The frame's length in bytes.

    Raises:
        FrameError: "capacity" or "too_large" (meta).
    """
    content = torch.empty(0, dtype=torch.uint8) if body is None else body
    return _wire.encode_bytes(
        _array(out, "out", torch.uint8), _chosen(header), _meta(meta), _array(content, "body", torch.uint8)
    )


def parse_header(frame: Tensor, *, cap: int | None = None) -> Header:
    """Reads and checks the first 64 bytes of a frame; what follows them is not looked at.

    Args:
        frame: uint8 [64 or more].
        cap: the most bytes of payload that this side accepts; None for no limit.

    Raises:
        FrameError: "truncated", "bad_magic", "unknown_version", "header_check", "bad_kind", "bad_flags",
            "bad_codec", "bad_length", "bad_count" or "too_large".
    """
    checked_cap = None if cap is None else _integer(cap, "cap", _U64)
    return _header(_wire.parse_header(_array(frame, "frame", torch.uint8), checked_cap))


def decode(frame: Tensor, *, numel: int, fingerprint: int | None, indices: Tensor, values: Tensor) -> Decoded:
    """Unpacks one frame and believes nothing in it.

    Args:
        frame: uint8 [header.frame_length], exactly one frame.
        numel: length of the receiver's flat vector.
        fingerprint: of the receiver's layout, which the frame's must equal; None: not compared.
        indices: int64, scratch for the indices of a sparse frame.
        values: float32, scratch for the values of a sparse or dense frame.

    Returns:
        What the frame held; indices[:count] and values[:count] are overwritten.

    Raises:
        FrameError: the frame breaks a rule of the format (.code, .field, .value), or a scratch buffer is
            smaller than the frame needs ("capacity"). The scratch buffers are garbage then.
    """
    fields, form = _wire.decode(
        _array(frame, "frame", torch.uint8),
        _numel(numel),
        None if fingerprint is None else _integer(fingerprint, "fingerprint", _U64),
        _array(indices, "indices", torch.int64),
        _array(values, "values", torch.float32),
    )
    header = _header(fields)
    body_start = HEADER_BYTES + header.meta_length
    return Decoded(
        header=header,
        form=_FORMS[form],
        count=header.count,
        meta=frame[HEADER_BYTES:body_start].numpy().tobytes(),
        body=frame[body_start:] if header.codec is Codec.BYTES else None,
    )


def xxh64(tensor: Tensor, seed: int = 0) -> int:
    """XXH64 of a tensor's bytes.

    Args:
        tensor: any contiguous CPU tensor, of any dtype and shape.
        seed: 0 to 2^64 - 1.
    """
    if not isinstance(tensor, Tensor):
        raise TypeError(f"wire: tensor must be a torch.Tensor, got {type(tensor).__name__}")
    if not tensor.is_contiguous():
        raise ValueError(f"wire: tensor must be contiguous, got strides {tensor.stride()}")
    flat = tensor.detach().reshape(-1).view(torch.uint8)
    return _wire.xxh64(_array(flat, "tensor", torch.uint8), _integer(seed, "seed", _U64))


def fingerprint(text: bytes) -> int:
    """XXH64, seed 0, of the canonical description of a layout."""
    return _wire.xxh64_bytes(text, 0)
