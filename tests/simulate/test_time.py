# SPDX-License-Identifier: Apache-2.0
"""When things happen: against times that can be worked out by hand."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from small_problem import run

from dgs.simulate import Always, Network, Presence, Result, ServerCost, Straggler

C = Always(0.1)


def test_without_a_network_workers_only_compute() -> None:
    result = run(compute=C)
    assert result.seconds == pytest.approx(0.8)
    assert result.rate == pytest.approx(30)
    assert [use.utilisation for use in result.workers] == pytest.approx([1, 1, 1])


def test_equal_workers_are_stale_by_the_others() -> None:
    result = run(compute=C, workers=4, max_version=40)
    assert result.staleness == {0: 1, 1: 1, 2: 1, 3: 37}
    assert result.mean_staleness == pytest.approx(2.85)


def exchange(result: Result) -> tuple[float, float]:
    """Return bits of a push and of a reply."""
    return 8 * result.per_exchange("up"), 8 * result.per_exchange("down")


def test_a_step_takes_compute_push_server_and_reply() -> None:
    network = Network(up=1e6, down=2e6, latency=0.01)
    result = run(workers=1, compute=C, network=network, server=ServerCost(0.02), mode="asgd", momentum=0.0,
                 buffers="none", max_version=10)  # fmt: skip
    up, down = exchange(result)
    snapshot = 8 * (result.points[-1].bytes_down - result.workers[0].traffic.bytes_down)
    step = 0.1 + up / 1e6 + 0.01 + 0.02 + 0.01 + down / 2e6
    times = [s.time for s in result.steps]
    assert [b - a for a, b in pairwise(times)] == pytest.approx([step] * 9)
    assert times[0] == pytest.approx(0.1 + 7 * 0.01 + snapshot / 2e6)
    assert result.seconds == pytest.approx(times[-1] + up / 1e6 + 0.01 + 0.02)


def test_the_servers_link_bounds_the_rate_of_a_dense_method() -> None:
    result = run(
        workers=6, compute=C, network=Network(server_out=1e6), mode="asgd", momentum=0.0, max_version=120
    )
    _, down = exchange(result)
    assert result.rate == pytest.approx(1e6 / down, rel=0.08)
    assert result.server_out > 0.95
    assert max(use.utilisation for use in result.workers) < 0.7


def test_the_server_bounds_the_rate() -> None:
    result = run(workers=6, compute=C, server=ServerCost(0.05), buffers="none", max_version=120)
    assert result.rate == pytest.approx(20, rel=0.05)
    assert result.server == pytest.approx(1, abs=0.05)
    assert (
        run(workers=1, compute=C, server=ServerCost(0.0, per_byte=1e-5)).seconds
        > run(workers=1, compute=C).seconds
    )


def test_a_straggler_delays_nobody_else() -> None:
    result = run(compute=Straggler(C, factor=6, worker=1), max_version=40)
    assert [use.steps for use in result.workers[::2]] == [19, 19]
    assert result.workers[1].steps in (3, 4)
    assert max(result.staleness) == 12


def test_overlap_hides_the_exchange_and_costs_a_version() -> None:
    network = Network(latency=0.04)
    plain, overlapped = (run(workers=1, compute=C, network=network, overlap=o) for o in (False, True))
    assert plain.rate == pytest.approx(1 / 0.18, rel=0.1)
    assert overlapped.rate == pytest.approx(1 / 0.1, rel=0.2)
    assert overlapped.workers[0].utilisation > 0.85 > 0.6 > plain.workers[0].utilisation
    assert plain.staleness == {0: 24}
    assert overlapped.staleness == {0: 1, 1: 23}
    assert overlapped.version == 24


def test_the_last_push_counts_beside_the_one_before_it() -> None:
    """With overlap both replies are taken in as a worker leaves."""
    leaves = {i: Presence(leaves=1.05) for i in range(3)}
    result = run(compute=C, overlap=True, flush=True, max_version=100, presence=leaves)
    assert result.version == sum(result.staleness.values()) == 3 * (11 + 1)


def test_overlap_waits_for_a_reply_that_takes_longer_than_a_gradient() -> None:
    result = run(workers=1, compute=C, network=Network(latency=0.1), overlap=True)
    times = [s.time for s in result.steps]
    assert times[6] - times[4] == pytest.approx(0.4)
    assert result.staleness == {0: 1, 1: 23}


def test_bytes_are_those_that_the_workers_count() -> None:
    result = run(compute=C, network=Network.of(1e8), every=10, buffers_every=5)
    last = result.points[-1]
    traffic = [use.traffic for use in result.workers]
    assert 0 < last.bytes_up - sum(t.bytes_up for t in traffic) < sum(t.other_bytes for t in traffic)
    assert 0 < last.bytes_down - sum(t.bytes_down for t in traffic) < sum(t.other_bytes for t in traffic)
    assert [p.version for p in result.points] == [10, 20, 24]
    assert [p.bytes_up for p in result.points] == sorted(p.bytes_up for p in result.points)


def test_workers_come_late_leave_and_die() -> None:
    presence = {
        0: Presence(joins=1.05),
        1: Presence(leaves=0.95),
        2: Presence(dies=0.55),
        4: Presence(joins=2.0, dies=1.0),
    }
    result = run(workers=5, compute=C, max_version=60, presence=presence)
    assert result.version == 60
    ended = {record.rank: record.outcome for record in result.ended}
    assert ended == {1: "finished", 2: "finished", 3: "died", 4: "finished"}
    assert [use.steps for use in result.workers[1:3]] == [10, 5]
    assert [use.present for use in result.workers[1:3]] == pytest.approx([1.0, 0.55])
    assert [use.utilisation for use in result.workers[:3]] == pytest.approx([1.0, 1.0, 1.0])
    assert min(s.time for s in result.steps if s.worker == 0) == pytest.approx(1.15)
    assert result.workers[4].steps == 0


def test_who_would_die_after_the_end_changes_nothing() -> None:
    changes: dict[str, Any] = {"compute": C, "server": ServerCost(0.02), "network": Network.of(1e8)}
    plain, late = run(**changes), run(**changes, presence={1: Presence(dies=50.0)})
    assert (late.server, late.server_in, late.server_out) == (plain.server, plain.server_in, plain.server_out)
    assert 0.5 < plain.server < 1
    assert {record.outcome for record in late.ended} == {"finished"}
    assert late.digest == plain.digest


def test_frames_of_a_dead_worker_never_arrive() -> None:
    changes: dict[str, Any] = {"workers": 2, "compute": C, "network": Network(latency=0.2), "max_version": 10}
    result = run(**changes, presence={1: Presence(dies=1.4)})  # joined at 1.4: 6 latencies and the snapshot's
    assert result.workers[1].pushes == 0
    late = run(**changes, presence={1: Presence(dies=1.6)})  # its first push is on the way
    assert late.workers[1].pushes == 1
    assert {record.rank: record.exchanges for record in late.ended} == {1: 10, 2: 0}


def test_a_run_ends_when_nobody_is_left() -> None:
    result = run(compute=C, max_version=1000, presence={i: Presence(dies=0.35) for i in range(3)})
    assert result.version == 9
    assert result.seconds == pytest.approx(0.3)
    assert {record.outcome for record in result.ended} == {"died"}
