# SPDX-License-Identifier: Apache-2.0
"""Throughput: what can be reckoned by hand, what must not happen, and the same by a clock."""

from __future__ import annotations

import heapq
import math
import random

import pytest

from dgs.errors import ConfigError
from dgs.plan.rates import BUCKET, Exchange, Link, all_reduce, asynchronous
from dgs.simulate import Always, Exponential, Straggler
from dgs.transport.gloo import FIRST

SMALL = Exchange(up=1e5, down=2e5, worker=0.01, server=0.005)
FAST = Link(math.inf)


def test_one_worker_adds_everything_up() -> None:
    link = Link(8e6, latency=0.003)
    expected = 0.2 + 0.01 + 0.1 + 0.005 + 0.2 + 2 * 0.003
    assert asynchronous([0.2], SMALL, link).rate == pytest.approx(1 / expected)


def test_a_frame_of_two_messages_waits_for_word_from_its_receiver() -> None:
    link = Link(math.inf, latency=0.003)
    large = Exchange(up=FIRST + 1, down=FIRST, worker=0.0, server=0.0)
    assert asynchronous([0.2], large, link).rate == pytest.approx(1 / (0.2 + 4 * 0.003))


def test_a_few_workers_hardly_meet() -> None:
    alone = asynchronous([1.0], SMALL, Link(1e9)).rate
    assert 3.99 * alone < asynchronous(4 * [1.0], SMALL, Link(1e9)).rate < 4 * alone


def test_two_workers_that_only_exchange_are_at_the_same_end_of_the_link_a_third_of_the_time() -> None:
    both_ways = Exchange(1e6, 1e6, 0.0, 0.0)
    seen = asynchronous(2 * [1e-9], both_ways, Link(8e6))
    assert seen.rate == pytest.approx(2 / 3)
    assert seen.link_in == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("exchange", "link", "cores", "most", "busy"),
    [
        (Exchange(1e6, 1e5, 0.0, 0.0), Link(8e6), 1, 1.0, "link_in"),
        (Exchange(1e5, 1e6, 0.0, 0.0), Link(8e6), 1, 1.0, "link_out"),
        (Exchange(1e6, 1e5, 0.0, 0.0), Link(8e6, server=32e6), 1, 4.0, "link_in"),
        (Exchange(1e6, 1e5, 0.0, 0.0), Link(8e6, server=4e6), 1, 0.5, "link_in"),
        (Exchange(10, 10, 0.0, 0.5), FAST, 1, 2.0, "server"),
        (Exchange(10, 10, 0.0, 0.5), FAST, 3, 6.0, "server"),
    ],
)
def test_what_is_shared_is_the_limit(
    exchange: Exchange, link: Link, cores: int, most: float, busy: str
) -> None:
    seen = asynchronous(64 * [1.0], exchange, link, cores=cores)
    assert seen.rate == pytest.approx(most, rel=0.01)
    assert getattr(seen, busy) == pytest.approx(1.0, rel=0.01)
    assert max(seen.link_in, seen.link_out, seen.server) == getattr(seen, busy)


def by_clock(workers: int, compute: float, seconds: tuple[float, float], lanes: int, rounds: int) -> float:
    """Rounds a second of workers that draw a time of their own for a gradient, and share two stations equally."""
    draw = random.Random(0)
    now, done = 0.0, 0
    away = [(draw.uniform(0, 2 * compute), i) for i in range(workers)]
    heapq.heapify(away)
    left: list[dict[int, float]] = [{}, {}]
    while done < rounds:
        speeds = [min(1.0, lanes / len(here)) if here else 0.0 for here in left]
        ends = [
            min(here.values()) / speed if here else math.inf for here, speed in zip(left, speeds, strict=True)
        ]
        step = min([*ends, away[0][0] - now if away else math.inf])
        now += step
        for here, speed in zip(left, speeds, strict=True):
            for i in here:
                here[i] -= step * speed
        for number, here in enumerate(left):
            for i in [i for i, rest in here.items() if rest < 1e-12]:
                del here[i]
                if number == 0:
                    left[1][i] = seconds[1]
                else:
                    heapq.heappush(away, (now + draw.uniform(0, 2 * compute), i))
                    done += 1
        while away and away[0][0] <= now:
            left[0][heapq.heappop(away)[1]] = seconds[0]
    return done / now


