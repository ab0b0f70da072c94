# SPDX-License-Identifier: Apache-2.0
"""quantize_ against its twin and against what the wire can say."""

from __future__ import annotations

import pytest
import torch

CODECS = {"float32": (1, torch.float32), "float16": (2, torch.float16), "bfloat16": (3, torch.bfloat16)}


@pytest.fixture(params=CODECS.values(), ids=CODECS.keys())
def codec(request):
    return request.param


@pytest.mark.parametrize("n", [0, 1, 2, 63, 64, 65, 100_000])
def test_random_bit_patterns(agree, codec, n, device):
    number, dtype = codec
    patterns = torch.randint(-(2**31), 2**31, (n,), generator=torch.Generator().manual_seed(n))
    values = patterns.to(torch.int32).view(torch.float32)
    got = agree("quantize_", values=values.to(device), codec=number)["values"]
    finite = got[got.isfinite()]
    assert torch.equal(finite.to(dtype).float(), finite), "a quantised value is one of the codec's"
    assert not ((finite != 0) & (finite.abs() < 2.0**-126)).any()


def test_ties_round_to_even_and_large_values_saturate(agree, codec, device):
    number, dtype = codec
    info = torch.finfo(dtype)
    step = info.eps
    values = torch.tensor(
        [1 + step / 2, 1 + 3 * step / 2, -(1 + step / 2), info.max, -info.max, 3.0e38, -3.0e38]
    )
    got = agree("quantize_", values=values.to(device), codec=number)["values"].cpu()
    if number != 1:
        assert got[:3].tolist() == [1.0, 1 + 2 * step, -1.0]
    assert got[3:5].tolist() == [info.max, -info.max]
    assert got.isfinite().all()


def test_float16_denormals(agree, device):
    values = torch.tensor([1.0, 1.5, 0.5, 0.50001, -2.5, 1023.5]) * 2.0**-24
    got = agree("quantize_", values=values.to(device), codec=2)["values"].cpu()
    assert (got * 2.0**24).tolist() == [1.0, 2.0, 0.0, 1.0, -2.0, 1024.0]
