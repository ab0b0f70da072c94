# SPDX-License-Identifier: Apache-2.0
"""The invariants of the design, on runs that hypothesis makes up: any codec, any order, any number of workers."""

from __future__ import annotations

from typing import Any

import torch
from fleet import Fleet, Vectors, WatchedState, same_bits, set_grads, weights_of
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dgs import Layout
from dgs_ext.wire import Codec

SHAPES = {"matrix": (9, 15), "bias": (5,), "empty": (0, 3), "table": (40, 2), "scalar": ()}
CODECS = ["float32", "float16", "bfloat16", "int8", "level4", "level3", "level2", "sign"]
DOWN = [None, *CODECS[:-1]]  # sign is refused
# Magnitudes up to 1e37: a difference of two parameters has to fit float32.
SCALES = [0.0, 1e-45, 1e-40, 2.0**-126, 1e-20, 1e-6, 1.0, 1e5, 1e30, 1e37]


def tensors(seed: int) -> dict[str, Tensor]:
    """Random tensors whose entries are each of a scale of their own, some of them zero."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name, shape in SHAPES.items():
        scale = torch.tensor(SCALES, dtype=torch.float64)[
            torch.randint(len(SCALES), shape, generator=generator)
        ]
        made[name] = (scale * (torch.rand(shape, generator=generator, dtype=torch.float64) - 0.5)).float()
    return made


exchanges = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 999), st.sampled_from(["step", "join"])),
    min_size=4,
    max_size=14,
)


@given(
    mode=st.sampled_from(["dgs", "gd", "dgc"]),
    up=st.sampled_from(CODECS),
    down=st.sampled_from(DOWN),
    density=st.sampled_from([0.01, 0.2, 1.0]),
    density_down=st.sampled_from([None, 0.05, 1.0]),
    script=exchanges,
)
def test_the_mirror_is_the_worker_bit_for_bit_after_every_exchange(
    mode: str, up: str, down: str | None, density: float, density_down: float | None, script: list[Any]
) -> None:
    """Invariant 1; and 3: a joiner, however late, gets one dense snapshot and nothing dense after it."""
    settings = {"mode": mode, "codec": up, "codec_down": down, "density": density, "dense_below": 0}
    if density_down is not None:
        settings["density_down"] = density_down
    with Fleet(Vectors(tensors(0)), **settings) as fleet:
        models: list[Vectors] = []

        def join() -> None:
            models.append(Vectors(tensors(1)))
            fleet.join(models[-1], lr=0.5, momentum=0.0 if mode == "gd" else 0.5, weight_decay=0.01)
            assert same_bits(weights_of(fleet.workers[-1]), fleet.state.theta)
            assert same_bits(fleet.state.mirrors[-1].weights, fleet.state.theta)

        join()
        for who, seed, what in script:
            if what == "join" and len(models) < 4:
                join()
            k = who % len(models)
            set_grads(models[k], tensors(seed))
            fleet.workers[k].step()
            for worker, mirror in zip(fleet.workers, fleet.state.mirrors, strict=True):
                assert same_bits(weights_of(worker), mirror.weights)
        assert len(fleet.state.mirrors) == len(models)
        assert bool(fleet.state.theta.isfinite().all())


def state_of(seed: int) -> WatchedState:
    layout = Layout(list(SHAPES.items()))
    theta = torch.cat([t.reshape(-1) for t in tensors(seed).values()])
    return WatchedState(layout, theta, device=torch.device("cpu"))


def ulp(x: Tensor) -> Tensor:
    """The distance of |x| to the next larger float32."""
    up = torch.nextafter(x.abs(), torch.tensor(torch.inf))
    return up.double() - x.abs().double()


@given(seed=st.integers(0, 9999), other=st.integers(0, 9999))
def test_a_whole_pull_comes_within_an_ulp_and_the_next_is_exact(seed: int, other: int) -> None:
    """Invariant 2, at density 1 in float32.

    The exceptions: differences below 2^-126 are not sent, and results below it are 0 on both sides.
    """
    state = state_of(seed)
    mirror = state.mirror(state.snapshot())
    state.push_dense(torch.cat([t.reshape(-1) for t in tensors(other).values()]))
    counts, theta, before = state.layout.counts(1.0), state.theta, mirror.weights.clone()

    state.pull(mirror, counts, Codec.FLOAT32, state.room())
    error = (mirror.weights.double() - theta.double()).abs()
    larger = torch.maximum(theta.abs(), before.abs())
    assert bool((error <= torch.maximum(ulp(larger), torch.tensor(2.0**-126))).all())
    near = (before * theta > 0) & (before.abs() * 2 >= theta.abs()) & (theta.abs() * 2 >= before.abs())
    near &= (theta.double() - before.double()).abs() >= 2.0**-126
    assert bool((error[near] == 0).all()), "not exact where θ/2 <= b <= 2θ"

    state.pull(mirror, counts, Codec.FLOAT32, state.room())
    left = (mirror.weights.double() - theta.double()).abs()
    assert bool((left < 2.0**-126).all()), "the second pull is not exact"
    assert bool((left[theta.abs() >= 2.0**-102] == 0).all())


@given(seed=st.integers(0, 9999), codec=st.sampled_from([Codec.FLOAT32, Codec.FLOAT16, Codec.BFLOAT16]))
def test_pulls_alone_bring_a_worker_to_the_server_whatever_the_codec(seed: int, codec: Codec) -> None:
    """What a pull holds back stays in θ - b: nothing is lost, and at rest the difference only shrinks."""
    state = state_of(seed)
    mirror = state.mirror(state.snapshot())
    generator = torch.Generator().manual_seed(seed)
    state.push_dense(torch.randn(state.layout.numel, generator=generator))
    start = distance = (state.theta - mirror.weights).abs()
    for _ in range(25):
        state.pull(mirror, state.layout.counts(0.2), codec, state.room())
        nearer = (state.theta - mirror.weights).abs()
        assert bool((nearer <= distance).all())
        distance = nearer
    assert bool((distance <= start.max() * 2.0**-20).all())


@given(script=exchanges, codec=st.sampled_from(CODECS), mode=st.sampled_from(["dgs", "gd", "dgc"]))
def test_a_log_of_pushes_and_pulls_replays_bit_for_bit(script: list[Any], codec: str, mode: str) -> None:
    """Invariant 5: every reply is a function of θ at its version and of one mirror."""
    with Fleet(Vectors(tensors(0)), mode=mode, codec=codec, density=0.1) as fleet:
        models = [Vectors(tensors(1)) for _ in range(2)]
        for model in models:
            fleet.join(model, lr=0.5)
        for who, seed, _ in script:
            set_grads(models[who % 2], tensors(seed))
            fleet.workers[who % 2].step()
        log, theta, mirrors = fleet.state.log, fleet.state.theta, fleet.state.mirrors

    again = state_of(0)
    for event, *details in list(log):
        if event == "push":
            indices, values = details
            again.push_dense(values) if indices is None else again.push_sparse(indices, values)
        elif event == "mirror":
            version, weights = details
            assert again.version == version
            assert same_bits(again.mirror(again.snapshot()).weights, weights)
        else:
            number, counts, used, indices, values = details
            _, selection = again.pull(again.mirrors[number], counts, used, again.room())
            found = selection.compact()
            assert torch.equal(found[0], indices) and same_bits(found[1], values)
    assert same_bits(again.theta, theta)
    for mine, theirs in zip(again.mirrors, mirrors, strict=True):
        assert same_bits(mine.weights, theirs.weights)
