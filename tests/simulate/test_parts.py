# SPDX-License-Identifier: Apache-2.0
"""Clock, compute times, links and units by themselves."""

from __future__ import annotations

import math
import random
from datetime import timedelta
from statistics import fmean

import pytest
import torch

from dgs.errors import ConfigError, FrameTooLargeError, LinkClosedError, LinkTimeoutError
from dgs.simulate import Always, Exponential, LogNormal, Network, ServerCost, Straggler
from dgs.simulate.clock import Clock
from dgs.simulate.links import WorkerEnd
from dgs.simulate.network import Line
from dgs.units import rate, seconds

NOW = timedelta(0)


def test_events_happen_by_time_then_worker_then_plan() -> None:
    clock, seen = Clock(), []
    for time, worker, name in [(2.0, 0, "e"), (1.0, 2, "c"), (1.0, 1, "a"), (1.0, 1, "b"), (1.0, 3, "d")]:
        clock.at(time, worker, lambda name=name: seen.append((clock.now, name)))  # type: ignore[misc]
    clock.run()
    assert seen == [(1.0, "a"), (1.0, "b"), (1.0, "c"), (1.0, "d"), (2.0, "e")]


def test_what_is_planned_for_the_past_happens_now() -> None:
    clock, seen = Clock(), []
    clock.at(3.0, 0, lambda: clock.at(1.0, 0, lambda: seen.append(clock.now)))
    clock.run()
    assert seen == [3.0]


@pytest.mark.parametrize(
    ("compute", "deviation"),
    [(Always(0.2), 0.0), (LogNormal(0.2, 0.5), 0.2 * math.sqrt(math.exp(0.25) - 1)), (Exponential(0.2), 0.2)],
)
def test_compute_times_have_their_mean_and_deviation(compute: Always, deviation: float) -> None:
    draw = random.Random(1)
    times = [compute(0, draw) for _ in range(20_000)]
    mean = fmean(times)
    assert mean == pytest.approx(0.2, rel=0.02)
    assert math.sqrt(fmean((t - mean) ** 2 for t in times)) == pytest.approx(deviation, rel=0.05, abs=1e-9)


def test_a_straggler_takes_longer_and_the_others_do_not() -> None:
    compute = Straggler(Always(0.1), factor=5, worker=2)
    assert [compute(index, random.Random()) for index in range(4)] == [0.1, 0.1, 0.5, 0.1]


@pytest.mark.parametrize("make", [lambda: Always(0), lambda: LogNormal(1, -1), lambda: Exponential(math.inf)])
def test_compute_times_must_be_positive(make: object) -> None:
    with pytest.raises(ConfigError, match="must be positive and finite, got"):
        make()  # type: ignore[operator]


def test_a_line_carries_in_the_order_of_coming() -> None:
    line = Line(rate=8000)  # 1000 bytes a second
    assert line.carry(1.0, 500, own=math.inf) == 1.5
    assert line.carry(1.0, 500, own=math.inf) == 2.0
    assert line.carry(9.0, 500, own=math.inf) == 9.5
    assert line.busy == 1.5


def test_a_slow_sender_leaves_the_lines_rate_to_others() -> None:
    line = Line(rate=8000)
    assert line.carry(0.0, 500, own=800) == 5.0
    assert line.carry(0.0, 500, own=math.inf) == 1.0


def test_networks_are_checked() -> None:
    with pytest.raises(ConfigError, match="up must be positive bits per second, got 0"):
        Network(up=[1e9, 0])
    with pytest.raises(ConfigError, match="latency must be at least 0 seconds, got -1"):
        Network(latency=-1)
    with pytest.raises(ConfigError, match="down holds 2 rates for 3 workers"):
        Network(down=[1e9, 1e9]).check(3)
    with pytest.raises(ConfigError, match="per_byte must be at least 0, got -1"):
        ServerCost(per_byte=-1)


def test_units() -> None:
    assert [rate(t) for t in ("1gbit", "100 mbit", "2.5e9", "inf")] == [1e9, 1e8, 2.5e9, math.inf]
    assert [seconds(t) for t in ("0.2ms", "50us", "3", "1e-3s")] == pytest.approx([0.0002, 5e-05, 3.0, 0.001])
    for bad in ("1gb", "fast", "1.2.3", "-1"):
        with pytest.raises(ConfigError, match="a rate must be like 1gbit"):
            rate(bad)


def frame(payload: int) -> torch.Tensor:
    return torch.zeros(64 + payload, dtype=torch.uint8)


def test_a_link_delivers_directly_or_keeps_for_later() -> None:
    end = WorkerEnd(lambda message: [dict(message)], lambda sent: [sent + 1])
    end.open("session", 100, NOW)
    end.send(frame(4), NOW)
    assert end.receive(NOW).tolist() == [1] * 68
    assert (end.bytes_up, end.bytes_down) == (68, 68)
    end.direct = False
    given = frame(4)
    end.send(given, NOW)
    given.fill_(7)  # a sender may reuse its frame
    assert [f.sum().item() for f in end.take()] == [0]
    assert end.take() == []
    with pytest.raises(LinkTimeoutError, match="nothing has arrived at this virtual time"):
        end.receive(NOW)


def test_a_link_that_the_server_ended_is_closed() -> None:
    end = WorkerEnd(lambda message: [], lambda sent: None)
    end.open("session", 100, NOW)
    end.send(frame(4), NOW)
    with pytest.raises(LinkClosedError):
        end.receive(NOW)
    with pytest.raises(LinkClosedError):
        end.send(frame(4), NOW)


def test_a_link_has_a_cap() -> None:
    end = WorkerEnd(lambda message: [], lambda sent: [])
    end.open("session", 100, NOW)
    with pytest.raises(FrameTooLargeError, match="101 payload bytes"):
        end.send(frame(101), NOW)
