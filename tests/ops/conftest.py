# SPDX-License-Identifier: Apache-2.0
"""What the op tests share: operands for a layout, and a bitwise comparison of an op with its twin."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from dgs_ext import reference
from dgs_ext.ops import Selection

SHAPES = {
    "no-segments": [],
    "0": [0],
    "1": [1],
    "2": [2],
    "63": [63],
    "64": [64],
    "65": [65],
    "65537": [65_537],
    "1e6": [1_000_000],
    "mixed": [5, 0, 70_000, 1, 140_000, 300, 0],
    "many": [(37 * s) % 450 for s in range(300)],
}
SELECTION = ("indices", "values", "starts", "nnz")
SELECTING = ("select", "step_velocity", "step_dgc", "push_", "pull")

Operands = dict[str, Any]


@dataclass(frozen=True)
class Problem:
    """A layout of S segments with k = density·n, and operands for it, flat or as a list of tensors."""

    sizes: list[int]
    density: float = 0.01
    device: torch.device | str = "cpu"
    style: str = "flat"

    @property
    def numel(self) -> int:
        """The N of the flat vector."""
        return sum(self.sizes)

    @property
    def offsets(self) -> Tensor:
        """Where segments begin, int64 [S+1]."""
        return torch.tensor([0, *self.sizes]).cumsum(0)

    @property
    def counts(self) -> Tensor:
        """k of each segment, int64 [S]."""
        n = torch.tensor(self.sizes, dtype=torch.int64)
        return (n * self.density - n * 1e-9).ceil().long().clamp(min=1 if self.density else 0).minimum(n)

    def operand(self, flat: Tensor) -> list[Tensor]:
        """`flat` [N] as a model-sized operand."""
        flat = flat.to(self.device)
        return [flat.clone()] if self.style == "flat" else [part.clone() for part in flat.split(self.sizes)]

    def normal(self, seed: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
        """An operand of normal numbers."""
        return self.operand(torch.randn(self.numel, generator=torch.Generator().manual_seed(seed)).to(dtype))

    def rates(self, seed: int) -> Tensor:
        """A float32 [S] on the CPU, in [0, 1), every third of them 0."""
        rates = torch.rand(len(self.sizes), generator=torch.Generator().manual_seed(seed))
        return rates * (torch.arange(len(self.sizes)) % 3 != 2)

    def selection(self, spare: int = 0) -> Operands:
        """Empty slots by argument name: `spare` more in each segment than k."""
        empty = Selection.allocate(self.counts + spare, self.device)
        for slots in (empty.indices, empty.values):  # opcheck compares those that are not filled, too
            slots.zero_()
        return {name: getattr(empty, name) for name in SELECTION}

    def layout(self) -> Operands:
        """The offsets and counts by argument name."""
        return {"offsets": self.offsets, "counts": self.counts}


def bits(x: Tensor) -> Tensor:
    """`x` as integers, all NaNs alike: equal where x is the same bit for bit."""
    if not x.is_floating_point():
        return x
    x = x.float()  # of 16 bits exactly
    return torch.where(x.isnan(), torch.full_like(x, torch.nan), x).view(torch.int32)


def cloned(operands: Operands) -> Operands:
    """A copy of every tensor among the operands."""
    copies: Operands = {}
    for name, value in operands.items():
        if isinstance(value, list):
            copies[name] = [t.clone() for t in value]
        else:
            copies[name] = value.clone() if isinstance(value, Tensor) else value
    return copies


def in_order(name: str, operands: Operands) -> list[Any]:
    """The operands as the op's schema orders them."""
    schema = getattr(torch.ops.dgs, name).default._schema
    assert {a.name for a in schema.arguments} == operands.keys()
    return [operands[a.name] for a in schema.arguments]


def compare(operand: str, got: Operands, want: Operands, skip: set[int]) -> None:
    """Fail unless the operand is the same bit for bit in both, in all segments but those of `skip`."""
    offsets = got["offsets"]
    for s, (a, b) in enumerate(
        zip(
            reference.segments(got[operand], offsets), reference.segments(want[operand], offsets), strict=True
        )
    ):
        assert s in skip or torch.equal(bits(a), bits(b)), f"{operand}, segment {s}"


def _agree(name: str, **operands: Any) -> Operands:
    """Run an op and its twin on copies of the operands, fail unless both wrote the same, return what the op wrote.

    Unfilled slots are nobody's business, and neither are the *_out buffers of a segment with nnz -1.
    A selection is exact unless the operands say `sampled`.
    """
    if name.startswith(SELECTING):
        operands = {"sampled": False, **operands}
    got, want = cloned(operands), cloned(operands)
    getattr(torch.ops.dgs, name)(*in_order(name, got))
    getattr(reference, name)(*in_order(name, want))
    failed: set[int] = set()
    if "nnz" in operands:
        assert got["nnz"].tolist() == want["nnz"].tolist()
        failed = set((got["nnz"] < 0).nonzero().view(-1).tolist())
    for operand, value in operands.items():
        if isinstance(value, list):
            compare(operand, got, want, failed if operand == "out" or operand.endswith("_out") else set())
    if name.startswith(SELECTING):
        a, b = (Selection(*(o[key] for key in SELECTION)).compact() for o in (got, want))
        assert torch.equal(a[0], b[0])
        assert torch.equal(bits(a[1]), bits(b[1]))
    elif isinstance(operands.get("values"), Tensor):
        assert torch.equal(bits(got["values"]), bits(want["values"]))
    if "first" in operands:
        assert torch.equal(got["first"], want["first"])
    return got


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Run on one thread: on shared cores, many small torch ops mostly wait for each other's threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def agree() -> Callable[..., Operands]:
    """Run an op and its twin, and compare them bit for bit."""
    return _agree


@pytest.fixture(scope="session")
def make_problem() -> type[Problem]:
    """Make the operands of a layout."""
    return Problem


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Each device that the ops run on."""
    if request.param == "cpu":
        return torch.device("cpu")
    found: torch.device = request.getfixturevalue("cuda")
    return found


@pytest.fixture(params=["flat", "list"])
def style(request: pytest.FixtureRequest) -> str:
    """How model-sized operands are given."""
    return str(request.param)


@pytest.fixture(params=SHAPES.values(), ids=SHAPES.keys())
def sizes(request: pytest.FixtureRequest) -> list[int]:
    """The sizes of the segments."""
    return list(request.param)
