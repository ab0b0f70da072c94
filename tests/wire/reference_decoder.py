# SPDX-License-Identifier: Apache-2.0
"""A second decoder, written from docs/wire_format.md alone: plain Python, no dgs, no torch, no numpy.

It is slow and literal on purpose: bit streams are strings of "0" and "1", in stream order.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field

MASK = (1 << 64) - 1
PRIMES = (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5)


WIDTH = {1: 4, 2: 2, 3: 2}  # bytes per value
BITS = {4: 8, 5: 4, 6: 3, 7: 2, 8: 1}  # of a code


class RefusedError(Exception):
    """The frame breaks a rule; the only argument is the page's error code."""


@dataclass
class Frame:
    """Everything that a frame says."""

    kind: int
    flags: int
    codec: int
    worker: int
    fingerprint: int
    sequence: int
    version: int
    count: int
    meta: bytes = b""
    form: str = "bytes"
    body: bytes = b""
    indices: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)


def need(condition: bool, code: str) -> None:
    if not condition:
        raise RefusedError(code)


def rotl(x: int, r: int) -> int:
    return ((x << r) | (x >> (64 - r))) & MASK


def xxh64(data: bytes) -> int:
    p1, p2, p3, p4, p5 = PRIMES

    def step(acc: int, lane: int) -> int:
        return rotl((acc + lane * p2) & MASK, 31) * p1 & MASK

    at, acc = 0, p5
    if len(data) >= 32:
        lanes = [(p1 + p2) & MASK, p2, 0, -p1 & MASK]
        while at + 32 <= len(data):
            words = struct.unpack_from("<4Q", data, at)
            lanes = [step(lane, word) for lane, word in zip(lanes, words, strict=True)]
            at += 32
        acc = sum(rotl(lane, r) for lane, r in zip(lanes, (1, 7, 12, 18), strict=True)) & MASK
        for lane in lanes:
            acc = ((acc ^ step(0, lane)) * p1 + p4) & MASK
    acc = (acc + len(data)) & MASK
    while at + 8 <= len(data):
        acc = (rotl(acc ^ step(0, struct.unpack_from("<Q", data, at)[0]), 27) * p1 + p4) & MASK
        at += 8
    if at + 4 <= len(data):
        acc = (rotl(acc ^ (struct.unpack_from("<I", data, at)[0] * p1 & MASK), 23) * p2 + p3) & MASK
        at += 4
    for byte in data[at:]:
        acc = rotl(acc ^ (byte * p5 & MASK), 11) * p1 & MASK
    acc = (acc ^ acc >> 33) * p2 & MASK
    acc = (acc ^ acc >> 29) * p3 & MASK
    return acc ^ acc >> 32


