# SPDX-License-Identifier: Apache-2.0
"""What a pull may hold: what changed since the last one, in a codec for which the budget suffices."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from dgs import weights
from dgs.frames import Packer
from dgs.layout import Layout
from dgs.server.budget import DENSEST, ROUNDED_OFF, Budget, Plan, Unseen, codecs_down, predicted_bytes
from dgs_ext.ops import Selection, quantize_selection_
from dgs_ext.wire import Codec, Header, Kind

LAYOUT = Layout([("bias", (100,)), ("weight", (1000, 1000))])
NOTHING = torch.zeros(2, dtype=torch.int64)


def _changed(density: float) -> Tensor:
    return torch.tensor([100, round(1e6 * density)])


def _share(plan: Plan) -> float:
    return float(plan.counts[1]) / 1e6


def test_what_changed_is_sent_whole_while_the_budget_suffices() -> None:
    budget = Budget(LAYOUT)
    for density in (0.0, 0.01, 0.03):
        plan = budget.plan(_changed(density), 0.01, Codec.FLOAT32)
        assert torch.equal(plan.counts, _changed(density))
        assert plan.codec is Codec.FLOAT32


@pytest.mark.parametrize("pushes", [1.0, 4.0, 8.0])
@pytest.mark.parametrize("changed", [0.05, 0.16, 1.0])
@pytest.mark.parametrize("codec", [Codec.FLOAT32, Codec.LEVEL4, None])
def test_it_is_cut_to_the_budget(pushes: float, changed: float, codec: Codec | None) -> None:
    plan = Budget(LAYOUT, codec=codec, pushes=pushes).plan(_changed(changed), 0.01, Codec.FLOAT32)
    push = predicted_bytes(LAYOUT, 0.01, Codec.FLOAT32)
    pull = predicted_bytes(LAYOUT, _share(plan), plan.codec)
    wanted = predicted_bytes(LAYOUT, changed, plan.codec)
    if predicted_bytes(LAYOUT, 1.0, plan.codec) > pushes * push:
        wanted = min(wanted, predicted_bytes(LAYOUT, DENSEST, plan.codec))
    assert pull == pytest.approx(min(wanted, pushes * push), rel=0.01), "it uses what it may, and no more"


def test_the_more_changed_the_fewer_bits() -> None:
    budget, chosen = Budget(LAYOUT), []
    for changed in range(1, 101):
        plan = budget.plan(_changed(changed / 100), 0.01, Codec.FLOAT32)
        if plan.codec not in chosen:
            chosen.append(plan.codec)
    assert chosen == sorted(chosen, key=lambda codec: -codec.width)
    assert chosen[0] is Codec.FLOAT32
    assert set(chosen) > {Codec.FLOAT32, Codec.INT8, Codec.LEVEL4}
    assert budget.plan(_changed(0.16), 0.01, Codec.FLOAT32).codec is Codec.LEVEL4


@pytest.mark.parametrize("density", [0.01, 0.05, 0.1, 0.3])
def test_a_pull_is_of_one_sweep_or_whole(density: float) -> None:
    most = Budget(LAYOUT).most(density, Codec.FLOAT32)
    for choice in Budget(LAYOUT)._choices(density, Codec.FLOAT32):
        share = int(choice.most[1]) / 1e6
        assert share in (1.0, density) or share <= DENSEST
        assert density <= share <= int(most[1]) / 1e6


@pytest.mark.parametrize("up", [c for c in Codec if c is not Codec.BYTES], ids=lambda c: c.name)
def test_of_its_own_accord_the_server_sends_no_wider_codec_and_no_unsteady_one(up: Codec) -> None:
    chosen = codecs_down(up, None)
    assert list(chosen) == sorted(chosen, key=lambda codec: -codec.width)
    assert set(chosen) <= set(ROUNDED_OFF)
    assert chosen[0] is (up if up in ROUNDED_OFF else Codec.LEVEL3)
    assert codecs_down(up, Codec.INT8) == (Codec.INT8,)


def test_no_plan_has_more_than_the_most() -> None:
    for budget in (Budget(LAYOUT), Budget(LAYOUT, 0.2), Budget(LAYOUT, codec=Codec.LEVEL4)):
        most = budget.most(0.01, Codec.FLOAT32)
        plans = [budget.plan(_changed(c / 20), 0.01, Codec.FLOAT32) for c in range(21)]
        assert bool((torch.stack([plan.counts for plan in plans]).amax(0) == most).all())


def test_a_fixed_density_is_kept_in_the_workers_codec() -> None:
    for changed in (0.0, 0.5):
        plan = Budget(LAYOUT, 0.2).plan(_changed(changed), 0.01, Codec.INT8)
        assert (_share(plan), plan.codec) == (pytest.approx(0.2), Codec.INT8)
    assert Budget(LAYOUT, 0.2, Codec.LEVEL4).plan(NOTHING, 0.01, Codec.INT8).codec is Codec.LEVEL4


def test_a_pull_is_never_held_below_the_density_of_pushes() -> None:
    plan = Budget(LAYOUT, codec=Codec.FLOAT32, pushes=1.0).plan(_changed(1.0), 0.01, Codec.SIGN)
    assert _share(plan) == pytest.approx(0.01)


def test_a_prediction_is_about_what_a_frame_takes() -> None:
    torch.manual_seed(0)
    for density, codec in ((0.01, Codec.FLOAT32), (0.05, Codec.BFLOAT16), (0.16, Codec.LEVEL4)):
        keep = torch.rand(1_000_100) < density
        keep[:100] = True
        indices = keep.nonzero().view(-1)
        update = weights.received(LAYOUT, indices, torch.ones(indices.numel()), torch.device("cpu"))
        frame = Packer(LAYOUT).sparse(Header(Kind.PULL, codec), b"", update)
        assert frame.numel() == pytest.approx(predicted_bytes(LAYOUT, density, codec), rel=0.03)


@pytest.mark.parametrize("codec", ROUNDED_OFF, ids=lambda c: c.name)
@pytest.mark.parametrize("spread", [0.0, 0.5])
def test_what_a_codec_rounds_off_is_about_what_is_said(codec: Codec, spread: float) -> None:
    """Of the largest entries of heavy-tailed values."""
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(100_000, generator=generator) * torch.exp(
        spread * torch.randn(100_000, generator=generator)
    )
    indices = values.abs().topk(10_000).indices.sort().values
    layout = torch.tensor([0, 100_000])
    sent = Selection(indices, values[indices], torch.tensor([0, 10_000]), torch.tensor([10_000]))
    quantize_selection_(sent, layout, int(codec))
    lost = float((sent.values - values[indices]).norm() ** 2 / values[indices].norm() ** 2)
    assert lost <= 1.5 * ROUNDED_OFF[codec]
    assert lost >= ROUNDED_OFF[codec] / 50


def test_schedules_of_many_densities_do_not_fill_the_memory() -> None:
    budget, most = Budget(LAYOUT, 0.1), 0
    for i in range(1000):
        budget.plan(NOTHING, 0.01 + i * 1e-4, Codec.FLOAT32)
        most = max(most, len(budget._known))
    assert 100 < most <= 300


def test_a_density_that_changes_a_little_at_every_step_is_planned_once() -> None:
    budget, changed = Budget(LAYOUT), _changed(1.0)
    plans = [budget.plan(changed, 0.005 * (1 - i * 1e-6), Codec.FLOAT32) for i in range(100)]
    assert len(budget._known) == 1
    assert all(torch.equal(plan.counts, plans[0].counts) for plan in plans)
    assert budget.plan(changed, 0.00505, Codec.FLOAT32).counts.sum() > plans[0].counts.sum()


@pytest.mark.parametrize(
    "layout",
    [
        LAYOUT,
        Layout([("none", (0, 3)), ("one", ()), ("small", (4, 5)), ("large", (70, 80))], compress_all=True),
    ],
    ids=["whole", "all"],
)
def test_a_prediction_is_the_sum_over_segments(layout: Layout) -> None:
    for density in (1e-4, 0.0123, 0.5, 1.0):
        total = 0.0
        for segment, k in zip(layout.segments, layout.counts(density).tolist(), strict=True):
            p = k / max(segment.numel, 1)
            entropy = 0.0 if p in (0, 1) else -(math.log2(p) + (1 - p) / p * math.log2(1 - p))
            total += k * (4 + entropy / 8)
        assert predicted_bytes(layout, density, Codec.FLOAT32) == pytest.approx(total, rel=1e-9)


def test_a_plan_stands_when_another_thread_forgets_it() -> None:
    class Forgetful(dict[object, list[object]]):
        def __setitem__(self, key: object, choices: list[object]) -> None:
            """What another session's thread may do just after."""

    budget = Budget(LAYOUT, 0.1)
    budget._known = Forgetful()  # type: ignore[assignment]
    assert _share(budget.plan(NOTHING, 0.01, Codec.FLOAT32)) == pytest.approx(0.1)


