# SPDX-License-Identifier: Apache-2.0
"""A folder of checkpoints: the last few stay, and a writer that dies or a file that is damaged costs one at most."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from dgs.checkpoint import Checkpoints, Names, folder, skeleton
from dgs.config import resolve
from dgs.errors import CheckpointError
from dgs.layout import Layout
from dgs.server import layout_of

# Of each line, a version and a time, it makes a process that writes checkpoint after checkpoint, each of one number
# throughout, and kills it after that time.
WRITERS = """
import os, signal, sys, time, torch
from dgs.checkpoint import Checkpoints
torch.set_num_threads(1)
for line in sys.stdin:
    first, moment = line.split()
    child = os.fork()
    if child == 0:
        folder = Checkpoints(sys.argv[1], keep=2)
        for version in range(int(first), 10**9):
            model = {f"layer{i}.weight": torch.full((1 << 17,), float(version)) for i in range(4)}
            folder.write(version, model, {"version": version, "workers": {1: torch.full((999,), version)}}, {})
    time.sleep(float(moment))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    print("killed", flush=True)
"""


def write(folder: Checkpoints, version: int) -> Path:
    return folder.write(
        version, {"w": torch.full((5,), float(version))}, {"version": version}, {"mode": "dgs"}
    )


def test_the_last_ones_stay_and_latest_is_the_last(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "new" / "run", keep=2)
    assert checkpoints.newest() is None and checkpoints.found() == []
    for version in (0, 10, 10, 7):  # the order is that of writing
        path = write(checkpoints, version)
        assert (checkpoints.folder / "latest").resolve() == path
    assert [p.name for p in checkpoints.found()] == ["000003-version-10", "000004-version-7"]
    assert {p.name for p in checkpoints.folder.iterdir()} == {
        "latest",
        *(p.name for p in checkpoints.found()),
    }
    newest = Checkpoints(checkpoints.folder).newest()
    assert newest is not None and newest.path == path
    assert newest.about["mode"] == "dgs" and newest.about["version"] == 7 == newest.server["version"]
    assert torch.equal(newest.model["w"], torch.full((5,), 7.0))
    assert json.loads((path / "checkpoint.json").read_text()) == newest.about


@pytest.mark.parametrize("name", ["model.safetensors", "server.safetensors", "checkpoint.json"])
@pytest.mark.parametrize("damage", ["gone", "cut", "altered"])
def test_one_that_is_damaged_is_passed_over_with_a_warning(
    tmp_path: Path, name: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = Checkpoints(tmp_path, keep=3)
    write(checkpoints, 1)
    path = write(checkpoints, 2) / name
    data = bytearray(path.read_bytes())
    if damage == "altered":
        data[-3] ^= 64
    path.write_bytes(data[: len(data) - 1 if damage == "cut" else None])
    if damage == "gone":
        path.unlink()
    if name == "checkpoint.json" and damage == "cut":
        path.write_bytes(data[: len(data) // 2])  # the last byte is a line's end
    with caplog.at_level(logging.WARNING):
        newest = checkpoints.newest()
    assert newest is not None and newest.server["version"] == 1
    assert "000002-version-2" in caplog.text and "the one before it is taken" in caplog.text


def test_when_all_are_damaged_nothing_is_made_up(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for version in range(2):
        (write(checkpoints, version) / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="of the 2 checkpoints in .* none can be read"):
        checkpoints.newest()
    (tmp_path / "000002-version-1" / "checkpoint.json").write_text('{"format": 99}')
    with pytest.raises(CheckpointError, match="has format 99, and this release reads 1"):
        folder.read(tmp_path / "000002-version-1")


def test_a_writer_that_is_killed_leaves_the_last_whole(tmp_path: Path) -> None:
    """At moments later and later, until it was in the middle of one five times; the next writer clears up."""
    version = halves = 0
    command = [sys.executable, "-c", WRITERS, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writers:
        assert writers.stdin is not None and writers.stdout is not None
        for tenths in range(1, 600):
            print(version, 0.01 * tenths, file=writers.stdin, flush=True)
            assert writers.stdout.readline() == "killed\n"
            halves += any(path.name.startswith(".0") for path in tmp_path.iterdir())
            newest = Checkpoints(tmp_path).newest()
            if newest is None:
                assert version == 0
                continue
            found = newest.server["version"]
            assert found >= version - 1, "older than what was there before"
            tensors = (*newest.model.values(), *newest.server["workers"].values())
            assert len(tensors) == 5 and all(bool((t == found).all()) for t in tensors)
            version = found + 1
            if halves >= 5:
                break
        writers.stdin.close()
    assert version > 0 and halves >= 5
    last = write(Checkpoints(tmp_path, keep=1), version)
    assert {path.name for path in tmp_path.iterdir()} == {last.name, "latest"}


def test_a_folder_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="no checkpoint can be written to .*file"):
        write(Checkpoints(tmp_path / "file"), 1)


def test_without_links_the_checkpoint_is_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(self: Path, target: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", refused)
    with caplog.at_level(logging.WARNING):
        write(Checkpoints(tmp_path), 1)
    assert "latest could not be made" in caplog.text
    newest = Checkpoints(tmp_path).newest()
    assert newest is not None and newest.about["version"] == 1


class Tied(nn.Module):
    """What a model may have: tied and frozen parameters, shared and passing buffers, modules without any."""

    def __init__(self) -> None:
        super().__init__()
        self.statistics = nn.BatchNorm1d(4, affine=False)
        self.embedding = nn.Embedding(7, 4)
        self.body = nn.ModuleDict({"a": nn.Linear(4, 4), "none": nn.ReLU(), "b": nn.Linear(4, 4)})
        self.body["b"].weight.requires_grad_(False)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("mask", torch.ones(4, dtype=torch.bool))
        self.head.register_buffer("mask", self.mask)
        self.register_buffer("passing", torch.zeros(9), persistent=False)
        self.scale = nn.Parameter(torch.ones(()))


def layout(module: nn.Module) -> Layout:
    return layout_of(module, resolve(None, {}))


def test_a_skeleton_has_the_layout_and_the_values_of_the_model() -> None:
    model = Tied()
    names = Names.of(model)
    saved = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    assert list(names.keys) == list(saved)
    bones = skeleton(names, saved)
    assert layout(bones).fingerprint == layout(model).fingerprint
    assert list(bones.state_dict()) == list(saved)
    assert all(torch.equal(bones.state_dict()[key], saved[key]) for key in saved)
    assert bones.head.weight is bones.embedding.weight and bones.head.mask is bones.mask
    assert [n for n, p in bones.named_parameters() if not p.requires_grad] == ["body.b.weight"]
    assert names.saved(names.values(saved)).keys() == saved.keys()
