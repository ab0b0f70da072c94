# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks stand on: turns, verification, and floors that touch what they say they touch."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

CPU = torch.device("cpu")


def test_growth_is_of_the_second_half_over_the_first_tenth(scripts: Path) -> None:
    from flat import Point, grown

    def of(*megabytes: float) -> float:
        return grown([Point(n, mb, 1) for n, mb in zip((1, 10, 50, 60, 100), megabytes, strict=True)])

    assert of(90, 100, 300, 100, 80) == 0, "what is given back again is no growth"
    assert of(90, 100, 100, 110, 105) == pytest.approx(0.1)
    assert of(100, 90, 90, 90, 90) == pytest.approx(-0.1)


def test_contestants_take_turns(scripts: Path) -> None:
    from harness import Contestant, in_turn

    calls: list[str] = []

    def contestant(name: str, seconds: float = 0.0) -> Contestant:
        def work() -> None:
            calls.append(name)
            time.sleep(seconds)

        return Contestant(name, work, lambda: calls.append(f"prepare {name}"))

    times = in_turn(
        [contestant("a"), contestant("b"), contestant("slow", 0.02)], CPU, repeats=3, limit_s=0.03
    )
    round_of = [f"{step}{name}" for name in "ab" for step in ("prepare ", "") * 2]
    assert calls[: len(round_of)] == round_of
    assert [name for name in calls if name in ("a", "b")] == ["a", "a", "b", "b"] * 3
    assert len(times["a"]) == len(times["b"]) == 3
    assert 1 <= len(times["slow"]) < 3
    assert min(times["slow"]) >= 20


@pytest.fixture
def problem(scripts: Path) -> Any:
    from models import layout
    from steps import under_way

    return under_way(layout("tiny"), CPU)


def test_a_wrong_result_is_never_timed(problem: Any) -> None:
    from steps import Step, step_velocity
    from verify import verify

    from dgs_ext import ops

    def last_bit(p: Any, library: object) -> None:
        step_velocity(p, library)  # type: ignore[arg-type]
        if library is ops:
            p.velocity_next[-1][-1:].nextafter_(torch.tensor([torch.inf]))

    assert verify("right", Step(step_velocity, "velocity", 16), problem, 10**9) == problem.numel
    with pytest.raises(SystemExit, match="wrong: velocity_next differs"):
        verify("wrong", Step(last_bit, "velocity", 16), problem, 10**9)


@pytest.mark.parametrize("k", [1, 7, 500, 999, 1000])
@pytest.mark.parametrize("values", ["normal", "ties", "zeros", "equal"])
def test_what_verifies_chooses_what_the_twin_does(scripts: Path, values: str, k: int) -> None:
    from verify import top

    from dgs_ext import reference

    x = torch.randn(1000, generator=torch.Generator().manual_seed(k))
    x = {"normal": x, "ties": (2 * x).round(), "zeros": x * (x > 1), "equal": x.sign()}[values]
    assert torch.equal(top(x, k), reference.top(x, k))


def test_a_part_is_the_largest_segments_that_fit_or_the_smallest(problem: Any) -> None:
    from verify import chosen

    assert problem.offsets.diff().tolist() == [4608, 32, 32, 90000, 300]
    assert chosen(problem, 10**9) == [0, 1, 2, 3, 4]
    assert chosen(problem, 5000) == [0, 1, 2, 4]
    assert chosen(problem, 40) == [1]
    assert chosen(problem, 10) == [2]


@pytest.fixture
def floor(scripts: Path) -> Any:
    import floors

    assert floors.why_not_compiled() == ""
    return torch.ops.dgs_floor


SIZES = (1, 5, 70_001, 33)  # more than one piece, and beginnings that lie on no line


def streams(*operands: Tensor) -> Tensor:
    return torch.tensor([[t.data_ptr() for t in operand.split(SIZES)] for operand in operands])


@pytest.mark.parametrize("past", [False, True])
@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_floor_reads_and_writes_everything(
    floor: Any, monkeypatch: pytest.MonkeyPatch, past: bool, in_place: bool, threads: int
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    g, w, u, r, a, b = torch.randn(6, sum(SIZES)).unbind()
    step = 0.5 * u + (g + w)
    residual = 0.5 * r + step
    sizes = torch.tensor(SIZES)
    if in_place:
        a, b = u.clone(), r.clone()
        u, r = a, b
    floor.dgc(streams(g, w, u, r, a, b), sizes, past)
    torch.testing.assert_close(a, step)
    torch.testing.assert_close(b, residual)
    u = u.copy_(g)
    step = 0.5 * u + (g + w)
    floor.velocity(streams(g, w, u, a), sizes, past)
    torch.testing.assert_close(a, step)
    floor.dense(streams(g, w, a), sizes, past)
    torch.set_num_threads(before)
    assert torch.equal(a, g + w)


def mixed(x: Tensor) -> int:
    return int(np.bitwise_xor.reduce(x.numpy().view(np.uint32)))


@pytest.mark.parametrize("kept", [0, 1, 700, 100_000])
def test_the_floors_of_selections_read_everything_and_touch_what_is_sent(floor: Any, kept: int) -> None:
    theta, mirror = torch.randn(2, 100_000).unbind()
    indices = torch.randperm(theta.numel())[:kept].sort().values
    at, numel = torch.tensor([[theta.data_ptr()], [mirror.data_ptr()]]), torch.tensor([theta.numel()])
    assert floor.read(at, numel) == mixed(theta)
    read = mixed(theta - mirror)
    expected = [theta.clone(), mirror.clone()]
    expected[1][indices] += 3.0
    assert floor.pull(at, numel, indices, 3.0) == read
    assert torch.equal(mirror, expected[1])
    values = torch.randn(kept)
    assert floor.gather(at[:1, 0].contiguous(), indices, values) == mixed(theta[indices] - values)
    for vector in expected:
        vector[indices] += values
    floor.scatter(at[:, 0].contiguous(), indices, values)
    assert torch.equal(theta, expected[0])
    assert torch.equal(mirror, expected[1])


def test_every_step_has_floors(problem: Any) -> None:
    import floors
    from steps import STEPS

    from dgs_ext import ops

    for name, step in STEPS.items():
        prepare: Callable[..., None] = step.given or step.run
        prepare(problem, ops)
        assert len(floors.contestants(step.floor, problem)) >= (1 if step.floor == "values" else 2), name
        for contestant in floors.contestants(step.floor, problem):
            contestant.run()


def test_the_plot_is_of_one_per_cent_at_all_threads_the_smallest_model_first(scripts: Path) -> None:
    from kernels_plot import chosen

    rows = [
        {"step": step, "density": density, "threads": threads, "model": model, "numel": numel}
        for model, numel in (("large", 9), ("small", 5))
        for threads in (1, 2)
        for density in (0.1, 0.01)
        for step in ("dgs", "step_dense", "pull")
    ]
    groups = chosen(rows)
    assert [[row["model"] for row in group] for group in groups] == [["small"] * 2, ["large"] * 2]
    assert all(row["density"] == 0.01 and row["threads"] == 2 for group in groups for row in group)
    assert chosen([row for row in rows if row["step"] == "step_dense"]) == []
