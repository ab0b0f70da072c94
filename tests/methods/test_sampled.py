# SPDX-License-Identifier: Apache-2.0
"""selection="sampled": the counts float, within a bound, and everything else holds."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from fleet import Fleet, Vectors, same_bits, set_grads, weights_of
from torch import Tensor

from dgs import Layout, config
from dgs.methods import METHODS, Hyper
from dgs.room import Room, slots
from dgs_ext.ops import Selection

SHAPES = {"wide": (300, 200), "bias": (40,), "small": (40, 50)}
NUMELS = torch.tensor([math.prod(s) for s in SHAPES.values()])


def tensors(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


def test_room_for_four_standard_deviations_of_the_count() -> None:
    """60,000 entries, every 14th of them in the sample: of 600 wished for about 42.9 are in it."""
    room = slots(NUMELS, torch.tensor([600, 40, 20])).tolist()
    assert room == [
        math.ceil(600 * (1 + 4 / math.sqrt(600 / 14))),
        40,
        math.ceil(20 * (1 + 4 / math.sqrt(20))),
    ]
    assert slots(NUMELS, torch.tensor([0, 0, 0])).tolist() == [0, 0, 0]
    assert slots(NUMELS, NUMELS).tolist() == NUMELS.tolist()
    assert slots(torch.tensor([0, 1]), torch.tensor([0, 1])).tolist() == [0, 1]


@pytest.mark.parametrize("sampled", [False, True])
def test_room_is_kept_and_cut_to_what_is_asked_for(sampled: bool) -> None:
    """A few entries after many cost what a few do: quantising, and a device's copy, go over all slots."""
    room = Room(NUMELS, torch.device("cpu"), sampled=sampled)
    many, few = torch.tensor([600, 40, 20]), torch.tensor([60, 40, 2])
    first = room.of(many)
    for counts in (few, many, few):
        cut = room.of(counts)
        assert room.of(counts.clone()) is cut, "the same counts, the same selection"
        wanted = slots(NUMELS, counts) if sampled else counts
        assert cut.starts.diff().tolist() == wanted.tolist()
        assert cut.indices.numel() == cut.values.numel() == int(cut.starts[-1])
        assert cut.indices.data_ptr() == first.indices.data_ptr()
        assert cut.values.data_ptr() == first.values.data_ptr()
        assert cut.nnz is first.nnz and cut.host is first.host


def test_room_that_was_too_small_is_made_twice_as_large() -> None:
    room = Room(NUMELS, torch.device("cpu"), sampled=False)
    small = room.of(torch.tensor([600, 40, 20]))
    grown = room.of(torch.tensor([700, 40, 20]))
    assert grown.starts.tolist() == [0, 700, 740, 760]
    assert grown.indices.data_ptr() != small.indices.data_ptr()
    assert room.of(torch.tensor([1400, 20, 40])).indices.data_ptr() == grown.indices.data_ptr()
    assert room.of(NUMELS).indices.numel() == int(NUMELS.sum())


@pytest.mark.parametrize("codec", ["float32", "bfloat16"])
@pytest.mark.parametrize("mode", ["dgs", "gd", "dgc"])
def test_pushes_and_pulls_float_and_mirrors_stay_true(mode: str, codec: str) -> None:
    hyper: dict[str, Any] = {"lr": 0.1, "weight_decay": 0.01}
    hyper |= {} if mode == "gd" else {"momentum": 0.5}
    models = [Vectors(tensors(k)) for k in range(3)]
    settings = {"mode": mode, "codec": codec, "selection": "sampled", "density": 0.01, "density_down": 0.03}
    with Fleet(Vectors(tensors(9)), **settings) as fleet:
        workers = [fleet.join(model, **hyper) for model in models]
        pushed, pulled = [], []
        for step in range(24):
            k = step * 7 % 3
            set_grads(models[k], tensors(step))
            workers[k].step()
            numel, fingerprint = fleet.state.layout.numel, fleet.state.layout.fingerprint
            pushed.append(int((fleet.taps[k].last_push(numel, fingerprint)[:60000] != 0).sum()))
            pulled.append(int((fleet.state.log[-1][4] < 60000).sum()))
            assert same_bits(fleet.state.mirrors[k].weights, weights_of(workers[k]))
        bounds = slots(NUMELS, torch.tensor([600, 40, 20]))
        assert all(0.5 * 600 < n <= int(bounds[0]) for n in pushed), pushed
        assert len(set(pushed)) > 12, "the counts float"
        assert len(set(pulled)) > 12 and 0.5 * 1800 < pulled[-1] < 1.4 * 1800, pulled
        assert sum(pushed) == pytest.approx(24 * 600, rel=0.15)


def test_what_is_sent_whole_is_sent_whole() -> None:
    model = Vectors(tensors(1))
    with Fleet(Vectors(tensors(0)), selection="sampled") as fleet:
        worker = fleet.join(model, lr=0.5)
        set_grads(model, tensors(2))
        worker.step()
        q = fleet.taps[0].last_push(fleet.state.layout.numel, fleet.state.layout.fingerprint)
        assert torch.equal(q[60000:60040], 0.5 * tensors(2)["bias"])


def test_the_largest_entries_are_among_those_sent() -> None:
    model = Vectors(tensors(1))
    grads = tensors(2)
    grads["wide"][17, 5], grads["small"][3, 3] = 1e3, -1e3
    with Fleet(Vectors(tensors(0)), selection="sampled", mode="gd") as fleet:
        worker = fleet.join(model, lr=0.5)
        set_grads(model, grads)
        worker.step()
        q = fleet.taps[0].last_push(fleet.state.layout.numel, fleet.state.layout.fingerprint)
        assert q[17 * 200 + 5] == 500 and q[60040 + 3 * 50 + 3] == -500


@pytest.mark.parametrize("mode", ["dgs", "gd", "dgc"])
def test_nothing_is_lost_of_steps_that_send_nothing(mode: str) -> None:
    """Steps that are not exchanged, and parameters without gradient, have no slots; their state keeps all of it."""
    layout = Layout([("a", (40_000,)), ("b", (50, 1000))])
    settings = config.resolve(None, {}, mode=mode, selection="sampled")
    method = METHODS[mode].create(layout, torch.device("cpu"), settings)
    ones = torch.ones(2)
    hyper = Hyper(ones, 0 * ones, 0 * ones, layout.counts(0.01))
    generator = torch.Generator().manual_seed(0)
    asked, sent = torch.zeros(2, layout.numel, dtype=torch.float64).unbind()
    for step in range(12):
        grads = [torch.randint(-1000, 1000, (s.numel,), generator=generator).float() for s in layout.segments]
        if step % 3 == 1:
            grads[step % 2] = torch.empty(0)
        flat = [g if g.numel() else torch.zeros(s.numel) for g, s in zip(grads, layout.segments, strict=True)]
        asked += torch.cat(flat).double()
        if step % 3 == 2:
            method.accumulate(grads, flat, hyper)
            continue
        update = method.step(grads, flat, hyper)
        assert isinstance(update, Selection) and update.total() > 0
        indices, values = update.compact()
        sent[indices] += values.double()
        method.commit()
    held = method.buffers()["velocity" if mode == "dgs" else "residual"].double()
    assert torch.equal(sent + held, asked), "whole numbers: nothing is rounded"