def _push(budget: Budget, entries: Sequence[int]) -> None:
    budget.count(torch.tensor(entries))


def test_what_a_worker_has_not_seen_is_counted_by_segment() -> None:
    budget = Budget(LAYOUT)
    _push(budget, [0, 5, 100])
    unseen = Unseen(budget, NOTHING)
    assert unseen.entries().tolist() == [0, 0], "what was pushed before its snapshot it has seen"
    _push(budget, [7, 200, 300])
    _push(budget, [200])
    assert unseen.entries().tolist() == [1, 3]
    unseen.sent(unseen.entries(), torch.tensor([1, 2]), exact=True)
    assert unseen.entries().tolist() == [0, 0], "two entries differed, of the three that were counted"
    budget.count(None)
    budget.count(None)
    assert unseen.entries().tolist() == [100, 1_000_000], "no more than there are"
    assert Unseen(budget).entries().tolist() == [100, 1_000_000]


def test_what_the_budget_held_back_is_not_forgotten() -> None:
    budget = Budget(LAYOUT)
    unseen = Unseen(budget, NOTHING)
    _push(budget, range(100, 200))
    unseen.entries()
    asked = torch.tensor([0, 60])
    unseen.sent(asked, asked, exact=True)
    assert unseen.entries().tolist() == [0, 40]
    unseen.sent(asked, torch.tensor([0, 30]), exact=False)
    assert unseen.entries().tolist() == [0, 10], "a sample may take fewer than there are"
