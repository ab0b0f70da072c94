# SPDX-License-Identifier: Apache-2.0
"""Writes the golden frames: `python tests/wire/make_golden.py tests/wire/golden`.

Built byte by byte from docs/wire_format.md, with nothing of the packer. They are fixed for a format version: run
this only to add frames, and look at the difference before committing it.
"""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path
from typing import Any

from reference_decoder import xxh64

FINGERPRINT = 0x0123456789ABCDEF
FLOATS = struct.pack("<3f", 1.0, -2.0, 0.5)
# One rice block with r = 3: indices 3, 10, 20 (the page's example).
ENTRY = bytes([4, 3, 3, 17, 1])
STREAMS = bytes([0b00_001_110, 0b101])
INDICES = bytes([1, 1]) + ENTRY + STREAMS
SPARSE = INDICES + FLOATS
ROOT = 11863283 / 2**23  # of 2


def frame(
    body: bytes, *, meta: bytes = b"", check: int | None = None, checksum: int | None = None, **fields: int
) -> bytes:
    """A push of 3 float32 values from worker 1, but for what is given."""
    payload = meta + body
    said: dict[str, Any] = {
        "magic": b"DGSF", "format": 1, "kind": 1, "flags": 0, "codec": 1, "worker": 1, "meta_length": len(meta),
        "fingerprint": FINGERPRINT, "sequence": 7, "version": 9, "count": 3, "payload_length": len(payload),
    } | fields  # fmt: skip
    start = struct.pack("<4sBBBBHH", *(said[name] for name in list(said)[:7]))
    end = struct.pack("<5Q", *(said[name] for name in list(said)[7:]))
    end += struct.pack("<Q", xxh64(payload) if checksum is None else checksum)
    if check is None:
        check = xxh64(start + bytes(4) + end) & 0xFFFFFFFF
    return start + struct.pack("<I", check) + end + payload


def one_block(entry: list[int], streams: list[int], count: int, blocks: int = 1) -> bytes:
    return frame(
        bytes([1, blocks, *entry, *streams]) + struct.pack(f"<{count}f", *[1.0] * count), count=count
    )


def sparse(indices: list[int], values: list[float], **more: Any) -> dict[str, Any]:
    return {"numel": 1000, "form": "sparse", "indices": indices, "values": values} | more


