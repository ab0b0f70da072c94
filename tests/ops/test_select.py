# SPDX-License-Identifier: Apache-2.0
"""select and select_difference, exact and sampled, against their twins."""

from __future__ import annotations

import pytest
import torch

from dgs_ext import ops

DENSITIES = [0.0, 0.01, 0.3, 1.0]


@pytest.mark.parametrize("density", DENSITIES)
def test_select(agree, make_problem, sizes, density, device, style):
    p = make_problem(sizes, density, device, style)
    got = agree("select", x=p.normal(1), **p.layout(), **p.selection())
    assert got["nnz"].tolist() == p.counts.tolist()  # normal numbers are not zero


@pytest.mark.parametrize("density", DENSITIES)
def test_select_difference(agree, make_problem, sizes, density, device, style):
    p = make_problem(sizes, density, device, style)
    agree("select_difference", x=p.normal(1), y=p.normal(2), **p.layout(), **p.selection(spare=3))


@pytest.mark.parametrize("density", DENSITIES)
def test_select_sampled(agree, make_problem, sizes, density, device, style):
    p = make_problem(sizes, density, device, style)
    agree("select", x=p.normal(1), sampled=True, **p.layout(), **p.selection(spare=10))
    agree(
        "select_difference", x=p.normal(1), y=p.normal(2), sampled=True, **p.layout(), **p.selection(spare=3)
    )


@pytest.mark.parametrize(("density", "tolerance"), [(0.01, 0.63), (0.1, 0.2)])
def test_select_sampled_fills_about_k(agree, make_problem, density, tolerance, device):
    """Within the tolerance that dgs_ext.ops states, for ten samples."""
    p = make_problem([1_000_000], density, device)
    k = int(p.counts[0])
    for seed in range(10):
        got = agree("select", x=p.normal(seed), sampled=True, **p.layout(), **p.selection(spare=k))
        assert abs(int(got["nnz"][0]) - k) < tolerance * k


def test_select_sampled_takes_the_first_when_slots_are_fewer_than_k(agree, make_problem, device):
    p = make_problem([100_000, 50], 0.1, device)
    slots = p.selection() | {"starts": torch.tensor([0, 7, 9])}
    got = agree("select", x=p.normal(1), sampled=True, **p.layout(), **slots)
    assert got["nnz"].tolist() == [7, 2]


def heavy_tailed(n):
    return torch.randn(n).double().pow(9).float()


SPECIAL = {
    "zeros": torch.zeros,
    "negative-zeros": lambda n: -torch.zeros(n),
    "all-equal": lambda n: torch.full((n,), -2.5),
    "few-levels": lambda n: torch.randn(n).round(),
    "one-in-a-thousand": lambda n: torch.randn(n) * (torch.rand(n) < 0.001),
    "denormals": lambda n: torch.randn(n) * 1e-41,
    "tiny-to-huge": lambda n: torch.randn(n) * torch.logspace(-38, 38, n),
    "heavy-tailed": heavy_tailed,
    "hot-head": lambda n: torch.cat([100 * torch.randn(n - n // 2)[: n // 50], torch.randn(n - n // 50)]),
    "ascending": lambda n: torch.arange(n).float(),
    "largest-last": lambda n: torch.arange(n).float() // (n // 3),
    "all-but-one-equal": lambda n: torch.ones(n).index_fill(0, torch.tensor([n - 1]), 2.0),
}


@pytest.mark.parametrize("values", SPECIAL.values(), ids=SPECIAL.keys())
@pytest.mark.parametrize("n", [65, 5_000, 150_000])
def test_select_special_values(agree, make_problem, values, n, device):
    torch.manual_seed(n)
    x = values(n)
    for density in (0.0005, 0.05, 0.5, 0.999):
        p = make_problem([n], density, device)
        got = agree("select", x=p.operand(x), **p.layout(), **p.selection())
        assert int(got["nnz"][0]) == min(int(p.counts[0]), int(x.count_nonzero()))
        agree("select", x=p.operand(x), sampled=True, **p.layout(), **p.selection(spare=100))


@pytest.mark.parametrize("n", [1, 100, 140_000])
@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_a_value_that_is_not_finite_fails_its_segment_alone(agree, make_problem, n, value, device):
    for position in {0, n // 2, n - 1}:
        p = make_problem([7, n, n], 0.01, device)
        x = torch.randn(p.numel)
        x[7 + position] = value
        for sampled in (False, True):
            got = agree("select", x=p.operand(x), sampled=sampled, **p.layout(), **p.selection(spare=n))
            assert got["nnz"][1] == -1
            assert (got["nnz"][[0, 2]] > 0).all()
        got = agree("select_difference", x=p.normal(3), y=p.operand(x), **p.layout(), **p.selection())
        assert got["nnz"][1] == -1


@pytest.mark.parametrize("counts", [0, "n"])
def test_a_failure_is_seen_whatever_k_is(agree, make_problem, counts, device):
    p = make_problem([100, 100_000], 0.0 if counts == 0 else 1.0, device)
    x = torch.zeros(p.numel)
    x[[50, 99_999]] = torch.nan
    got = agree("select", x=p.operand(x), **p.layout(), **p.selection())
    assert got["nnz"].tolist() == [-1, -1]


@pytest.mark.parametrize("n", [2048, 100_000])
def test_a_segment_of_nans_of_all_ones_fails(agree, make_problem, n, device):
    p = make_problem([n, 7], 0.125, device)
    x = torch.randn(p.numel)
    x[:n] = torch.tensor(-1, dtype=torch.int32).view(torch.float32)  # the largest magnitude there is
    got = agree("select", x=p.operand(x), **p.layout(), **p.selection())
    assert got["nnz"].tolist()[0] == -1


def test_an_overflowing_difference_is_not_finite(agree, make_problem, device):
    p = make_problem([3], 1.0, device)
    x = torch.tensor([1.0, 3e38, 0.0])
    got = agree("select_difference", x=p.operand(x), y=p.operand(-x), **p.layout(), **p.selection())
    assert got["nnz"].tolist() == [-1]


def test_slots_may_begin_anywhere(agree, make_problem, device):
    p = make_problem([100, 50], 0.1, device)
    slots = {
        "indices": torch.zeros(40, dtype=torch.int64, device=device),
        "values": torch.zeros(40, device=device),
        "starts": torch.tensor([4, 20, 30]),
        "nnz": torch.zeros(2, dtype=torch.int64, device=device),
    }
    got = agree("select", x=p.normal(1), **p.layout(), **slots)
    assert got["nnz"].tolist() == [10, 5]
    assert got["indices"][:4].tolist() == [0] * 4, "slots before starts[0] are not written"


def test_the_counters_tell_what_was_looked_at_twice(make_problem):
    p = make_problem([200_000, 3], 0.01)
    out, x = ops.Selection.allocate(p.counts), p.normal(1)
    ops.selection_counters(reset=True)
    ops.select(x, p.offsets, p.counts, out)
    assert ops.selection_counters() == (200_003, 0)
    lone = torch.zeros(200_000)
    lone[::16_000] = 1.0  # so few that no sample says where to cut, and fewer than the k = 2000
    lone[1::2] = 1e-3
    ops.select([lone, x[0][:3]], p.offsets, p.counts, out)
    assert ops.selection_counters(reset=True) == (400_006, 200_000)
    assert ops.selection_counters() == (0, 0)
