# SPDX-License-Identifier: Apache-2.0
"""Steps that are not exchanged, and the last push of a worker that leaves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dgs import Layout, config
from dgs.methods import METHODS, Hyper, Method
from dgs_ext import ops
from dgs_ext.ops import Selection
from dgs_ext.wire import Codec

LAYOUT = Layout([("matrix", (40, 30)), ("bias", (7,)), ("deep", (20, 10, 10))])
SEGMENTS = len(LAYOUT.segments)
MODES = sorted(METHODS)


def method(mode: str, **settings: object) -> Method:
    return METHODS[mode].create(LAYOUT, torch.device("cpu"), config.resolve(None, {}, mode=mode, **settings))


def hyper(density: float = 0.05, momentum: float = 0.75, codec: Codec = Codec.FLOAT32) -> Hyper:
    return Hyper(
        lr=torch.full((SEGMENTS,), 0.5),
        momentum=torch.full((SEGMENTS,), momentum),
        weight_decay=torch.full((SEGMENTS,), 0.125),
        counts=LAYOUT.counts(density),
        codec=codec,
    )


def random(seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(s.numel, generator=generator) for s in LAYOUT.segments]


WEIGHTS = random(99)


def pushed(update: Selection | Tensor) -> Tensor:
    if isinstance(update, Tensor):
        return update.clone()
    indices, values = update.compact()
    return torch.zeros(LAYOUT.numel).index_add(0, indices, values)


def exchanged(made: Method, grads: Sequence[Tensor], codec: Codec = Codec.FLOAT32) -> Tensor:
    update = made.step(grads, WEIGHTS, hyper(codec=codec))
    assert made.failed() is None
    made.commit()
    return pushed(update)


@pytest.mark.parametrize("mode", sorted(set(METHODS) - {"asgd"}))
def test_an_accumulated_step_is_a_step_that_sent_nothing(mode: str) -> None:
    made, stepped = method(mode), method(mode)
    for seed in range(3):
        made.accumulate(random(seed), WEIGHTS, hyper())
        nothing = replace(hyper(), counts=torch.zeros(SEGMENTS, dtype=torch.int64))
        stepped.step(random(seed), WEIGHTS, nothing)
        stepped.commit()
    assert made.buffers().keys() == stepped.buffers().keys()
    for name, flat in made.buffers().items():
        assert flat.any() and torch.equal(flat, stepped.buffers()[name])


def test_asgd_sums_what_it_accumulates_and_sends_it_once() -> None:
    made = method("asgd")
    expected = torch.zeros(LAYOUT.numel)
    for seed in range(3):
        update = torch.cat([0.5 * (g + 0.125 * w) for g, w in zip(random(seed), WEIGHTS, strict=True)])
        expected = update if seed == 0 else expected + update
        if seed < 2:
            made.accumulate(random(seed), WEIGHTS, hyper())
    assert made.buffers().keys() == {"accumulated"}
    torch.testing.assert_close(exchanged(made, random(2)), expected, rtol=1e-6, atol=1e-6)
    assert not made.buffers()
    alone = torch.cat([0.5 * (g + 0.125 * w) for g, w in zip(random(3), WEIGHTS, strict=True)])
    assert torch.equal(exchanged(made, random(3)), alone)


def test_asgd_sends_nothing_below_the_normal_range_and_sums_it_all_the_same() -> None:
    """A half and three quarters of 2^-126 are +0 alone and 1.25·2^-126 together; only the whole sum is flushed."""
    least, none = 2.0**-126, [torch.empty(0)] * SEGMENTS
    small = [torch.full((s.numel,), least) for s in LAYOUT.segments]  # times lr 0.5
    more = [torch.full((s.numel,), -1.5 * least) for s in LAYOUT.segments]
    plain = replace(hyper(), weight_decay=torch.zeros(SEGMENTS))

    def accumulated(*steps: list[Tensor]) -> Method:
        made = method("asgd")
        for grads in steps:
            made.accumulate(grads, WEIGHTS, plain)
        return made

    def bits(update: Selection | Tensor | None) -> list[int]:
        assert isinstance(update, Tensor) and bool((update == update[0]).all())
        return update[:1].view(torch.int32).tolist()

    zero, sum_of_both = [0], torch.tensor([1.25 * least]).view(torch.int32).tolist()
    upwards = [-g for g in more]
    assert bits(accumulated().step(more, WEIGHTS, plain)) == zero, "not -0"
    assert bits(accumulated(small).step(none, WEIGHTS, plain)) == zero
    assert bits(accumulated(small).step(upwards, WEIGHTS, plain)) == sum_of_both
    assert bits(accumulated(small).step(more, WEIGHTS, plain)) == zero
    assert bits(accumulated(more).flush(plain)) == zero
    assert bits(accumulated(small, upwards).flush(plain)) == sum_of_both


def test_asgd_holds_no_buffer_until_it_accumulates() -> None:
    made = method("asgd")
    exchanged(made, random(0))
    assert not made.buffers() and made.flush(hyper()) is None
    made.reserve(["velocity"])
    assert not made.buffers()
    made.reserve(["accumulated"])
    made.buffers()["accumulated"].fill_(3.0)
    assert bool((pushed(made.flush(hyper())) == 3.0).all())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_accumulated_step_that_is_not_finite_changes_nothing(mode: str, bad: float) -> None:
    made = method(mode)
    made.accumulate(random(0), WEIGHTS, hyper())
    before = {name: flat.clone() for name, flat in made.buffers().items()}
    wrong = random(1)
    wrong[2][17] = bad
    made.accumulate(wrong, WEIGHTS, hyper())
    assert made.failed() == 2
    assert before and all(torch.equal(flat, made.buffers()[name]) for name, flat in before.items())
    made.accumulate(random(1), WEIGHTS, hyper())
    assert made.failed() is None


@pytest.mark.parametrize("mode", MODES)
def test_an_accumulated_step_without_gradients_leaves_the_state(mode: str) -> None:
    made = method(mode)
    made.accumulate(random(0), WEIGHTS, hyper())
    before = {name: flat.clone() for name, flat in made.buffers().items()}
    made.accumulate([torch.empty(0)] * SEGMENTS, WEIGHTS, hyper())
    assert all(torch.equal(flat, made.buffers()[name]) for name, flat in before.items())


@pytest.mark.parametrize("codec", [Codec.FLOAT32, Codec.FLOAT16, Codec.BFLOAT16], ids=lambda c: c.name)
@pytest.mark.parametrize("mode", MODES)
def test_a_flush_sends_all_that_is_held(mode: str, codec: Codec) -> None:
    made = method(mode)
    for seed in range(4):
        exchanged(made, random(seed), codec)
    made.accumulate(random(4), WEIGHTS, hyper())
    held = {name: flat.clone() for name, flat in made.buffers().items()}
    what = held.get("residual", held.get("velocity", held.get("accumulated")))
    assert what is not None and what.any()

    update = made.flush(hyper(codec=codec))
    assert update is not None and made.failed() is None
    q, whole = pushed(update), what.clone()
    ops.quantize_(whole, codec)
    assert torch.equal(q, whole)
    assert all(torch.equal(flat, made.buffers()[name]) for name, flat in held.items()), "not yet committed"
    made.commit()
    left = made.buffers()
    if mode == "dgs":
        assert torch.equal(left["velocity"], what - (1 - 0.75) * q)
    elif mode == "asgd":
        assert not left
    else:
        assert torch.equal(left["residual"], what - q)
    if mode == "dgc":
        assert torch.equal(left["velocity"], held["velocity"]), "sent whole: keeps momentum"


@pytest.mark.parametrize("mode", MODES)
def test_a_tensor_without_gradient_is_left_out_of_the_step(mode: str) -> None:
    made = method(mode)
    made.accumulate(random(0), WEIGHTS, hyper())
    before = {name: flat.clone() for name, flat in made.buffers().items()}
    some = random(1)
    some[0] = torch.empty(0)
    q = exchanged(made, some)
    if mode == "asgd":
        assert torch.equal(q[:1200], before["accumulated"][:1200])
        return
    assert not q[:1200].any() and q[1200:].any()
    for name, flat in made.buffers().items():
        assert torch.equal(flat[:1200], before[name][:1200])


@pytest.mark.parametrize("mode", MODES)
def test_a_flush_of_nothing_is_none(mode: str) -> None:
    assert method(mode).flush(hyper()) is None