def good_frames() -> dict[str, tuple[bytes, dict[str, Any]]]:
    thirds, three = [1.0, -2.0, 0.5], [3, 10, 20]
    half = struct.pack("<3e", 1.0, -2.0, 2.0**-24)
    bfloat = b"".join(struct.pack("<f", value)[2:] for value in (1.0, -2.0, 2.0**-126))
    widest = bytes([1, 1, 48, 2, 0, *[255] * 6, 63, 1, 254, *[255] * 4, 127, 2])  # r = 47, gap 2^48 - 1
    return {
        "sparse_float32": (frame(SPARSE), sparse(three, thirds)),
        "sparse_float16": (frame(SPARSE[:9] + half, codec=2), sparse(three, [1.0, -2.0, 2.0**-24])),
        "sparse_bfloat16": (frame(SPARSE[:9] + bfloat, codec=3), sparse(three, [1.0, -2.0, 2.0**-126])),
        "sparse_int8": (
            frame(INDICES + bytes([3, 127, 64, 0x81, 1]), codec=4),
            sparse(three, [64.0, -127.0, 1.0]),
        ),
        "sparse_int8_two_blocks": (
            frame(INDICES + bytes([1, 1, 2, 248, 255, 127, 129]), codec=4),
            sparse(three, [-(2.0**-126), 127 * 2.0**121, -127 * 2.0**121]),
        ),
        "sparse_level4": (
            frame(INDICES + b"\3\xff\0" + bytes([0x80, 0x0F - 8]), codec=5),
            sparse(three, [ROOT, -ROOT, 2.0**-3]),
        ),
        "sparse_level3": (
            frame(INDICES + b"\3\xfe\0" + bytes([0b01_101_010, 0]), codec=6),
            sparse(three, [0.5, -ROOT / 2, ROOT / 2]),
        ),
        "sparse_level2_smallest": (
            frame(INDICES + b"\3\3\0" + bytes([0b01_10_00]), codec=7),
            sparse(three, [ROOT * 2.0**-126, -ROOT * 2.0**-126, 2.0**-126]),
        ),
        "sparse_sign": (
            frame(INDICES + b"\2\xc0\x3f\1\x80\0" + bytes([0b10, 1]), codec=8),
            sparse(three, [1.5, -1.5, -(2.0**-126)]),
        ),
        "sparse_empty_sign": (frame(bytes([1, 0]), count=0, codec=8), sparse([], [])),
        "sparse_meta_done": (
            frame(SPARSE, meta=b'{"lr": 0.1}', flags=1, kind=2, worker=65535, sequence=2**64 - 1),
            sparse(three, thirds, meta='{"lr": 0.1}', kind=2, done=True, worker=65535, sequence=2**64 - 1),
        ),
        "sparse_run": (frame(bytes([1, 1, 0, 3, 127]) + FLOATS), sparse([127, 128, 129], thirds)),
        "sparse_two_blocks": (
            frame(bytes([1, 2, 0, 1, 2, 1, 2, 0, 9, 2]) + b"\0\1" + FLOATS),
            sparse([2, 3, 12], thirds),
        ),
        "sparse_last_element": (
            frame(bytes([1, 1, 0, 3, 0xE5, 7]) + FLOATS),
            sparse([997, 998, 999], thirds),
        ),
        "sparse_empty": (frame(bytes([1, 0]), count=0), sparse([], [])),
        "sparse_2_to_48": (
            frame(widest + struct.pack("<2f", 1.0, -1.0), count=2),
            sparse([0, 2**48 - 1], [1.0, -1.0], numel=2**48),
        ),
        "dense_float32": (
            frame(b"\0" + struct.pack("<4f", 1.0, 0.0, -0.0, 2.0**-149), count=4, kind=3),
            {"numel": 4, "form": "dense", "values": [1.0, 0.0, -0.0, 2.0**-149], "kind": 3},
        ),
        "dense_float16": (
            frame(b"\0" + struct.pack("<2e", 65504.0, -(2.0**-14)), codec=2, count=2),
            {"numel": 2, "form": "dense", "values": [65504.0, -(2.0**-14)]},
        ),
        "dense_bfloat16": (
            frame(b"\0" + bytes([0x7F, 0x7F, 0, 0x80]), codec=3, count=2),
            {"numel": 2, "form": "dense", "values": [255 * 2.0**120, -0.0]},
        ),
        "dense_empty": (frame(b"\0", count=0), {"numel": 0, "form": "dense", "values": []}),
        "bytes": (
            frame(b"\x00\xff\x7f", codec=0, kind=5, meta=b"{}"),
            {"numel": 1000, "form": "bytes", "body": "00ff7f", "kind": 5, "meta": "{}"},
        ),
        "bytes_empty": (
            frame(b"", codec=0, count=0, kind=6),
            {"numel": 1000, "form": "bytes", "body": "", "kind": 6},
        ),
    }


def broken_headers() -> dict[str, tuple[bytes, str]]:
    good = frame(SPARSE)
    return {
        "empty": (b"", "truncated"),
        "header_cut": (good[:63], "truncated"),
        "payload_cut": (good[:-1], "truncated"),
        "payload_long": (good + b"\0", "trailing"),
        "magic": (frame(SPARSE, magic=b"DGSE"), "bad_magic"),
        "version_0": (frame(SPARSE, format=0), "unknown_version"),
        "version_2": (frame(SPARSE, format=2), "unknown_version"),
        "header_check": (frame(SPARSE, check=0), "header_check"),
        "checksum": (frame(SPARSE, checksum=0), "checksum"),
        "kind_0": (frame(SPARSE, kind=0), "bad_kind"),
        "kind_8": (frame(SPARSE, kind=8), "bad_kind"),
        "flags": (frame(SPARSE, flags=2), "bad_flags"),
        "flags_highest": (frame(SPARSE, flags=128), "bad_flags"),
        "codec_9": (frame(SPARSE, codec=9), "bad_codec"),
        "meta_longer_than_payload": (frame(SPARSE, meta_length=len(SPARSE) + 1), "bad_length"),
        "bytes_count": (frame(b"abc", codec=0, count=4), "bad_count"),
        "bytes_count_below": (frame(b"abc", codec=0, count=2), "bad_count"),
        "fingerprint": (frame(SPARSE, fingerprint=FINGERPRINT ^ 1), "layout_mismatch"),
        "payload_length_2_to_64": (frame(SPARSE, payload_length=2**64 - 1), "truncated"),
    }