@pytest.mark.parametrize(("workers", "lanes"), [(2, 1), (4, 1), (6, 3)])
def test_the_rate_is_that_of_a_clock_under_which_connections_share_a_link(workers: int, lanes: int) -> None:
    exchange = Exchange(5e5, 8e5, 0.0, 0.0)
    seen = asynchronous(workers * [1.0], exchange, Link(8e6, server=8e6 * lanes))
    assert by_clock(workers, 1.0, (0.5, 0.8), lanes, 4000) == pytest.approx(seen.rate, rel=0.03)


def test_overlap_hides_the_shorter_of_two() -> None:
    exchange = Exchange(1e6, 1e6, 0.1, 0.0)
    for compute, expected in ((3.0, 3.1), (1.0, 2.0)):
        seen = asynchronous([compute], exchange, Link(8e6), overlap=True)
        assert seen.rate == pytest.approx(1 / expected)


def test_the_others_do_not_wait_for_a_straggler_and_all_reduce_does() -> None:
    none = Exchange(0, 0, 0.0, 0.0)
    assert asynchronous([10.0, 1.0, 1.0, 1.0], none, FAST).rate == pytest.approx(3.1)
    assert all_reduce(4, Straggler(Always(1.0), 10.0), 0, 0.0, FAST).total == pytest.approx(10.0)


def test_many_workers_overflow_nothing() -> None:
    assert asynchronous(500 * [1e-3], Exchange(1e9, 1.0, 0.0, 1e-9), Link(8e9)).rate == pytest.approx(1.0)


def test_more_bandwidth_is_never_slower() -> None:
    rates = [asynchronous(8 * [0.1], SMALL, Link(10**e)).rate for e in (5, 6, 6.5, 7, 7.5, 8, 9, 12)]
    totals = [all_reduce(8, Always(0.1), 1e6, 0.0, Link(10**e)).total for e in (5, 6, 7, 8, 9, 12)]
    assert rates == sorted(rates)
    assert totals == sorted(totals, reverse=True)
    assert rates[0] < rates[-1] and totals[0] > totals[-1]


def test_all_reduce_by_hand() -> None:
    one = all_reduce(1, Always(0.3), 1e9, 0.01, Link(1e6))
    assert (one.reduction, one.total) == (0.0, pytest.approx(0.31))
    # One bucket: nothing is hidden. 2 · 3/4 of the bytes, and six messages one after another.
    four = all_reduce(4, Always(0.3), 1e6, 0.01, Link(8e6, latency=0.002))
    assert four.total == pytest.approx(0.3 + 1.5 + 6 * 0.002 + 0.01)
    # Ten buckets on a fast link: only the last one is not hidden by the backward pass.
    ten = all_reduce(4, Always(3.0), 10 * BUCKET, 0.0, Link(8 * 15 * BUCKET))
    assert ten.reduction == pytest.approx(1.0)
    assert ten.total == pytest.approx(3.0 + 0.1)


def test_all_reduce_waits_for_the_slowest() -> None:
    draws = [random.Random(i) for i in range(4)]
    expected = sum(max(d.expovariate(1.0) for d in draws) for _ in range(20_000)) / 20_000
    assert all_reduce(4, Exponential(1.0), 0, 0.0, FAST).slowest == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("wrong", [{"bandwidth": 0.0}, {"latency": -1.0}, {"server": 0.0}])
def test_a_link_must_be_possible(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="must be"):
        Link(**{"bandwidth": 1e9} | wrong)
