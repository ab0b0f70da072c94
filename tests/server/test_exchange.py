# SPDX-License-Identifier: Apache-2.0
"""What the server does with pushes and pulls, against plain torch."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
import torch

from dgs.buffers import pack

if TYPE_CHECKING:
    from conftest import Run


def test_a_join_brings_the_servers_weights_and_buffers(serve: Callable[..., Run]) -> None:
    run = serve()
    run.buffers.update(5, pack({"mean": torch.arange(7.0), "count": torch.tensor(9)}, run.layout.buffers))
    worker = run.puppet(2).worker
    model = worker.join(timedelta(seconds=30))
    assert torch.equal(model.theta, run.theta)
    assert torch.equal(model.buffers["mean"], torch.arange(7.0)) and model.buffers["count"] == 9
    assert (model.version, worker.active, worker.done) == (0, 1, False)
    assert worker.welcome is not None
    assert (worker.welcome.rank, worker.welcome.index, worker.welcome.workers) == (2, 1, 2)
    worker.close()


def test_a_push_is_subtracted_and_the_largest_differences_come_back(
    serve: Callable[..., Run], random: torch.Generator
) -> None:
    run = serve(density_down=0.01)
    first, second = run.puppet(1).join(), run.puppet(2).join()
    theta, mirror = run.theta.clone(), run.theta.clone()
    for _ in range(5):
        indices = torch.randperm(run.layout.numel, generator=random)[:100].sort().values
        values = torch.randn(100, generator=random)
        first.push(indices, values)
        theta[indices] -= values
        assert torch.equal(run.now(), theta)
    second.push(torch.tensor([3]), torch.tensor([0.5]))
    theta[3] -= 0.5
    for segment, k in zip(run.layout.segments, (7, 20, 15), strict=True):
        part = slice(segment.offset, segment.offset + segment.numel)
        difference = theta[part] - mirror[part]
        keep = difference.abs().argsort(descending=True, stable=True)[:k]
        mirror[part][keep] += difference[keep]
    assert torch.equal(second.w, mirror)
    report = run.end()
    assert report.version == 6
    assert {w.rank: w.exchanges for w in report.workers} == {1: 5, 2: 1}


@pytest.mark.parametrize("codec", ["float32", "float16", "bfloat16"])
def test_weights_and_mirror_stay_bitwise_equal(
    serve: Callable[..., Run], random: torch.Generator, codec: str
) -> None:
    """The digest that each push carries is the server's own check; here every reply must pass it."""
    run = serve(codec="float32", codec_down=codec)
    puppets = [run.puppet(rank).join() for rank in (1, 2)]
    for i in range(30):
        puppets[(i * i) % 2].push_some(random)
    assert run.state.version == 30
    assert {w.applied for w in run.server._roster.workers()} == {p.worker.sequence for p in puppets}


def test_what_is_held_back_comes_in_the_next_pulls(
    serve: Callable[..., Run], random: torch.Generator
) -> None:
    run = serve(density_down=0.05)
    worker, other = run.puppet(1).join(), run.puppet(2).join()
    other.push_some(random, 1500)
    nothing = torch.empty(0, dtype=torch.int64)
    gaps = []
    for _ in range(25):
        worker.push(nothing, torch.empty(0))
        gaps.append(float((worker.w - run.now()).abs().max()))
    assert gaps[0] > 0.5 and gaps == sorted(gaps, reverse=True) and gaps[-1] < 1e-6


def test_dense_methods_exchange_whole_models(serve: Callable[..., Run], random: torch.Generator) -> None:
    run = serve(mode="asgd")
    puppet = run.puppet(1, dense=True).join()
    update = torch.randn(run.layout.numel, generator=random)
    reply = puppet.push_dense(update)
    assert reply.applied and torch.equal(puppet.w, run.theta - update) and torch.equal(run.now(), puppet.w)


def test_staleness_is_the_versions_between_pull_and_push(
    serve: Callable[..., Run], random: torch.Generator
) -> None:
    run = serve()
    a, b = run.puppet(1).join(), run.puppet(2).join()
    seen = []
    for puppet in (a, a, b, b, a, b, b, b, a):
        puppet.push_some(random)
        seen.append(puppet.worker.traffic.staleness)
    assert seen == [0, 0, 2, 0, 2, 1, 0, 0, 3]


