# SPDX-License-Identifier: Apache-2.0
"""State in one safetensors file: it comes back as it was, and a reader finds all of it or what was there before."""

from __future__ import annotations

import json
import math
import pickle
import pickletools
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import dgs
from dgs import checkpoint
from dgs.checkpoint import files
from dgs.errors import CheckpointError, ConfigError


def same(a: Any, b: Any) -> bool:
    """Whether both are of the same types, values and bits."""
    if type(a) is not type(b):
        return False
    if isinstance(a, Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and bool((a == b).all())
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b) or (isinstance(a, float) and math.isnan(a) and math.isnan(b))


DTYPES = (
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool,
)  # fmt: skip


def test_everything_comes_back_as_it_was(tmp_path: Path) -> None:
    base = torch.arange(24.0)
    state = {
        "tensors": {str(dtype): torch.tensor([[0, 1], [1, 0]]).to(dtype) for dtype in DTYPES},
        "views": [base[3:7], base.view(4, 6).t(), base, base, torch.empty(0, 5), torch.tensor(3.0)],
        "same/name": torch.ones(1),
        "same": {"name": torch.zeros(1)},
        "numbers": [0, -1, 2**60, 0.1, 1e-320, math.inf, -math.inf, math.nan, True, None],
        "nested": {3: {"a": (1, [2.5, ("x",)])}, -1: {}},
        "milestones": Counter({30: 1, 60: 2}),
        "text": "“θ” and $",
        "empty": [{}, [], ()],
    }
    checkpoint.save(tmp_path / "state.safetensors", state)
    assert same(checkpoint.load(tmp_path / "state.safetensors"), state)
    assert [path.name for path in tmp_path.iterdir()] == ["state.safetensors"]


def test_other_tools_read_the_file(tmp_path: Path) -> None:
    """It is a safetensors file like any other, and nothing in it is a pickle."""
    path = tmp_path / "state.safetensors"
    checkpoint.save(path, {"model": {"weight": torch.ones(2, 3)}, "epoch": 7})
    assert {name: t.shape for name, t in load_file(path).items()} == {"/model/weight": (2, 3)}
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert json.loads(header["__metadata__"]["dgs"])["epoch"] == 7
    with pytest.raises((pickle.UnpicklingError, ValueError)):
        pickletools.dis(data, out=open("/dev/null", "w"))  # noqa: SIM115, PTH123


@pytest.mark.parametrize(
    "schedule", ["MultiStepLR", "OneCycleLR", "LambdaLR", "SequentialLR", "ReduceLROnPlateau"]
)
def test_a_worker_goes_on_from_its_file_as_from_its_state(tmp_path: Path, schedule: str) -> None:
    """Model, momentum, scheduler and counters: three steps, saved, three more, against six in a row."""

    def made() -> tuple[nn.Module, dgs.GradientSGD, Any]:
        torch.manual_seed(3)
        net = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 2))
        optimizer = dgs.GradientSGD(net.parameters(), 0.1, net, momentum=0.9, mode="sgd", threads=1)
        lr = torch.optim.lr_scheduler
        scheduler = {
            "MultiStepLR": lambda: lr.MultiStepLR(optimizer, [2, 4, 4]),
            "OneCycleLR": lambda: lr.OneCycleLR(optimizer, 0.2, total_steps=10),
            "LambdaLR": lambda: lr.LambdaLR(optimizer, lambda step: 1 / (1 + step)),
            "SequentialLR": lambda: lr.SequentialLR(
                optimizer, [lr.LinearLR(optimizer), lr.StepLR(optimizer, 1)], milestones=[3]
            ),
            "ReduceLROnPlateau": lambda: lr.ReduceLROnPlateau(optimizer, patience=0),
        }[schedule]()
        return net, optimizer, scheduler

    def steps(net: nn.Module, optimizer: dgs.GradientSGD, scheduler: Any, first: int, last: int) -> None:
        for step in range(first, last):
            optimizer.zero_grad()
            x = torch.randn(4, 6, generator=torch.Generator().manual_seed(step))
            loss = net(x).square().mean()
            loss.backward()
            optimizer.step()
            scheduler.step(*([loss.item()] if schedule == "ReduceLROnPlateau" else []))

    straight = made()
    steps(*straight, 0, 6)
    first = made()
    steps(*first, 0, 3)
    path = tmp_path / "worker.safetensors"
    checkpoint.save(path, [part.state_dict() for part in first])
    again = made()
    for part, state in zip(again, checkpoint.load(path), strict=True):
        part.load_state_dict(state)
    steps(*again, 3, 6)
    for one, two in zip(straight, again, strict=True):
        assert same(dict(one.state_dict()), dict(two.state_dict()))


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"a": {"b": [1, object()]}}, "checkpoint: /a/b/1 must be a number, a string"),
        ({"a": {1: 0, "b": 0}}, r"checkpoint: /a must be .* \(all keys strings .*\), got dict"),
        ({"$tensor": 0}, "checkpoint: the state must be"),
        ({True: 0}, "checkpoint: the state must be"),
        ({1, 2}, "got set"),
    ],
)
def test_what_cannot_be_saved_is_named_and_nothing_is_written(
    tmp_path: Path, state: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        checkpoint.save(tmp_path / "state.safetensors", state)
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.safetensors"
    checkpoint.save(path, {"step": 1})

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "sync", full)
    with pytest.raises(CheckpointError, match=r"state.safetensors cannot be written: .*No space left"):
        checkpoint.save(path, {"step": 2})
    assert checkpoint.load(path) == {"step": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["state.safetensors"]
    with pytest.raises(CheckpointError, match="cannot be written"):
        checkpoint.save(tmp_path / "no" / "such" / "folder.safetensors", {})


def test_what_is_no_state_says_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoint.load(path)
    torch.save({"step": 1}, path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoint.load(path)
    save_file({"weight": torch.ones(3)}, path)
    with pytest.raises(CheckpointError, match=r"holds tensors alone.*safetensors.torch.load_file"):
        checkpoint.load(path)
    checkpoint.save(path, {"weights": torch.randn(1000)})
    whole = path.read_bytes()
    for cut in (0, 5, 60, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(CheckpointError, match="cannot be read"):
            checkpoint.load(path)
    for described in ("{", '{"$tensor": "absent"}', '{"$tensor": []}', '{"$numbered": 3}', '{"$tuple": 3}'):
        save_file({"weights": torch.ones(3)}, path, {"dgs": described})
        with pytest.raises(CheckpointError, match="cannot be read: its description is damaged"):
            checkpoint.load(path)