def broken_bodies() -> dict[str, tuple[bytes, str]]:
    ones = struct.pack("<3f", 1.0, 1.0, 1.0)
    return {
        "no_body": (frame(b"", count=0), "truncated"),
        "form_2": (frame(b"\2"), "bad_form"),
        "dense_count": (frame(b"\0" + ones), "bad_count"),
        "dense_count_over_numel": (frame(b"\0" + bytes(4000), count=1001), "bad_count"),
        "dense_short": (frame(b"\0" + bytes(3999), count=1000), "truncated"),
        "dense_long": (frame(b"\0" + bytes(4001), count=1000), "trailing"),
        "dense_nan": (frame(b"\0" + bytes(3996) + b"\0\0\xc0\x7f", count=1000), "bad_value"),
        "sparse_inf": (frame(SPARSE[:9] + b"\0\0\x80\x7f" + FLOATS[4:]), "bad_value"),
        "sparse_zero": (frame(SPARSE[:9] + bytes(4) + FLOATS[4:]), "bad_value"),
        "sparse_minus_zero": (frame(SPARSE[:9] + FLOATS[:8] + b"\0\0\0\x80"), "bad_value"),
        "bfloat16_nan": (frame(SPARSE[:9] + b"\x80\x3f\x80\x3f\xc0\x7f", codec=3), "bad_value"),
        "bfloat16_zero": (frame(SPARSE[:9] + b"\x80\x3f\x80\x3f\0\x80", codec=3), "bad_value"),
        "half_infinity": (frame(SPARSE[:9] + struct.pack("<2e", 1, 1) + b"\0\x7c", codec=2), "bad_value"),
        "count_over_numel": (frame(SPARSE, count=1001), "bad_count"),
        "count_over_blocks": (frame(SPARSE, count=4), "bad_count"),
        "count_below_blocks": (frame(SPARSE[:-4], count=2), "bad_count"),
        "more_blocks_than_count": (one_block([0, 1, 0, 0, 1, 0], [], 1, blocks=2), "bad_directory"),
        "block_count_missing": (frame(b"\1", count=0), "truncated"),
        "block_count_spelling": (frame(bytes([1, 0x81, 0]) + ENTRY + STREAMS + FLOATS), "non_canonical"),
        "values_cut": (frame(SPARSE[:-1]), "truncated"),
        "values_long": (frame(SPARSE + b"\0"), "trailing"),
        "directory_cut": (frame(SPARSE[:5]), "truncated"),
        "directory_cut_before_u": (frame(SPARSE[:6]), "truncated"),
    }


def broken_blocks() -> dict[str, tuple[bytes, str]]:
    most = [0xFF] * 9 + [1]
    return {
        "tag_49": (one_block([49, 3, 3, 17, 1], [*STREAMS], 3), "bad_directory"),
        "no_indices": (one_block([0, 0, 0], [], 1), "bad_directory"),
        "first_at_numel": (one_block([0, 1, 0xE8, 7], [], 1), "bad_index"),
        "second_first_at_numel": (one_block([0, 1, 10, 0, 1, 0xDD, 7], [], 2, blocks=2), "bad_index"),
        "second_first_past_numel": (one_block([0, 1, 10, 0, 1, 0xE3, 7], [], 2, blocks=2), "bad_index"),
        "first_2_to_64": (one_block([0, 1, *most], [], 1), "bad_index"),
        "run_past_numel": (one_block([0, 3, 0xE6, 7], [], 3), "bad_index"),
        "run_of_2_to_64": (one_block([0, *most, 0], [], 1), "bad_index"),
        "rice_of_one": (one_block([1, 1, 3, 5, 1], [1], 1), "bad_directory"),
        "rice_of_65537": (
            frame(bytes([1, 1, 1, 0x81, 0x80, 4, 0, 0x81, 0x80, 4, 0x81, 0x40]), count=65537),
            "bad_directory",
        ),
        "rice_of_a_run": (one_block([1, 3, 3, 2, 1], [3], 3), "non_canonical"),
        "span_below_count": (one_block([1, 3, 3, 1, 1], [3], 3), "bad_index"),
        "span_past_numel": (one_block([11, 2, 0, 0xE8, 7, 1], [0xE7, 3, 1], 2), "bad_index"),
        "unary_missing": (one_block([4, 3, 3, 17, 0], [14], 3), "bad_directory"),
        "unary_too_long": (one_block([4, 3, 3, 17, 2], [14, 5, 0], 3), "bad_directory"),
        "unary_without_ones": (one_block([4, 3, 3, 17, 1], [14, 1], 3), "bad_index"),
        "unary_ends_at_the_last_index": (one_block([4, 3, 3, 17, 1], [0, 4], 3), "bad_index"),
        "unary_padding": (one_block([4, 3, 3, 17, 1], [14, 13], 3), "non_canonical"),
        "unary_unused_byte": (one_block([2, 9, 0, 16, 2], [255, 255, 0], 9), "non_canonical"),
        "low_padding": (one_block([4, 3, 3, 17, 1], [14 + 64, 5], 3), "non_canonical"),
        "last_not_span": (one_block([4, 3, 3, 18, 1], [14, 5], 3), "bad_index"),
        "last_beyond_span": (one_block([4, 3, 3, 16, 1], [14, 5], 3), "bad_index"),
        "n_spelling": (one_block([4, 0x83, 0, 3, 17, 1], [*STREAMS], 3), "non_canonical"),
        "skip_spelling": (one_block([4, 3, 0x83, 0, 17, 1], [*STREAMS], 3), "non_canonical"),
        "span_spelling": (one_block([4, 3, 3, 0x91, 0, 1], [*STREAMS], 3), "non_canonical"),
        "u_spelling": (one_block([4, 3, 3, 17, 0x81, 0], [*STREAMS], 3), "non_canonical"),
        "varint_of_eleven_bytes": (one_block([0, 1, *[0x80] * 10, 1], [], 1), "non_canonical"),
        "varint_over_64_bits": (one_block([0, 1, *[0xFF] * 9, 2], [], 1), "non_canonical"),
    }


