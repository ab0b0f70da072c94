# SPDX-License-Identifier: Apache-2.0
"""Frames written down once (make_golden.py): what they mean, and why the broken ones are refused, may not change."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import reference_decoder as reference
import torch
from frames import FINGERPRINT, as_bytes, as_tensor, unpack

from dgs_ext import wire
from dgs_ext.errors import FrameError

GOLDEN = Path(__file__).resolve().parent / "golden"
MANIFEST: dict[str, dict[str, Any]] = json.loads((GOLDEN / "manifest.json").read_text())


def bits(values: list[float]) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


@pytest.mark.parametrize("name", MANIFEST["good"])
def test_golden_frames_mean_what_they_meant(name: str) -> None:
    data, expected = (GOLDEN / f"{name}.frame").read_bytes(), MANIFEST["good"][name]
    ours = unpack(as_tensor(data), numel=expected["numel"], room=10)
    theirs = reference.decode(data, numel=expected["numel"], fingerprint=FINGERPRINT)
    header = ours.decoded.header
    assert ours.decoded.form == theirs.form == expected["form"]
    assert ours.decoded.meta == theirs.meta == expected.get("meta", "").encode()
    assert header.kind == theirs.kind == expected.get("kind", 1)
    assert header.done == bool(theirs.flags) == expected.get("done", False)
    assert header.worker == theirs.worker == expected.get("worker", 1)
    assert header.sequence == theirs.sequence == expected.get("sequence", 7)
    assert header.version == theirs.version == 9
    assert ours.indices == theirs.indices == expected.get("indices", [])
    assert bits(ours.values.tolist()) == bits(theirs.values) == bits(expected.get("values", []))
    body = b"" if ours.decoded.body is None else as_bytes(ours.decoded.body)
    assert body.hex() == theirs.body.hex() == expected.get("body", "")


@pytest.mark.parametrize("name", MANIFEST["bad"])
def test_golden_errors_are_refused_for_the_reason_given(name: str) -> None:
    data, expected = (GOLDEN / f"bad_{name}.frame").read_bytes(), MANIFEST["bad"][name]
    with pytest.raises(FrameError) as ours:
        unpack(as_tensor(data), numel=expected["numel"])
    with pytest.raises(reference.RefusedError) as theirs:
        reference.decode(data, numel=expected["numel"], fingerprint=FINGERPRINT)
    assert ours.value.code == theirs.value.args[0] == expected["code"]


def test_every_codec_has_golden_frames_and_golden_errors() -> None:
    codecs = {name: (GOLDEN / f"{name}.frame").read_bytes()[7] for name in MANIFEST["good"]}
    assert set(codecs.values()) == set(wire.Codec)
    after_checks = {"bad_value", "bad_form", "bad_directory", "bad_count", "truncated", "trailing"}
    broken = [name for name, expected in MANIFEST["bad"].items() if expected["code"] in after_checks]
    found = {data[7] for name in broken if len(data := (GOLDEN / f"bad_{name}.frame").read_bytes()) >= 64}
    assert found == set(wire.Codec)


def test_the_pages_example_is_what_the_packer_writes() -> None:
    header = wire.Header(
        wire.Kind.PUSH, wire.Codec.FLOAT32, worker=1, fingerprint=FINGERPRINT, sequence=7, version=9
    )
    out = torch.empty(200, dtype=torch.uint8)
    length = wire.encode_sparse(
        out,
        header,
        b"",
        torch.tensor([3, 10, 20]),
        torch.tensor([1.0, -2.0, 0.5]),
        torch.tensor([0, 3]),
        torch.tensor([3]),
        1000,
    )
    frame = as_bytes(out[:length])
    assert frame == (GOLDEN / "sparse_float32.frame").read_bytes()
    page = (Path(__file__).resolve().parents[2] / "docs" / "wire_format.md").read_text()
    dump = page.split("```")[1].strip().splitlines()
    columns = [line[4:].split("     ")[0] for line in dump]
    assert bytes.fromhex("".join(columns)) == frame


def test_every_code_of_the_page_has_a_golden_error() -> None:
    """Those that a lone frame cannot cause have tests of their own."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "wire_format.md").read_text()
    rows = [line for line in page.split("## 3. Errors")[1].splitlines() if line.startswith("| `")]
    codes = {code for row in rows for code in row.split("|")[1].replace("`", "").replace(" ", "").split(",")}
    golden = {expected["code"] for expected in MANIFEST["bad"].values()}
    assert codes - golden == {"too_large", "not_representable", "capacity"}
    assert golden <= codes