def test_versions_are_a_total_order_under_contention(serve: Callable[..., Run]) -> None:
    run = serve(world_size=5)
    puppets = [run.puppet(rank).join() for rank in range(1, 5)]
    versions: list[list[int]] = [[] for _ in puppets]

    def push(number: int) -> None:
        random = torch.Generator().manual_seed(number)
        for _ in range(40):
            puppets[number].push_some(random)
            versions[number].append(puppets[number].worker.version)

    threads = [threading.Thread(target=push, args=(n,)) for n in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert run.state.version == 160
    assert all(v == sorted(set(v)) for v in versions), "each worker sees the version grow with each push"


def test_looking_changes_nothing(serve: Callable[..., Run], random: torch.Generator) -> None:
    run = serve(density_down=0.01)
    a, b = run.puppet(1).join(), run.puppet(2).join()
    a.push_some(random, 500)
    seen = b.worker.look()
    assert seen.version == 1 and torch.equal(seen.theta, run.now())
    b.push_some(random)  # whose digest would not fit if the look had moved the mirror
    assert not torch.equal(b.w, run.now())
    fresh = b.worker.restart()
    b.w = fresh.theta.clone()
    assert torch.equal(b.w, run.now())
    b.push_some(random)


def test_the_run_ends_for_everyone_at_max_version(serve: Callable[..., Run], random: torch.Generator) -> None:
    run = serve(max_version=3)
    a, b = run.puppet(1).join(), run.puppet(2).join()
    assert a.worker.welcome is not None and a.worker.welcome.max_version == 3
    assert [a.push_some(random).applied for _ in range(3)] == [True] * 3
    assert a.worker.done and not b.worker.done
    before = run.now()
    reply = b.push_some(random)
    assert not reply.applied and b.worker.done and b.worker.sequence == 0
    assert torch.equal(run.now(), before) and run.state.version == 3
    late = run.puppet(None, world_size=None)
    a.worker.close()
    late.join()
    assert late.worker.done and torch.equal(late.w, before)
    b.worker.close()
    late.worker.close()
    assert run.returned().version == 3


def test_a_joiner_at_half_time_while_the_others_go_on(
    serve: Callable[..., Run], random: torch.Generator
) -> None:
    run = serve(max_version=200)
    a = run.puppet(1).join()
    for _ in range(100):
        a.push_some(random)
    stop = threading.Event()

    def go_on() -> None:
        own = torch.Generator().manual_seed(7)
        while not stop.is_set() and not a.worker.done:
            a.push_some(own)

    thread = threading.Thread(target=go_on)
    thread.start()
    b = run.puppet(2).join()
    assert b.worker.version >= 100, "its place in the schedules is the server's"
    assert b.worker.traffic.other_bytes > 4 * run.layout.numel, "one dense snapshot"
    for _ in range(5):
        b.push_some(random)
    stop.set()
    thread.join()
    per_pull = b.worker.traffic.bytes_down / 5
    assert per_pull < 4 * run.layout.numel / 2, "and nothing else is dense"


def test_traffic_counts_whole_frames(serve: Callable[..., Run], random: torch.Generator) -> None:
    run = serve()
    a = run.puppet(1).join()
    for _ in range(4):
        a.push_some(random)
    a.worker.close()
    b = run.puppet(2).join()
    b.worker.close()
    report = run.returned()
    worker, traffic = report.workers[0], a.worker.traffic
    assert traffic.exchanges == worker.exchanges == 4
    assert worker.bytes_up > traffic.bytes_up > 4 * 64
    assert worker.bytes_down > traffic.bytes_down > 4 * 64


def test_falling_behind_is_a_warning(
    serve: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Pushes of the same size all over, of which a pull shows next to nothing."""
    monkeypatch.setattr("dgs.server.behind._LOOK_EVERY", 4)
    run = serve(density_down=1e-4)
    a = run.puppet(1).join()
    indices = torch.arange(7, 2007)
    for _ in range(60):
        a.push(indices, torch.ones(2000))
    assert "worker 1 falls behind" in caplog.text and "density_down" in caplog.text
    assert run.end().workers[0].behind > 10


def test_keeping_up_is_not(
    serve: Callable[..., Run],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    random: torch.Generator,
) -> None:
    monkeypatch.setattr("dgs.server.behind._LOOK_EVERY", 4)
    run = serve()
    a = run.puppet(1).join()
    for _ in range(60):
        a.push_some(random)
    assert "falls behind" not in caplog.text
    assert run.end().workers[0].behind < 2