def broken_values() -> dict[str, tuple[bytes, str]]:
    def after_indices(codec: int, *rest: int) -> bytes:
        return frame(INDICES + bytes(rest), codec=codec)

    return {
        "int8_dense": (frame(b"\0" + bytes(1000), codec=4, count=1000), "bad_form"),
        "int8_table_missing": (after_indices(4), "truncated"),
        "int8_table_cut": (after_indices(4, 2, 127, 1), "truncated"),
        "int8_codes_cut": (after_indices(4, 3, 127, 64, 1), "truncated"),
        "int8_codes_long": (after_indices(4, 3, 127, 64, 1, 1, 1), "trailing"),
        "int8_block_of_none": (after_indices(4, 0, 127, 3, 127, 64, 1, 1), "bad_directory"),
        "int8_blocks_too_large": (after_indices(4, 2, 127, 2, 127, 64, 1, 1, 1), "bad_count"),
        "int8_scale_0": (after_indices(4, 3, 0, 64, 1, 1), "bad_value"),
        "int8_scale_249": (after_indices(4, 3, 249, 64, 1, 1), "bad_value"),
        "int8_code_0": (after_indices(4, 3, 127, 64, 0, 1), "bad_value"),
        "int8_code_128": (after_indices(4, 3, 127, 64, 128, 1), "bad_value"),
        "level4_scale_1": (after_indices(5, 3, 1, 0, 0, 0), "bad_value"),
        "level4_scale_510": (after_indices(5, 3, 254, 1, 0, 0), "bad_value"),
        "level4_below_the_smallest": (after_indices(5, 3, 3, 0, 0x20, 0), "bad_value"),
        "level4_padding": (after_indices(5, 3, 255, 0, 0, 0x10), "bad_value"),
        "level4_dense": (frame(b"\0" + bytes(500), codec=5, count=1000), "bad_form"),
        "level3_scale_510": (after_indices(6, 3, 254, 1, 0, 0), "bad_value"),
        "level3_below_the_smallest": (after_indices(6, 3, 4, 0, 0o003, 0), "bad_value"),
        "level3_padding": (after_indices(6, 3, 255, 0, 0, 2), "bad_value"),
        "level3_codes_cut": (after_indices(6, 3, 255, 0, 0), "truncated"),
        "level2_scale_1": (after_indices(7, 3, 1, 0, 0), "bad_value"),
        "level2_below_the_smallest": (after_indices(7, 3, 2, 0, 4), "bad_value"),
        "level2_padding": (after_indices(7, 3, 255, 0, 0x40), "bad_value"),
        "level2_codes_long": (after_indices(7, 3, 255, 0, 0, 0), "trailing"),
        "sign_table_cut": (after_indices(8, 3, 0x80), "truncated"),
        # What is left of the streams would do as a table and codes.
        "sign_streams_cut": (
            frame(bytes([1, 1, 41, 2, 0, 100, 1]) + bytes([2, 0x80, 0x3F, 1]), codec=8, count=2),
            "truncated",
        ),
        "sign_block_of_none": (after_indices(8, 0, 0x80, 0x3F), "bad_directory"),
        "sign_scale_127": (after_indices(8, 3, 127, 0, 0), "bad_value"),
        "sign_scale_infinite": (after_indices(8, 3, 0x80, 0x7F, 0), "bad_value"),
        "sign_padding": (after_indices(8, 3, 0x80, 0x3F, 8), "bad_value"),
    }


