# SPDX-License-Identifier: Apache-2.0
"""The packer against the decoder that was written from the page alone, on frames of all kinds."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest
import reference_decoder as reference
import torch
from frames import CODECS, FINGERPRINT, PUSH, VALUE_CODECS, as_bytes, as_tensor, pack, sealed, unpack
from hypothesis import given, settings
from hypothesis import strategies as st

from dgs_ext import ops, wire
from dgs_ext.errors import FrameError
from dgs_ext.selection import Selection

U64 = st.integers(0, 2**64 - 1)
COUNTS = st.integers(0, 50) | st.sampled_from([500, 501, 2**63, 2**64 - 1])


def value_of(codec: wire.Codec) -> st.SearchStrategy[float]:
    """A number of the codec; with codecs in blocks, one that is rounded to its block's later."""
    if codec.in_blocks:
        return st.floats(-4, 4, width=32) | st.floats(width=32, allow_nan=False, allow_infinity=False)
    if codec is wire.Codec.BFLOAT16:
        upper = st.integers(0, 2**16 - 1).filter(lambda bits: bits & 0x7F80 != 0x7F80)
        return upper.map(lambda bits: struct.unpack("<f", struct.pack("<I", bits << 16))[0])
    width = 32 if codec is wire.Codec.FLOAT32 else 16
    return st.floats(width=width, allow_nan=False, allow_infinity=False)


def headers(codecs: list[wire.Codec]) -> st.SearchStrategy[wire.Header]:
    return st.builds(
        wire.Header,
        kind=st.sampled_from(wire.Kind),
        codec=st.sampled_from(codecs),
        worker=st.integers(0, 2**16 - 1),
        fingerprint=U64,
        sequence=U64,
        version=U64,
        done=st.booleans(),
    )


@st.composite
def samples(draw: st.DrawFn) -> tuple[wire.Header, bytes, int, list[tuple[list[int], int]], list[float]]:
    """A header, meta data, numel, per segment its indices and unused slots, and the values in order."""
    header = draw(headers(CODECS))
    bounds, segments = 0, []
    for width in draw(st.lists(st.integers(1, 400), min_size=1, max_size=8)):
        inside = st.integers(bounds, bounds + width - 1)
        chosen = draw(st.sets(inside, max_size=60) | st.just(set(range(bounds, bounds + width))))
        segments.append((sorted(chosen), draw(st.integers(0, 3))))
        bounds += width
    count = sum(len(chosen) for chosen, _ in segments)
    values = draw(st.lists(value_of(header.codec), min_size=count, max_size=count))
    numel = bounds * draw(st.sampled_from([1, 1000, 2**30]))
    return header, draw(st.binary(max_size=20)), numel, segments, values


def laid_out(segments: list[tuple[list[int], int]], values: list[float]) -> Selection:
    indices: list[int] = []
    slots: list[float] = []
    starts, queue = [0], list(reversed(values))
    for chosen, unused in segments:
        indices += chosen + [-1] * unused
        slots += [queue.pop() for _ in chosen] + [float("nan")] * unused
        starts.append(len(indices))
    nnz = [len(chosen) for chosen, _ in segments]
    return Selection(
        torch.tensor(indices, dtype=torch.int64),
        torch.tensor(slots, dtype=torch.float32),
        torch.tensor(starts),
        torch.tensor(nnz),
    )


def bits(values: list[float]) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


@settings(max_examples=150, deadline=None)
@given(samples())
def test_sparse_frames_mean_the_same_to_both_decoders(sample) -> None:
    header, meta, numel, segments, values = sample
    sel = laid_out(segments, values)
    if header.codec.in_blocks:
        ops.quantize_blocks_(sel, torch.tensor([0] * len(segments) + [numel]), int(header.codec))
        values = sel.compact()[1].tolist()
    capacity = wire.frame_capacity(
        sel.indices.numel(), header.codec, numel=numel, segments=len(segments), meta_bytes=len(meta)
    )
    out = torch.empty(capacity, dtype=torch.uint8)
    before = [as_bytes(tensor) for tensor in (sel.indices, sel.values, sel.starts, sel.nnz)]
    length = wire.encode_sparse(out, header, meta, sel.indices, sel.values, sel.starts, sel.nnz, numel)
    frame = out[:length]
    assert before == [as_bytes(tensor) for tensor in (sel.indices, sel.values, sel.starts, sel.nnz)]

    flat = [index for chosen, _ in segments for index in chosen]
    sent = [(index, value) for index, value in zip(flat, values, strict=True) if value != 0]
    theirs = reference.decode(as_bytes(frame), numel=numel, fingerprint=header.fingerprint)
    ours = unpack(frame, numel=numel, room=min(numel, 10000), fingerprint=header.fingerprint)

    assert theirs.meta == ours.decoded.meta == meta
    assert ours.decoded.header == replace(
        header, count=ours.decoded.count, payload_length=length - 64, meta_length=len(meta)
    )
    assert (theirs.kind, theirs.codec, theirs.worker) == (header.kind, header.codec, header.worker)
    assert (theirs.sequence, theirs.version, theirs.flags) == (header.sequence, header.version, header.done)
    assert theirs.form == ours.decoded.form
    assert bits(theirs.values) == bits(ours.values.tolist())
    if theirs.form == "sparse":
        assert theirs.indices == ours.indices == [index for index, _ in sent]
        assert bits(theirs.values) == bits([value for _, value in sent])
    else:
        whole = dict(sent)
        assert bits(theirs.values) == bits([whole.get(index, 0.0) for index in range(numel)])


