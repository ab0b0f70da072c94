# SPDX-License-Identifier: Apache-2.0
"""The ImageNet example with real processes on a few images of its own making and on photographs, and its schedule."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from scripts import finish, start

pytest.importorskip("torchvision", reason="needs torchvision: pip install -e '.[examples]'")

import imagenet as example
from imagenet_data import default_loader
from torchvision import models

SMALL = ("--size=32", "--batch-size=4", "--max-version=12", "--evaluate-every=6", "--lr=0.0002", "--readers=1")


@pytest.fixture(scope="module", params=["noise", pytest.param("bees_ants", marks=pytest.mark.slow)])
def pictures(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """Return a tree of two classes, of noise or of photographs."""
    if request.param == "bees_ants":
        return Path(request.getfixturevalue("test_data")) / "bees_ants"
    root = tmp_path_factory.mktemp("pictures")
    for part, count in (("train", 12), ("val", 5)):
        for name in ("dark", "light"):
            folder = root / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                least = 0 if name == "dark" else 128
                noise = torch.randint(least, least + 128, (40 + number, 48, 3), dtype=torch.uint8)
                Image.fromarray(noise.numpy()).save(folder / f"{number}.jpg")
    return root


def test_a_server_and_two_workers_fine_tune(
    repository: Path, pictures: Path, tmp_path: Path, port: int
) -> None:
    script, saved, begun = (
        repository / "example" / "imagenet.py",
        tmp_path / "run",
        tmp_path / "begun.safetensors",
    )
    torch.manual_seed(0)
    other = models.resnet18(num_classes=7)
    save_file(other.state_dict(), begun)
    common = (f"--data={pictures}", *SMALL, f"--port={port}", "--world-size=3")
    (said, log), *_ = finish(
        start(script, *common, "--rank=0", f"--init={begun}", f"--checkpoint-dir={saved}"),
        start(script, *common, "--rank=1", f"--loader={default_loader()}"),
        start(script, *common, "--rank=2", "--loader=torchvision"),
    )
    assert "120 of 122 tensors are from" in log and "dgs 12/12" in log and "accuracy" in log, log
    assert 0 <= float(said.removeprefix("the final model: accuracy ").removesuffix("%\n")) <= 100
    trained = load_file(saved / "latest" / "model.safetensors")
    models.resnet18(num_classes=2).load_state_dict(trained)
    moved = (trained["conv1.weight"] - other.conv1.weight).norm() / other.conv1.weight.norm()
    assert 0 < moved < 0.5  # it began where the other model was


def test_the_rate_falls_after_30_and_60_of_90_epochs() -> None:
    rates = [example.learning_rate(0.1, epoch / 90) for epoch in (0, 29.9, 30, 59.9, 60, 90)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


def test_the_momentum_is_the_papers_where_it_says_one() -> None:
    momenta = [example.momentum_for(workers) for workers in (1, 2, 4, 8, 16, 32, 1000)]
    assert momenta == pytest.approx([0.9, 0.825, 0.7, 0.575, 0.45, 0.325, 0.0])
