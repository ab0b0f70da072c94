# SPDX-License-Identifier: Apache-2.0
"""quantize_blocks_ against its twin, and what is promised of every codec with a scale per block."""

from __future__ import annotations

import pytest
import torch

CODECS = {"int8": 4, "level4": 5, "level3": 6, "level2": 7, "sign": 8}
SMALLEST, LARGEST = 2.0**-126, torch.finfo(torch.float32).max
VALUES = {
    "normal": torch.randn,
    "octaves": lambda n, generator: (
        torch.randn(n, generator=generator) * 2.0 ** torch.randint(-9, 9, (n,), generator=generator)
    ),
    "bit-patterns": lambda n, generator: (
        torch.randint(-(2**31), 2**31, (n,), generator=generator)
        .to(torch.int32)
        .view(torch.float32)
        .nan_to_num(1.0, LARGEST, -LARGEST)
    ),
    "tiny": lambda n, generator: torch.randn(n, generator=generator) * 2.0**-124,
    "huge": lambda n, generator: torch.randn(n, generator=generator).clamp(-1, 1) * LARGEST,
    "equal": lambda n, generator: torch.full((n,), -2.5),
}


@pytest.fixture(params=CODECS.values(), ids=CODECS.keys())
def codec(request):
    return request.param


@pytest.fixture(params=VALUES.values(), ids=VALUES.keys())
def values(request):
    generator = torch.Generator().manual_seed(5)
    return request.param(2000, generator=generator)


def operands(values, counts, spare=0):
    """A selection whose segments have these counts, and `spare` unused slots each."""
    nnz = torch.tensor(counts, dtype=torch.int64)
    starts = torch.cat([torch.zeros(1, dtype=torch.int64), (nnz + spare).cumsum(0)])
    return {"values": values[: int(starts[-1])].clone(), "offsets": starts, "starts": starts, "nnz": nnz}


def quantized(agree, values, codec):
    """Each block of 128 of one segment."""
    return agree("quantize_blocks_", **operands(values, [values.numel()]), codec=codec)["values"]


@pytest.mark.parametrize("counts", [[], [0], [1], [127, 128, 129], [1000, 0, 3, 500]], ids=str)
def test_blocks_begin_with_their_segments(agree, codec, values, counts, device):
    given = operands(values, counts, spare=7)
    on_device = {name: given[name].to(device) for name in ("values", "nnz")}
    got = agree("quantize_blocks_", **given | on_device, codec=codec)["values"].cpu()
    starts = given["starts"].tolist()
    for s, n in enumerate(counts):
        alone = quantized(agree, values[starts[s] : starts[s] + n], codec)
        assert torch.equal(got[starts[s] : starts[s] + n], alone)
        unused = slice(starts[s] + n, starts[s + 1])
        assert torch.equal(got[unused], values[unused]), "slots that are not used are left as they are"


def test_signs_and_magnitudes(agree, codec, values):
    got = quantized(agree, values, codec).double()
    u = values.double()
    assert got.isfinite().all()
    assert (got * u >= 0).all()
    assert (got.abs() <= 2 * u.abs()).all()
    assert not ((got != 0) & (got.abs() < SMALLEST)).any()
    assert not got[got == 0].signbit().any()


@pytest.mark.parametrize("momentum", [0.0, 0.7, 0.9])
def test_what_stays_behind_is_never_more_than_what_there_was(agree, codec, values, momentum):
    left = values.double() - (1 - momentum) * quantized(agree, values, codec).double()
    for before, after in zip(values.double().split(128), left.split(128), strict=True):
        assert after.norm() <= before.norm() * (1 + 1e-12)


def test_quantising_twice_is_quantising_once(agree, codec, values):
    once = quantized(agree, values, codec)
    assert torch.equal(quantized(agree, once, codec), once)


def test_a_block_says_no_more_than_its_bits(agree, codec, values):
    allowed = {4: 254, 5: 16, 6: 8, 7: 4, 8: 2}[codec]
    for block in quantized(agree, values, codec).split(128):
        assert block[block != 0].unique().numel() <= allowed


def test_zeros_of_both_kinds_and_what_is_below_the_smallest_normal_number(agree, codec):
    got = quantized(agree, torch.tensor([0.0, -0.0, 1e-40, -1e-40]), codec)
    assert got.view(torch.int32).tolist() == [0, 0, 0, 0]


def test_nan_stays_and_infinity_is_saturated(agree, codec):
    got = quantized(agree, torch.tensor([float("nan"), float("inf"), -float("inf")]), codec)
    assert got[0].isnan()
    assert got[1:].isfinite().all()
    assert got[1] == -got[2] > 1e38


def test_int8_to_nearest_even_and_saturated(agree):
    got = quantized(agree, torch.tensor([127.9, 127.0, 64.5, 65.5, -0.5, 0.75, 1.5]), CODECS["int8"])
    assert got.tolist() == [127.0, 127.0, 64.0, 66.0, 0.0, 1.0, 2.0]


def test_levels_are_half_octaves_below_the_largest(agree):
    root = 11863283 / 2**23
    values = torch.tensor([8.0, 8 * 1.2, 8 * 1.21, -4 * 1.7, -4 * 1.71, 1.0, 0.7, 0.3])
    levels = [8.0, 8.0, 8 * root, -4 * root, -8.0, 1.0, 1.0, 0.0]
    assert quantized(agree, values, CODECS["level4"]).tolist() == levels
    assert quantized(agree, values, CODECS["level2"]).tolist() == [8.0, 8.0, 8 * root, -8.0, -8.0, 0, 0, 0]


def test_sign_is_the_mean_of_what_is_not_zero_rounded_down(agree):
    got = quantized(agree, torch.tensor([1.0, -2.0, 3.0, 0.0, 0.5]), CODECS["sign"])
    assert got.tolist() == [1.625, -1.625, 1.625, 0.0, 0.0]


def test_another_codec_is_refused_by_name():
    given = operands(torch.ones(3), [3])
    for number in (0, 3, 9):
        with pytest.raises(RuntimeError, match=rf"codec = {number}, must be 4 \(int8\)"):
            torch.ops.dgs.quantize_blocks_(**given, codec=number)


def test_more_entries_than_slots_are_refused_on_the_cpu():
    given = operands(torch.ones(3), [3])
    given["nnz"] = torch.tensor([4])
    with pytest.raises(RuntimeError, match=r"nnz\[0\] = 4, must be in \[-1, 3\]"):
        torch.ops.dgs.quantize_blocks_(**given, codec=4)