def broken_twice() -> dict[str, tuple[bytes, str]]:
    """Two rules broken each: the page's order says of which one is told."""
    long = len(SPARSE) + 1
    return {
        "order_magic_version": (frame(SPARSE, magic=b"DGSE", format=2), "bad_magic"),
        "order_version_check": (frame(SPARSE, format=2, check=0), "unknown_version"),
        "order_check_kind": (frame(SPARSE, check=0, kind=0), "header_check"),
        "order_kind_flags": (frame(SPARSE, kind=0, flags=2), "bad_kind"),
        "order_flags_codec": (frame(SPARSE, flags=2, codec=9), "bad_flags"),
        "order_codec_meta": (frame(SPARSE, codec=9, meta_length=long), "bad_codec"),
        "order_meta_count": (frame(b"abc", codec=0, meta_length=4, count=4), "bad_length"),
        "order_count_length": (frame(b"abc", codec=0, count=4)[:-1], "bad_count"),
        "order_length_fingerprint": (frame(SPARSE, fingerprint=0)[:-1], "truncated"),
        "order_fingerprint_checksum": (frame(SPARSE, fingerprint=0, checksum=0), "layout_mismatch"),
        "order_checksum_body": (frame(b"\2", checksum=0), "checksum"),
    }


def broken_twice_sparse() -> dict[str, tuple[bytes, str]]:
    padded = INDICES[:-1] + bytes([13])  # non_canonical
    return {
        "order_numel_blocks": (frame(bytes([1, 0x81, 0]) + ENTRY + STREAMS, count=1001), "bad_count"),
        "order_blocks_entries": (frame(bytes([1, 2, 0, 1, 0xE8, 7]), count=1), "bad_directory"),
        "order_tag_fields": (frame(bytes([1, 1, 49])), "bad_directory"),
        "order_fields_n": (frame(bytes([1, 1, 1, 0, 3])), "truncated"),
        "order_n_skip": (frame(bytes([1, 1, 0, 0, 0xE8, 7])), "bad_directory"),
        "order_span_rice_n": (frame(bytes([1, 1, 1, 1, 3, 0xE8, 7, 1])), "bad_index"),
        "order_span_u": (frame(bytes([1, 1, 1, 3, 3, 1, 0])), "bad_index"),
        "order_rice_n_run": (frame(bytes([1, 1, 1, 1, 3, 0, 1])), "bad_directory"),
        "order_run_u": (frame(bytes([1, 1, 1, 3, 3, 2, 0])), "non_canonical"),
        "order_entries_sum": (frame(bytes([1, 2, 0, 1, 0, 49]), count=5), "bad_directory"),
        "order_sum_length": (frame(SPARSE + b"\0", count=4), "bad_count"),
        "order_length_streams": (frame(padded + FLOATS + b"\0"), "trailing"),
        "order_last_padding": (one_block([4, 3, 3, 18, 1], [14, 13], 3), "bad_index"),
        "order_streams_values": (frame(padded + bytes(12)), "non_canonical"),
        "order_table_streams": (frame(padded + bytes([3, 0, 64, 1, 1]), codec=4), "bad_value"),
        "order_codes_length_streams": (frame(padded + bytes([3, 127, 64, 1, 1, 1]), codec=4), "trailing"),
        "order_streams_codes": (frame(padded + bytes([3, 127, 64, 0, 1]), codec=4), "non_canonical"),
    }


def write(folder: Path) -> None:
    manifest: dict[str, dict[str, Any]] = {"good": {}, "bad": {}}
    for name, (data, expected) in good_frames().items():
        (folder / f"{name}.frame").write_bytes(data)
        manifest["good"][name] = expected
    broken = broken_headers() | broken_bodies() | broken_blocks() | broken_values()
    broken |= broken_twice() | broken_twice_sparse()
    for name, (data, code) in broken.items():
        (folder / f"bad_{name}.frame").write_bytes(data)
        manifest["bad"][name] = {"numel": 100_000 if name == "rice_of_65537" else 1000, "code": code}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
