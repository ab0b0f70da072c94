# SPDX-License-Identifier: Apache-2.0
"""What only DGC has: clipping by the global norm over the workers, and its corners."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dgs import Layout, config
from dgs.methods import METHODS, Hyper, Method
from dgs_ext.ops import Selection

LAYOUT = Layout([("a", (30, 40)), ("b", (16,))])
WEIGHTS = [torch.zeros(1200), torch.zeros(16)]


def method(**settings: object) -> Method:
    return METHODS["dgc"].create(
        LAYOUT, torch.device("cpu"), config.resolve(None, {}, mode="dgc", **settings)
    )


def hyper(workers: int = 1, decay: float = 0.0) -> Hyper:
    return Hyper(torch.ones(2), torch.zeros(2), torch.full((2,), decay), LAYOUT.counts(1.0), workers=workers)


def pushed(made: Method, grads: list[Tensor], given: Hyper) -> Tensor:
    update = made.step(grads, WEIGHTS, given)
    assert isinstance(update, Selection) and made.failed() is None
    indices, values = update.compact()
    return torch.zeros(LAYOUT.numel).index_add(0, indices, values)


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("scale", [1.0, 1e25, 1e-25])
def test_the_norm_over_all_tensors_is_clipped_to_clip_over_root_workers(workers: int, scale: float) -> None:
    grads = [scale * torch.randn(n, generator=torch.Generator().manual_seed(n)) for n in (1200, 16)]
    norm = float(torch.cat(grads).double().norm())
    q = pushed(method(clip=norm), grads, hyper(workers)).double()
    assert float(q.norm()) == pytest.approx(norm / math.sqrt(workers), rel=1e-5)
    torch.testing.assert_close(q, torch.cat(grads).double() / math.sqrt(workers), rtol=1e-5, atol=0)


def test_an_explicit_number_of_workers_stands_over_those_active() -> None:
    grads = [torch.ones(1200), torch.ones(16)]
    fixed = pushed(method(clip=1.0, clip_workers=9), grads, hyper(workers=2))
    assert float(fixed.norm()) == pytest.approx(1 / 3, rel=1e-5)


def test_a_small_gradient_and_a_missing_one_are_not_clipped() -> None:
    grads = [torch.full((1200,), 1e-3), torch.empty(0)]
    q = pushed(method(clip=1.0), grads, hyper())
    assert torch.equal(q[:1200], grads[0]) and not q[1200:].any()
    assert not pushed(method(clip=1.0), [torch.empty(0), torch.empty(0)], hyper()).any()


def test_clipping_comes_before_weight_decay() -> None:
    made = method(clip=1.0)
    given = hyper(decay=0.5)
    ones = [torch.ones(1200), torch.ones(16)]
    update = made.step([torch.full((1200,), 1e6), torch.zeros(16)], ones, given)
    assert isinstance(update, Selection)
    values = update.compact()[1]
    torch.testing.assert_close(values[1200:], torch.full((16,), 0.5))
    torch.testing.assert_close(values[:1200], torch.full((1200,), 0.5 + 1 / math.sqrt(1200)))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_fails_its_own_segment_with_clipping_too(bad: float) -> None:
    made = method(clip=1.0)
    made.step([torch.ones(1200), torch.tensor([bad] + [1.0] * 15)], WEIGHTS, hyper())
    assert made.failed() == 1
