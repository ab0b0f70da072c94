# SPDX-License-Identifier: Apache-2.0
"""Throughput: what can be reckoned by hand, what must not happen, and the same as the simulator's real frames."""

from __future__ import annotations

import math
import random

import pytest
import torch

from dgs.errors import ConfigError
from dgs.plan.rates import BUCKET, Exchange, Link, all_reduce, asynchronous
from dgs.simulate import Always, Exponential, LogNormal, Network, ServerCost, Straggler, simulate
from dgs.simulate.problem import Patterns
from dgs.transport.gloo import FIRST

SMALL = Exchange(up=1e5, down=2e5, worker=0.01, server=0.005)
FAST = Link(math.inf)


def test_one_worker_adds_everything_up() -> None:
    link = Link(8e6, latency=0.003)
    expected = 0.2 + 0.01 + 0.1 + 0.005 + 0.2 + 2 * 0.003
    assert asynchronous(1, Always(0.2), SMALL, link).rate == pytest.approx(1 / expected)


def test_a_frame_of_two_messages_waits_for_word_from_its_receiver() -> None:
    link = Link(math.inf, latency=0.003)
    large = Exchange(up=FIRST + 1, down=FIRST, worker=0.0, server=0.0)
    assert asynchronous(1, Always(0.2), large, link).rate == pytest.approx(1 / (0.2 + 4 * 0.003))


def test_a_few_workers_do_not_meet() -> None:
    alone = asynchronous(1, Always(1.0), SMALL, Link(1e9)).rate
    assert asynchronous(4, Always(1.0), SMALL, Link(1e9)).rate == pytest.approx(4 * alone)


@pytest.mark.parametrize(
    ("exchange", "link", "cores", "most", "busy"),
    [
        (Exchange(1e6, 1e5, 0.0, 0.0), Link(8e6), 1, 1.0, "link_in"),
        (Exchange(1e5, 1e6, 0.0, 0.0), Link(8e6), 1, 1.0, "link_out"),
        (Exchange(1e6, 1e5, 0.0, 0.0), Link(8e6, server=32e6), 1, 4.0, "link_in"),
        (Exchange(10, 10, 0.0, 0.5), FAST, 1, 2.0, "server"),
        (Exchange(10, 10, 0.0, 0.5), FAST, 3, 6.0, "server"),
    ],
)
def test_what_is_shared_is_the_limit(
    exchange: Exchange, link: Link, cores: int, most: float, busy: str
) -> None:
    seen = asynchronous(32, LogNormal(1.0, 0.2), exchange, link, cores=cores)
    assert seen.rate == pytest.approx(most, rel=0.01)
    assert getattr(seen, busy) > 0.95


def test_overlap_hides_the_shorter_of_two() -> None:
    exchange = Exchange(1e6, 1e6, 0.1, 0.0)
    for compute, expected in ((3.0, 3.1), (1.0, 2.0)):
        seen = asynchronous(1, Always(compute), exchange, Link(8e6), overlap=True)
        assert seen.rate == pytest.approx(1 / expected)


def test_the_others_do_not_wait_for_a_straggler_and_all_reduce_does() -> None:
    slow = Straggler(Always(1.0), 10.0)
    none = Exchange(0, 0, 0.0, 0.0)
    assert asynchronous(4, slow, none, FAST).rate == pytest.approx(3.1, rel=0.02)
    assert all_reduce(4, slow, 0, 0.0, FAST).total == pytest.approx(10.0)


def test_more_bandwidth_is_never_slower() -> None:
    rates = [asynchronous(8, Always(0.1), SMALL, Link(10**e)).rate for e in (5, 6, 6.5, 7, 7.5, 8, 9, 12)]
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


@pytest.mark.parametrize(("workers", "rate"), [(6, 1e6), (6, 3e6)])
def test_the_rate_is_the_simulator_s(workers: int, rate: float) -> None:
    """dgs.simulate trains, with production's code and frames; its messages each take one latency."""
    problem = Patterns(0, 4, workers)
    result = simulate(
        problem.model, problem.loss, problem.batches, workers=workers, max_version=20 * workers, mode="dgs",
        density=0.002, compute=LogNormal(0.05), network=Network.of(rate, 0.001), server=ServerCost(0.002), lr=1e-3,
        every=5 * workers, threads=torch.get_num_threads(),
    )  # fmt: skip
    first, last = result.points[1], result.points[-1]
    exchange = Exchange(result.per_exchange("up"), result.per_exchange("down"), 0.0, 0.002)
    seen = asynchronous(workers, LogNormal(0.05), exchange, Link(rate, 0.001))
    assert seen.rate == pytest.approx((last.version - first.version) / (last.time - first.time), rel=0.08)


@pytest.mark.parametrize("wrong", [{"bandwidth": 0.0}, {"latency": -1.0}, {"server": 0.0}])
def test_a_link_must_be_possible(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="must be"):
        Link(**{"bandwidth": 1e9} | wrong)
