# SPDX-License-Identifier: Apache-2.0
"""Frames that arrive cut off, altered, or too large: a typed error, and nothing of the receiver's touched."""

from __future__ import annotations

import pytest
import torch
from frames import FINGERPRINT, PUSH, as_bytes, as_tensor, code_of, pack, sealed

from dgs_ext import wire
from dgs_ext.errors import FrameError

NUMEL = 5000


@pytest.fixture(scope="module")
def frame() -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    chosen = torch.cat(
        [torch.randperm(4000, generator=generator)[:50].sort().values, torch.arange(4500, 4520)]
    )
    return pack(chosen, torch.ones(70), numel=NUMEL, counts=[50, 20], meta=b'{"a": 1}')


class Receiver:
    """Scratch buffers with guard zones on both sides, to see that a decoder stays inside."""

    def __init__(self, room: int = 70) -> None:
        self.indices = torch.full((room + 20,), -7, dtype=torch.int64)
        self.values = torch.full((room + 20,), -7.0)
        self.room = room

    def decode(self, frame: torch.Tensor) -> wire.Decoded:
        inside = slice(10, 10 + self.room)
        return wire.decode(
            frame,
            numel=NUMEL,
            fingerprint=FINGERPRINT,
            indices=self.indices[inside],
            values=self.values[inside],
        )

    def untouched(self) -> bool:
        return bool((self.indices == -7).all() and (self.values == -7).all())

    def stayed_inside(self) -> bool:
        edges = [self.indices[:10], self.indices[-10:], self.values[:10], self.values[-10:]]
        return all(bool((edge == -7).all()) for edge in edges)


def test_truncated_at_every_byte(frame: torch.Tensor) -> None:
    receiver = Receiver()
    for length in range(frame.numel()):
        with pytest.raises(FrameError) as caught:
            receiver.decode(frame[:length])
        assert caught.value.code == "truncated", length
    assert receiver.untouched()


def test_truncated_at_every_byte_behind_true_checksums(frame: torch.Tensor) -> None:
    receiver = Receiver()
    for length in range(64 + 8, frame.numel()):
        with pytest.raises(FrameError):
            receiver.decode(as_tensor(sealed(as_bytes(frame[:length]))))
    assert receiver.stayed_inside()


def test_every_bit_of_the_header(frame: torch.Tensor) -> None:
    receiver = Receiver()
    for bit in range(64 * 8):
        damaged = frame.clone()
        damaged[bit // 8] ^= 1 << (bit % 8)
        expected = "bad_magic" if bit < 32 else "unknown_version" if bit < 40 else "header_check"
        for read in (receiver.decode, wire.parse_header):
            with pytest.raises(FrameError) as caught:
                read(damaged)
            assert caught.value.code == expected, bit
    assert receiver.untouched()


def test_every_bit_of_the_payload(frame: torch.Tensor) -> None:
    receiver = Receiver()
    for bit in range(64 * 8, frame.numel() * 8):
        damaged = frame.clone()
        damaged[bit // 8] ^= 1 << (bit % 8)
        with pytest.raises(FrameError) as caught:
            receiver.decode(damaged)
        assert caught.value.code == "checksum", bit
    assert receiver.untouched()


def test_an_unknown_version_is_named(frame: torch.Tensor) -> None:
    newer = frame.clone()
    newer[4] = 2
    with pytest.raises(FrameError, match="frame version 2, this build reads 1") as caught:
        wire.parse_header(newer)
    assert (caught.value.field, caught.value.value) == ("version", 2)


def test_the_cap_is_kept_before_the_payload_is_there(frame: torch.Tensor) -> None:
    payload = frame.numel() - 64
    assert wire.parse_header(frame[:64], cap=payload).payload_length == payload
    with pytest.raises(FrameError, match=f"cap of {payload - 1} bytes") as caught:
        wire.parse_header(frame[:64], cap=payload - 1)
    assert (caught.value.code, caught.value.field, caught.value.value) == (
        "too_large",
        "payload_length",
        payload,
    )


def test_more_bytes_than_one_frame(frame: torch.Tensor) -> None:
    assert code_of(torch.cat([frame, frame[:1]]), numel=NUMEL) == "trailing"


def test_another_layout_is_refused(frame: torch.Tensor) -> None:
    scratch = torch.empty(70, dtype=torch.int64), torch.empty(70)
    with pytest.raises(FrameError, match="layout") as caught:
        wire.decode(frame, numel=NUMEL, fingerprint=5, indices=scratch[0], values=scratch[1])
    assert (caught.value.code, caught.value.value) == ("layout_mismatch", FINGERPRINT)
    wire.decode(frame, numel=NUMEL, fingerprint=None, indices=scratch[0], values=scratch[1])


def test_scratch_too_small_is_an_error_not_an_overrun(frame: torch.Tensor) -> None:
    receiver = Receiver(room=69)
    with pytest.raises(FrameError, match="holds 70") as caught:
        receiver.decode(frame)
    assert caught.value.code == "capacity"
    assert receiver.untouched()


def test_another_numel_is_refused(frame: torch.Tensor) -> None:
    assert code_of(frame, numel=4519) == "bad_index"
    assert code_of(frame, numel=4520) == "ok"


def test_dense_of_another_numel_is_refused() -> None:
    out = torch.empty(1000, dtype=torch.uint8)
    length = wire.encode_dense(out, PUSH, b"", torch.ones(100))
    assert code_of(out[:length], numel=100) == "ok"
    assert code_of(out[:length], numel=101) == "bad_count"


def test_the_error_says_what_and_survives_pickling(frame: torch.Tensor) -> None:
    import pickle

    with pytest.raises(FrameError) as caught:
        wire.parse_header(frame[:10])
    copy = pickle.loads(pickle.dumps(caught.value))
    assert str(copy) == str(caught.value) == "[truncated] header: a frame has at least 64 bytes (got 10)"
    assert (copy.code, copy.field, copy.value) == ("truncated", "header", 10)
    assert isinstance(copy, ValueError)