class Cursor:
    """Reads the body from left to right."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def left(self) -> int:
        return len(self.data) - self.at

    def take(self, count: int) -> bytes:
        need(self.left() >= count, "truncated")
        self.at += count
        return self.data[self.at - count : self.at]

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            need(value <= MASK and shift <= 63, "non_canonical")
            if byte < 128:
                need(byte != 0 or shift == 0, "non_canonical")
                return value
            shift += 7


@dataclass
class Block:
    tag: int
    n: int
    first: int
    span: int
    unary_bytes: int = 0

    def low_bytes(self) -> int:
        return math.ceil((self.n - 1) * (self.tag - 1) / 8)

    def stream_bytes(self) -> int:
        return 0 if self.tag == 0 else self.low_bytes() + self.unary_bytes


def read_entry(cursor: Cursor, start: int, numel: int) -> Block:
    tag = cursor.take(1)[0]
    need(tag <= 48, "bad_directory")
    n, skip = cursor.varint(), cursor.varint()
    block = Block(tag, n, start + skip, n - 1)
    if tag > 0:
        block.span, block.unary_bytes = cursor.varint(), cursor.varint()
    need(n >= 1, "bad_directory")
    need(block.first < numel, "bad_index")
    need(block.n - 1 <= block.span and block.first + block.span < numel, "bad_index")
    if tag > 0:
        need(2 <= n <= 65536, "bad_directory")
        need(block.span > n - 1, "non_canonical")
        most_quotients = (block.span - (n - 1)) // 2 ** (tag - 1)
        least, most = math.ceil((n - 1) / 8), math.ceil((n - 1 + most_quotients) / 8)
        need(least <= block.unary_bytes <= most, "bad_directory")
    return block


def bits_of(data: bytes) -> str:
    return "".join(format(byte, "08b")[::-1] for byte in data)


def read_rice(block: Block, streams: bytes) -> list[int]:
    r = block.tag - 1
    low, unary = bits_of(streams[: block.low_bytes()]), bits_of(streams[block.low_bytes() :])
    indices, at = [block.first], 0
    for i in range(block.n - 1):
        one = unary.find("1", at)
        need(one >= 0, "bad_index")
        remainder = int(low[i * r : (i + 1) * r][::-1] or "0", 2)
        indices.append(indices[-1] + ((one - at) << r) + remainder + 1)
        at = one + 1
    need(indices[-1] == block.first + block.span, "bad_index")
    need(len(unary) - at < 8 and "1" not in unary[at:], "non_canonical")
    need("1" not in low[(block.n - 1) * r :], "non_canonical")
    return indices


def read_directory(cursor: Cursor, frame: Frame, numel: int) -> list[Block]:
    need(frame.count <= numel, "bad_count")
    block_count = cursor.varint()
    need(block_count <= frame.count, "bad_directory")
    blocks: list[Block] = []
    for _ in range(block_count):
        start = blocks[-1].first + blocks[-1].span + 1 if blocks else 0
        blocks.append(read_entry(cursor, start, numel))
    need(sum(block.n for block in blocks) == frame.count, "bad_count")
    return blocks


def read_indices(blocks: list[Block], streams: Cursor) -> list[int]:
    indices: list[int] = []
    for block in blocks:
        mine = streams.take(block.stream_bytes())
        run = range(block.first, block.first + block.n)
        indices.extend(run if block.tag == 0 else read_rice(block, mine))
    return indices


def half_octave(t: int) -> float:
    return 2.0 ** (t // 2 - 127) * (1 if t % 2 == 0 else 11863283 / 2**23)


def of_code(codec: int, scale: int, code: int) -> float:
    if codec == 4:
        need(code not in (0, 128), "bad_value")
        return (code - 256 if code > 128 else code) * 2.0 ** (scale - 127)
    if codec == 8:
        magnitude: float = struct.unpack("<f", struct.pack("<HH", 0, scale))[0]
        return -magnitude if code else magnitude
    sign, below = divmod(code, 2 ** (BITS[codec] - 1))
    need(scale - below >= 2, "bad_value")
    return half_octave(scale - below) * (-1 if sign else 1)


def code_bytes(codec: int, n: int) -> int:
    return math.ceil(n * BITS[codec] / 8)


def read_table(cursor: Cursor, codec: int, count: int) -> list[tuple[int, int]]:
    """How many values each block has, and its scale; what is behind the table is as long as their codes."""
    low, high = {4: (1, 248), 8: (128, 32639)}.get(codec, (2, 509))
    table: list[tuple[int, int]] = []
    left = count
    while left > 0:
        n, scale = cursor.take(1)[0], int.from_bytes(cursor.take(1 if codec == 4 else 2), "little")
        need(n >= 1, "bad_directory")
        need(n <= left, "bad_count")
        need(low <= scale <= high, "bad_value")
        table.append((n, scale))
        left -= n
    need_left(cursor, sum(code_bytes(codec, n) for n, _ in table))
    return table


def read_codes(cursor: Cursor, codec: int, table: list[tuple[int, int]]) -> list[float]:
    values: list[float] = []
    for n, scale in table:
        codes = bits_of(cursor.take(code_bytes(codec, n)))
        b = BITS[codec]
        values += [of_code(codec, scale, int(codes[i * b : (i + 1) * b][::-1], 2)) for i in range(n)]
        need("1" not in codes[n * b :], "bad_value")
    return values


def read_values(codec: int, data: bytes, count: int, zeros: bool) -> list[float]:
    if codec == 1:
        values = struct.unpack(f"<{count}f", data)
    elif codec == 2:
        values = struct.unpack(f"<{count}e", data)
    else:
        values = struct.unpack(
            f"<{count}f", b"".join(b"\0\0" + data[i : i + 2] for i in range(0, len(data), 2))
        )
    need(all(math.isfinite(value) and (zeros or value != 0) for value in values), "bad_value")
    return list(values)


def need_left(cursor: Cursor, expected: int) -> None:
    need(cursor.left() >= expected, "truncated")
    need(cursor.left() <= expected, "trailing")


def read_sparse(cursor: Cursor, frame: Frame, numel: int) -> None:
    blocks = read_directory(cursor, frame, numel)
    stream_bytes = sum(block.stream_bytes() for block in blocks)
    if frame.codec in WIDTH:
        need_left(cursor, stream_bytes + frame.count * WIDTH[frame.codec])
        frame.indices = read_indices(blocks, Cursor(cursor.take(stream_bytes)))
        frame.values = read_values(frame.codec, cursor.take(cursor.left()), frame.count, zeros=False)
    else:
        streams = Cursor(cursor.take(stream_bytes))
        table = read_table(cursor, frame.codec, frame.count)
        frame.indices = read_indices(blocks, streams)
        frame.values = read_codes(cursor, frame.codec, table)


def read_body(frame: Frame, body: bytes, numel: int) -> None:
    cursor = Cursor(body)
    form = cursor.take(1)[0]
    need(form in (0, 1), "bad_form")
    frame.form = ("dense", "sparse")[form]
    if form == 1:
        read_sparse(cursor, frame, numel)
        return
    need(frame.count == numel, "bad_count")
    need(frame.codec in WIDTH, "bad_form")
    need_left(cursor, numel * WIDTH[frame.codec])
    frame.values = read_values(frame.codec, cursor.take(cursor.left()), numel, zeros=True)


def decode(data: bytes, *, numel: int, fingerprint: int | None = None, cap: int | None = None) -> Frame:
    """The whole frame, or RefusedError with the code of the first rule that it breaks."""
    need(len(data) >= 64, "truncated")
    magic, version, kind, flags, codec, worker, meta_length, check = struct.unpack_from("<4sBBBBHHI", data)
    layout, sequence, model_version, count, payload_length, checksum = struct.unpack_from("<6Q", data, 16)
    need(magic == b"DGSF", "bad_magic")
    need(version == 1, "unknown_version")
    need(xxh64(data[:12] + bytes(4) + data[16:64]) & 0xFFFFFFFF == check, "header_check")
    need(1 <= kind <= 7, "bad_kind")
    need(flags in (0, 1), "bad_flags")
    need(codec <= 8, "bad_codec")
    need(meta_length <= payload_length, "bad_length")
    need(codec != 0 or count == payload_length - meta_length, "bad_count")
    need(cap is None or payload_length <= cap, "too_large")
    payload = data[64:]
    need(len(payload) >= payload_length, "truncated")
    need(len(payload) <= payload_length, "trailing")
    need(fingerprint is None or fingerprint == layout, "layout_mismatch")
    need(xxh64(payload) == checksum, "checksum")
    frame = Frame(kind, flags, codec, worker, layout, sequence, model_version, count, payload[:meta_length])
    if codec == 0:
        frame.body = payload[meta_length:]
    else:
        read_body(frame, payload[meta_length:], numel)
    return frame
