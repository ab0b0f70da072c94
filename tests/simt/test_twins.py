# SPDX-License-Identifier: Apache-2.0
"""Every CUDA op, executed in the emulator, against its plain-torch twin, bit for bit. No GPU is involved."""

from __future__ import annotations

import pytest
import torch

from dgs_ext import reference

SIZES = {
    "no-segments": [],
    "0": [0],
    "1": [1],
    "2": [2],
    "63": [63],
    "64": [64],
    "65": [65],
    "9000": [9000],  # sampled with a stride of 2
    "mixed": [5, 0, 3000, 1, 1500, 64],
    "many": [(7 * s) % 90 for s in range(40)],
}
SELECTION = ("indices", "values", "starts", "nnz")
VALUES = {
    "normal": torch.randn,
    "ties": lambda n: torch.randn(n).round(),
    "sparse": lambda n: torch.randn(n) * (torch.rand(n) < 0.02),
    "all-equal": lambda n: torch.full((n,), -2.5),
    "denormals": lambda n: torch.randn(n) * 1e-41,
    "tiny-to-huge": lambda n: torch.randn(n) * torch.logspace(-38, 38, n),
}


class Problem:
    """Operands of every op for a layout, by the schemas' names."""

    def __init__(
        self, sizes: list[int], density: float, seed: int, values: str = "normal", flat: bool = True
    ):
        torch.manual_seed(seed)
        self.sizes, self.flat, self.make = sizes, flat, VALUES[values]
        self.offsets = torch.tensor([0, *sizes]).cumsum(0)
        self.counts = torch.tensor([-int(-density * n // 1) for n in sizes], dtype=torch.int64)

    def values(self):
        """A flat vector [N]."""
        return self.make(int(self.offsets[-1]))

    def operand(self):
        """A model-sized operand, flat or a list."""
        x = self.values()
        return [x] if self.flat else [part.clone() for part in x.split(self.sizes)]

    def gradients(self):
        """A list with each type, and with none in every fifth segment."""
        types = [torch.float32, torch.float16, torch.bfloat16]
        return [torch.randn(0 if s % 5 == 4 else n).to(types[s % 3]) for s, n in enumerate(self.sizes)]

    def rates(self):
        return torch.rand(len(self.sizes)) * (torch.arange(len(self.sizes)) % 3 != 2)

    def selection(self, spare=1):
        starts = torch.tensor([0, *(self.counts + spare).tolist()]).cumsum(0)
        slots = int(starts[-1])
        empty = (
            torch.full((slots,), -7),
            torch.full((slots,), -7.0),
            starts,
            torch.full((len(self.sizes),), -7),
        )
        return dict(zip(SELECTION, empty, strict=True))

    def selected(self):
        """What the twin selects, with a value rounded to zero here and there."""
        out = self.selection()
        reference.select(
            self.operand(),
            self.offsets,
            self.counts,
            out["starts"],
            False,
            out["indices"],
            out["values"],
            out["nnz"],
        )
        out["values"][::5] = 0
        return out

    def operands(self, op):
        """All operands of `op`."""
        layout = {"offsets": self.offsets, "counts": self.counts}
        rates = {"lr": self.rates(), "weight_decay": self.rates()}
        step = {"grads": self.gradients(), "weights": self.operand()}
        state = {"velocity": self.operand(), "velocity_out": self.operand()}
        dgc = {"residual": self.operand(), "residual_out": self.operand(), "momentum": self.rates()}
        sent = {"offsets": self.offsets, **self.selected()}
        return {
            "select": lambda: {"x": self.operand(), **layout, **self.selection(), "sampled": False},
            "select_difference": lambda: {
                "x": self.operand(),
                "y": self.operand(),
                **layout,
                **self.selection(),
                "sampled": False,
            },
            "step_velocity": lambda: step | state | rates | layout | self.selection() | {"sampled": False},
            "step_dgc": lambda: (
                step
                | state
                | dgc
                | rates
                | layout
                | self.selection()
                | {"grad_scale": 0.3, "nesterov": len(self.sizes) % 2 == 0, "sampled": False}
            ),
            "step_dense": lambda: (
                step
                | rates
                | {"out": self.operand(), "offsets": self.offsets, "nnz": self.selection()["nnz"]}
            ),
            "quantize_": lambda: {"values": self.values(), "codec": 1 + len(self.sizes) % 3},
            "quantize_blocks_": lambda: {
                **{name: sent[name] for name in ("offsets", "values", "starts", "nnz")},
                "codec": 4 + len(self.sizes) % 5,
            },
            "apply_velocity_": lambda: {"velocity": self.operand(), "keep": self.rates(), **sent},
            "apply_dgc_": lambda: {
                "velocity": self.operand(),
                "residual": self.operand(),
                "counts": self.counts,
                **sent,
            },
            "sparse_add_": lambda: {"x": self.operand(), **sent, "subtract": len(self.sizes) % 2 == 0},
            "dense_add_": lambda: {
                "x": self.operand(),
                "offsets": self.offsets,
                "values": self.values(),
                "subtract": len(self.sizes) % 2 == 0,
            },
            "sparse_overflow": lambda: {"x": self.huge(), **sent, "first": torch.tensor([7])},
            "dense_overflow": lambda: {
                "x": self.huge(),
                "offsets": self.offsets,
                "values": self.values(),
                "first": torch.tensor([7]),
            },
        }[op]()

    def huge(self):
        """An operand of which some differences overflow, here and there."""
        x = self.operand()
        for t in x[:: 1 + len(self.sizes) % 2]:
            t[t.numel() // 3 :: 5] = torch.inf if len(self.sizes) % 3 else -torch.inf
        return x


OPS = (
    *("select", "select_difference", "step_velocity", "step_dgc", "step_dense"),
    *("quantize_", "quantize_blocks_", "apply_velocity_", "apply_dgc_", "sparse_add_", "dense_add_"),
    *("sparse_overflow", "dense_overflow"),
)


def bits(x):
    return x.view(torch.int32) if x.dtype == torch.float32 else x


def clone(value):
    if isinstance(value, list):
        return [t.clone() for t in value]
    return value.clone() if isinstance(value, torch.Tensor) else value


def agree(emulated, op, operands, seed, chunk=1024):
    """Run both on copies, a selection sampled too; fail unless they left the same bits everywhere."""
    if operands.get("sampled") is False:
        agree(emulated, op, operands | {"sampled": True}, seed, chunk)
    got, want = ({name: clone(value) for name, value in operands.items()} for _ in range(2))
    emulated(op, got, seed, chunk)
    getattr(reference, op)(**want)
    for name, value in want.items():
        pairs = zip(got[name], value, strict=True) if isinstance(value, list) else [(got[name], value)]
        for a, b in pairs:
            assert not isinstance(b, torch.Tensor) or torch.equal(bits(a), bits(b)), name
    return got


@pytest.mark.parametrize("codec", range(4, 9))
@pytest.mark.parametrize("values", VALUES)
def test_block_codecs(emulated, codec, values):
    for seed, sizes in enumerate(([1], [127, 0, 128, 129], [3000, 40])):
        operands = Problem(sizes, 1.0, seed, values).operands("quantize_blocks_")
        agree(emulated, "quantize_blocks_", operands | {"codec": codec}, seed, chunk=256)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES.keys())
def test_shapes(emulated, op, sizes):
    for seed, density in enumerate((0.01, 0.0, 0.3, 1.0)):
        agree(emulated, op, Problem(sizes, density, seed, flat=seed % 2 == 0).operands(op), seed)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("values", VALUES)
def test_special_values(emulated, op, values):
    for density in (0.02, 0.6):
        agree(emulated, op, Problem([3, 0, 2500], density, 1, values).operands(op), seed=5, chunk=64)


@pytest.mark.parametrize("op", ["select", "select_difference"])
@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_a_value_that_is_not_finite_fails_its_segment_alone(emulated, op, value):
    operands = Problem([70, 1100, 70], 0.1, 2).operands(op)
    operands["x"][0][70 + 555] = value
    assert [n > 0 for n in agree(emulated, op, operands, seed=3)["nnz"].tolist()] == [True, False, True]


@pytest.mark.parametrize("operand", ["grads", "velocity", "residual"])
def test_dgc_sees_what_is_not_finite_in_either_state(emulated, operand):
    got = Problem([70, 1100, 70], 0.1, 3, flat=False).operands("step_dgc")
    if operand == "velocity":
        got["grads"][1] = torch.empty(0)  # so that the residual stays finite
    got[operand][1][1099] = torch.inf
    want = {name: clone(value) for name, value in got.items()}
    emulated("step_dgc", got, seed=1)
    reference.step_dgc(**want)
    assert got["nnz"].tolist() == want["nnz"].tolist()
    assert got["nnz"][1] == -1


def test_sparse_add_drops_what_is_outside_and_finds_other_segments(emulated):
    x = [torch.ones(4), torch.ones(0), torch.ones(6)]
    operands = {
        "x": x,
        "offsets": torch.tensor([0, 4, 4, 10]),
        "indices": torch.tensor([9, 4, 0, -1, 10, 3]),
        "values": torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
        "starts": torch.tensor([0, 2, 2, 6]),
        "nnz": torch.tensor([2, 0, 4]),
        "subtract": False,
    }
    agree(emulated, "sparse_add_", operands, seed=1)
    emulated("sparse_add_", operands)
    assert torch.cat(x).tolist() == [4, 1, 1, 7, 3, 1, 1, 1, 1, 2]
