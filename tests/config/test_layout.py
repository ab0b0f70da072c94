# SPDX-License-Identifier: Apache-2.0
"""The layout: offsets, k of every tensor, what is sent whole, the fingerprint, and what can be trained at all."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dgs import Layout
from dgs.errors import LayoutError
from dgs.layout import kept, trainable, unwrapped

TENSORS = [("conv", (64, 3, 5, 5)), ("bias", (5000,)), ("small", (31, 33)), ("gain", ()), ("none", (0, 7))]


def test_segments_follow_each_other() -> None:
    layout = Layout(TENSORS)
    assert [(s.name, s.offset, s.numel) for s in layout.segments] == [
        ("conv", 0, 4800), ("bias", 4800, 5000), ("small", 9800, 1023), ("gain", 10823, 1), ("none", 10824, 0)
    ]  # fmt: skip
    assert layout.offsets.tolist() == [0, 4800, 9800, 10823, 10824, 10824] and layout.numel == 10824
    assert [layout.segment_of(i).name for i in (0, 4799, 4800, 10822, 10823)] == [
        "conv", "conv", "bias", "small", "gain"
    ]  # fmt: skip


def test_vectors_and_small_tensors_are_sent_whole_by_default() -> None:
    assert Layout(TENSORS).counts(0.01).tolist() == [48, 5000, 1023, 1, 0]
    assert Layout(TENSORS, dense_below=1000).counts(0.01).tolist() == [48, 5000, 11, 1, 0]
    assert Layout(TENSORS, dense_below=10**6).counts(0.01).tolist() == [4800, 5000, 1023, 1, 0]
    assert Layout(TENSORS, compress_all=True).counts(0.01).tolist() == [48, 50, 11, 1, 0]
    assert Layout(TENSORS).counts([0.5, 0.1, 0.1, 0.1, 0.1]).tolist() == [2400, 5000, 1023, 1, 0]


@given(n=st.integers(1, 10**7), thousandths=st.integers(1, 1000))
def test_k_is_the_ceiling_of_the_exact_product(n: int, thousandths: int) -> None:
    exact = math.ceil(Fraction(thousandths, 1000) * n)
    assert kept(n, thousandths / 1000) == max(1, exact)
    assert kept(n, 1 - (1 - thousandths / 1000)) == max(1, exact), "density from sparsity, with its rounding"


def test_k_is_not_raised_by_the_rounding_of_the_density() -> None:
    assert (1 - 0.99) * 1000 > 10 and kept(1000, 1 - 0.99) == 10
    assert 0.07 * 100 > 7 and kept(100, 0.07) == 7
    assert kept(1000, 0.0101) == 11


@given(n=st.integers(0, 10**9), density=st.floats(1e-12, 1.0))
def test_k_is_at_least_one_and_at_most_all(n: int, density: float) -> None:
    assert min(1, n) <= kept(n, density) <= n
    assert kept(n, 1.0) == n


def test_the_fingerprint_covers_names_shapes_order_and_buffers() -> None:
    base = Layout(TENSORS).fingerprint
    assert base == Layout(list(TENSORS)).fingerprint
    others = [
        Layout([("other", (64, 3, 5, 5)), *TENSORS[1:]]),
        Layout([("conv", (3, 64, 5, 5)), *TENSORS[1:]]),
        Layout([TENSORS[1], TENSORS[0], *TENSORS[2:]]),
        Layout(TENSORS[:-1]),
        Layout(TENSORS, [("running_mean", "float32", (5,))]),
        Layout(TENSORS, [("running_mean", "float64", (5,))]),
    ]
    assert len({base, *(layout.fingerprint for layout in others)}) == 7


@pytest.mark.parametrize(
    ("theirs", "text"),
    [
        (TENSORS, ""),
        (TENSORS[:1], "tensor 1: bias [5000] here, none there"),
        ([*TENSORS, ("more", (2,))], "tensor 5: none here, more [2] there"),
        (
            [("conv", (3, 64, 5, 5)), *TENSORS[1:]],
            "tensor 0: conv [64, 3, 5, 5] here, conv [3, 64, 5, 5] there",
        ),
    ],
)
def test_the_first_difference_is_said_in_words(theirs: list[tuple[str, tuple[int, ...]]], text: str) -> None:
    assert Layout(TENSORS).difference(theirs) == text
    assert Layout(TENSORS).difference([(name, list(shape)) for name, shape in theirs]) == text


def test_nothing_to_train_is_an_error() -> None:
    with pytest.raises(LayoutError, match="no trainable parameters"):
        Layout([])
    with pytest.raises(LayoutError, match="no trainable parameters"):
        Layout([(n, p.shape) for n, p in trainable(nn.ReLU())])


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex64])
def test_other_dtypes_are_refused_by_name(dtype: torch.dtype) -> None:
    model = nn.Module()
    model.weight = nn.Parameter(torch.zeros(3, dtype=dtype))
    with pytest.raises(LayoutError, match=rf"weight has dtype {dtype}; only float32, bfloat16 and float16"):
        trainable(model)


def test_tied_parameters_are_laid_out_once_and_frozen_ones_not_at_all() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    model[2].requires_grad_(False)
    model[2].register_parameter("count", nn.Parameter(torch.zeros(3, dtype=torch.int64), requires_grad=False))
    assert [name for name, _ in trainable(model)] == ["0.weight", "0.bias", "1.bias"]
    assert [name for name, _ in trainable(model, [model[1].bias])] == ["1.bias"]


@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel], ids=lambda f: f.__name__)
def test_wrappers_are_taken_off(
    wrap: Callable[[nn.Module], nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # DataParallel moves the model there
    model = nn.Sequential(nn.Linear(2, 2))
    assert unwrapped(model) is model
    assert unwrapped(wrap(model)) is model and unwrapped(wrap(nn.DataParallel(model))) is model
    model.module = nn.Linear(2, 2)
    assert unwrapped(model) is model, "a part of that name is no wrapper"
