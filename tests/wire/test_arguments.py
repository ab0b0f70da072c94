# SPDX-License-Identifier: Apache-2.0
"""What the packer refuses to pack or to be called with."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest
import torch
from frames import PUSH, VALUE_CODECS, as_bytes, pack
from reference_decoder import xxh64 as reference_xxh64

from dgs_ext import wire
from dgs_ext.errors import FrameError

INDICES = torch.tensor([3, 10, 20])
VALUES = torch.tensor([1.0, -2.0, 0.5])


def encode(**changed: Any) -> int:
    given: dict[str, Any] = {
        "out": torch.empty(4096, dtype=torch.uint8),
        "header": PUSH,
        "meta": b"",
        "indices": INDICES,
        "values": VALUES,
        "starts": torch.tensor([0, 3]),
        "nnz": torch.tensor([3]),
        "numel": 100,
    }
    return wire.encode_sparse(**given | changed)


@pytest.mark.parametrize("codec", VALUE_CODECS, ids=lambda codec: codec.name.lower())
@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_values_that_are_not_finite(codec: wire.Codec, value: float) -> None:
    with pytest.raises(FrameError, match="not finite") as caught:
        encode(values=torch.tensor([1.0, value, 1.0]), header=replace(PUSH, codec=codec))
    assert (caught.value.code, caught.value.value) == ("bad_value", 10)


@pytest.mark.parametrize(
    ("codec", "value"),
    [
        (wire.Codec.FLOAT16, 1.0 + 2.0**-11),
        (wire.Codec.FLOAT16, 65536.0),
        (wire.Codec.FLOAT16, 2.0**-25),
        (wire.Codec.BFLOAT16, 1.0 + 2.0**-8),
    ],
)
def test_the_wire_never_rounds(codec: wire.Codec, value: float) -> None:
    with pytest.raises(FrameError, match="quantise before packing") as caught:
        encode(values=torch.tensor([1.0, 1.0, value]), header=replace(PUSH, codec=codec))
    assert (caught.value.code, caught.value.value) == ("not_representable", 20)
    with pytest.raises(FrameError) as caught:
        wire.encode_dense(
            torch.empty(4096, dtype=torch.uint8), replace(PUSH, codec=codec), b"", torch.tensor([1.0, value])
        )
    assert (caught.value.code, caught.value.value) == ("not_representable", 1)


@pytest.mark.parametrize("indices", [[3, 3, 20], [3, 2, 20], [-1, 3, 20], [3, 10, 100]])
def test_indices_out_of_order_or_range(indices: list[int]) -> None:
    with pytest.raises(FrameError, match="numel = 100") as caught:
        encode(indices=torch.tensor(indices))
    assert caught.value.code == "bad_index"


def test_order_holds_across_segments() -> None:
    with pytest.raises(FrameError) as caught:
        encode(indices=torch.tensor([10, 3, 20]), starts=torch.tensor([0, 1, 3]), nnz=torch.tensor([1, 2]))
    assert (caught.value.code, caught.value.value) == ("bad_index", 1)


def test_out_too_small_says_how_much_is_needed() -> None:
    needed = encode()
    with pytest.raises(FrameError, match=f"needs {needed} bytes") as caught:
        encode(out=torch.empty(needed - 1, dtype=torch.uint8))
    assert caught.value.code == "capacity"
    assert encode(out=torch.empty(needed, dtype=torch.uint8)) == needed


def test_meta_data_has_a_limit() -> None:
    out = torch.empty(70000, dtype=torch.uint8)
    assert encode(out=out, meta=bytes(65535)) > 65535
    with pytest.raises(FrameError) as caught:
        encode(out=out, meta=bytes(65536))
    assert caught.value.code == "too_large"


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("out", torch.empty(99), TypeError, "out must be torch.uint8, got torch.float32"),
        (
            "out",
            torch.empty((9, 9), dtype=torch.uint8),
            ValueError,
            r"one contiguous vector, got shape \[9, 9\]",
        ),
        ("indices", INDICES.int(), TypeError, "indices must be torch.int64, got torch.int32"),
        ("indices", torch.arange(6)[::2], ValueError, "indices must be one contiguous vector"),
        ("indices", [3, 10, 20], TypeError, "indices must be a torch.Tensor, got list"),
        ("values", VALUES.double(), TypeError, "values must be torch.float32, got torch.float64"),
        ("values", VALUES.to("meta"), ValueError, "values must be on the CPU, got meta"),
        ("values", VALUES[:2], ValueError, "as many as the indices"),
        ("starts", torch.tensor([0]), ValueError, "one longer than nnz"),
        ("starts", torch.tensor([0, 4]), ValueError, "starts: must be non-decreasing"),
        ("starts", torch.tensor([-1, 3]), ValueError, "starts: must be non-decreasing"),
        ("nnz", torch.tensor([4]), ValueError, "nnz: must be 0 to 3"),
        ("nnz", torch.tensor([-1]), ValueError, "nnz: must be 0 to 3"),
        ("meta", "{}", TypeError, "meta must be bytes, got str"),
        ("numel", -1, ValueError, "numel must be in"),
        ("numel", 2**48 + 1, ValueError, "numel must be in"),
        ("numel", 1.5, TypeError, "float"),
        ("header", replace(PUSH, codec=wire.Codec.BYTES), ValueError, "codec: values need"),
        (
            "header",
            replace(PUSH, worker=65536),
            ValueError,
            r"header.worker must be in \[0, 65536\), got 65536",
        ),
        ("header", replace(PUSH, sequence=-1), ValueError, "header.sequence must be in"),
        ("header", replace(PUSH, version=2**64), ValueError, "header.version must be in"),
    ],
)
def test_wrong_arguments_are_named(name: str, value: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        encode(**{name: value})
    assert not isinstance(caught.value, FrameError)


def test_an_opaque_body_needs_the_opaque_codec() -> None:
    with pytest.raises(ValueError, match="opaque body needs codec 0"):
        wire.encode_bytes(torch.empty(100, dtype=torch.uint8), PUSH, b"")


def test_tensors_that_require_grad_are_read() -> None:
    assert encode(values=VALUES.clone().requires_grad_()) == encode()


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool]
)
@pytest.mark.parametrize("shape", [(0,), (), (3,), (31,), (33, 3)])
def test_xxh64_of_any_tensor(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    raw = as_bytes(tensor.reshape(-1).view(torch.uint8))
    assert wire.xxh64(tensor) == reference_xxh64(raw) == wire.fingerprint(raw)
    assert wire.xxh64(tensor, seed=1) != wire.xxh64(tensor)


def test_xxh64_refuses_what_it_would_have_to_copy() -> None:
    with pytest.raises(ValueError, match="contiguous"):
        wire.xxh64(torch.ones(4, 4).t()[:2])
    with pytest.raises(ValueError, match="on the CPU, got meta"):
        wire.xxh64(torch.empty(4, device="meta"))


def test_threads_pack_independently() -> None:
    """The GIL is released and each thread keeps scratch of its own."""
    results: list[bool] = []

    def work(seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(100_000, generator=generator)[:1000].sort().values
        frames = {as_bytes(pack(chosen, torch.ones(1000), numel=100_000)) for _ in range(50)}
        results.append(len(frames) == 1)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 4