@settings(max_examples=50, deadline=None)
@given(st.data(), headers(VALUE_CODECS))
def test_dense_frames_travel_bit_for_bit(data: st.DataObject, header: wire.Header) -> None:
    values = data.draw(st.lists(value_of(header.codec), max_size=70))
    out = torch.empty(
        wire.frame_capacity(len(values), header.codec, numel=len(values), meta_bytes=0), dtype=torch.uint8
    )
    length = wire.encode_dense(out, header, b"", torch.tensor(values, dtype=torch.float32))
    theirs = reference.decode(as_bytes(out[:length]), numel=len(values))
    ours = unpack(out[:length], numel=len(values), fingerprint=None)
    assert theirs.form == ours.decoded.form == "dense"
    assert bits(theirs.values) == bits(ours.values.tolist()) == bits(values)


@pytest.mark.parametrize("kind", list(wire.Kind), ids=lambda kind: kind.name.lower())
@pytest.mark.parametrize("size", [0, 1, 1000])
def test_opaque_frames(kind: wire.Kind, size: int) -> None:
    body = torch.arange(size, dtype=torch.int64).to(torch.uint8)
    header = wire.Header(kind, fingerprint=FINGERPRINT, done=True)
    out = torch.empty(wire.frame_capacity(size, wire.Codec.BYTES, numel=3, meta_bytes=2), dtype=torch.uint8)
    length = wire.encode_bytes(out, header, b"{}", body if size else None)
    assert length == out.numel()
    theirs = reference.decode(as_bytes(out), numel=3, fingerprint=FINGERPRINT)
    ours = unpack(out, numel=3, room=0).decoded
    assert ours.body is not None
    assert theirs.body == as_bytes(ours.body) == as_bytes(body)
    assert theirs.meta == ours.meta == b"{}"
    assert ours.form == theirs.form == "bytes"
    assert ours.count == theirs.count == size


@st.composite
def mutants(draw: st.DrawFn) -> bytes:
    """Damage behind checksums that agree: the format, not the hash, must refuse it."""
    codec = draw(st.sampled_from(CODECS))
    chosen = [*sorted(draw(st.sets(st.integers(0, 299), min_size=2, max_size=40))), 400, 401, 402]
    count = len(chosen)
    drawn = draw(st.lists(st.sampled_from([1.0, -1.0, 0.75, -3.0, 0.125]), min_size=count, max_size=count))
    sel = laid_out([(chosen[:-3], 0), (chosen[-3:], 0)], drawn)
    ops.quantize_selection_(sel, torch.tensor([0, 400, 500]), int(codec))
    frame = bytearray(as_bytes(pack(sel.indices, sel.values, numel=500, codec=codec, counts=[count - 3, 3])))
    byte = st.integers(0, 255) | st.sampled_from([0, 1, 2, 127, 128, 129, 255])
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(64, min(80, len(frame) - 1)) | st.integers(64, len(frame) - 1))
        what = draw(st.sampled_from(["set", "set", "set", "flip", "insert", "delete", "cut"]))
        if what == "set":
            frame[at] = draw(byte)
        elif what == "flip":
            frame[at] ^= 1 << draw(st.integers(0, 7))
        elif what == "insert":
            frame.insert(at, draw(byte))
        elif len(frame) > 66:
            del frame[at : at + 1 if what == "delete" else len(frame)]
            frame += bytes(max(0, 66 - len(frame)))
    frame[40:48] = draw(st.just(frame[40:48]) | COUNTS.map(lambda n: n.to_bytes(8, "little")))
    frame[7] = draw(st.just(frame[7]) | st.integers(0, 9))
    return sealed(bytes(frame))


@settings(max_examples=600, deadline=None)
@given(mutants())
def test_both_decoders_say_the_same_of_mutants(mutant: bytes) -> None:
    try:
        theirs = reference.decode(mutant, numel=500, fingerprint=FINGERPRINT)
    except reference.RefusedError as refused:
        with pytest.raises(FrameError) as caught:
            unpack(as_tensor(mutant), numel=500)
        assert caught.value.code == refused.args[0]
        return
    ours = unpack(as_tensor(mutant), numel=500)
    assert ours.indices == theirs.indices
    assert bits(ours.values.tolist()) == bits(theirs.values)


def test_a_large_frame() -> None:
    generator = torch.Generator().manual_seed(1)
    chosen = torch.randperm(2_000_000, generator=generator)[:20_000].sort().values
    values = torch.randn(20_000, generator=generator)
    frame = pack(chosen, values, numel=2_000_000, header=PUSH)
    theirs = reference.decode(as_bytes(frame), numel=2_000_000)
    assert theirs.indices == chosen.tolist()
    assert bits(theirs.values) == bits(values.tolist())
