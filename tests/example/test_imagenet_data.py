# SPDX-License-Identifier: Apache-2.0
"""The three ways of reading images give the same: on real photographs, in shares that cover each once per pass."""

from __future__ import annotations

from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

pytest.importorskip("torchvision", reason="needs torchvision: pip install -e '.[examples]'")

import imagenet_data as data
from torchvision.datasets import ImageFolder

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
WITHOUT_DALI = "needs NVIDIA DALI, 0.7 GB: pip install -r requirements-dali.txt, or nvidia-dali-cuda130"
DALI = pytest.param("dali", marks=pytest.mark.skipif(data.default_loader() != "dali", reason=WITHOUT_DALI))
LOADERS = pytest.mark.parametrize("loader", ["torchvision", DALI])


@pytest.fixture(scope="session")
def photographs(test_data: Path) -> Path:
    """Return a tree of photographs of bees and ants."""
    return test_data / "bees_ants"


def reading(folder: Path, *, train: bool, index: int = 0, parts: int = 1, batch: int = 32) -> data.Reading:
    return data.Reading(folder, train, 48, batch, index, parts, threads=1, seed=index)


def images_of(loader: str, folder: Path, *, train: bool, device: torch.device = CPU) -> tuple[Tensor, Tensor]:
    batches = list(data.LOADERS[loader](reading(folder, train=train), device))
    assert all(len(images) == len(labels) == 32 for images, labels in batches[:-1])
    return torch.cat([images for images, _ in batches]), torch.cat([labels for _, labels in batches])


@LOADERS
@pytest.mark.parametrize("train", [True, False], ids=["train", "val"])
def test_shapes_types_and_ranges(photographs: Path, loader: str, train: bool) -> None:
    folder = photographs / ("train" if train else "val")
    images, labels = images_of(loader, folder, train=train)
    expected = ImageFolder(str(folder)).targets
    assert images.shape == (len(expected), 3, 48, 48) and images.dtype == torch.float32
    assert labels.dtype == torch.int64
    assert Counter(labels.tolist()) == Counter(expected)
    if train:
        assert labels.tolist() != expected  # shuffled
    else:
        assert labels.tolist() == expected
    for channel, (mean, std) in enumerate(zip(data.MEAN, data.STD, strict=True)):
        assert images[:, channel].min() == pytest.approx(-mean / std, abs=0.02)  # black
        assert images[:, channel].max() == pytest.approx((1 - mean) / std, abs=0.02)  # white


@pytest.mark.skipif(data.default_loader() != "dali", reason=WITHOUT_DALI)
def test_dali_and_torchvision_see_the_same(photographs: Path) -> None:
    folder = photographs / "val"
    (ours, _), (theirs, _) = (images_of(name, folder, train=False) for name in data.LOADERS)
    assert torch.allclose(ours.mean((0, 2, 3)), theirs.mean((0, 2, 3)), atol=0.01)
    assert torch.allclose(ours.std((0, 2, 3)), theirs.std((0, 2, 3)), atol=0.01)
    apart = (ours - theirs).abs().mean((1, 2, 3)).sort().values
    assert (
        apart[len(apart) // 10] < 0.02
    )  # the same to a grey level, where half a pixel is not rounded otherwise
    assert apart.median() < 0.2


@pytest.mark.skipif(data.default_loader() != "dali", reason=WITHOUT_DALI)
def test_dali_and_torchvision_augment_alike(photographs: Path) -> None:
    folder = photographs / "train"
    (ours, _), (theirs, _) = (images_of(name, folder, train=True) for name in data.LOADERS)
    assert torch.allclose(ours.mean((0, 2, 3)), theirs.mean((0, 2, 3)), atol=0.15)  # 244 random crops
    assert torch.allclose(ours.std((0, 2, 3)), theirs.std((0, 2, 3)), atol=0.1)
    flat = [float(x.mean((1, 2, 3)).std()) for x in (ours, theirs)]  # small crops of an image differ in brightness
    assert flat[0] == pytest.approx(flat[1], rel=0.15)


@LOADERS
def test_the_shares_of_a_pass_hold_each_image_once(tmp_path: Path, loader: str) -> None:
    """Images of one grey each, so that each can be told from its pixels; 37 of them in 3 shares, batches of 8."""
    for number in range(37):
        folder = tmp_path / f"class{number % 2}"
        folder.mkdir(exist_ok=True)
        Image.new("RGB", (40, 40), (6 * number,) * 3).save(folder / f"{number}.png")
    loaders = [
        data.LOADERS[loader](reading(tmp_path, train=True, index=index, parts=3, batch=8), CPU)
        for index in range(3)
    ]
    orders = []
    for _ in range(3):
        seen = [torch.cat([numbers(images) for images, _ in share]).tolist() for share in loaders]
        assert sorted(number for share in seen for number in share) == list(range(37))
        assert {len(share) for share in seen} == {12, 13}
        orders.append(seen)
    assert orders[0] != orders[1] != orders[2]


def numbers(images: Tensor) -> Tensor:
    """Which image each is, by its grey."""
    grey = (images[:, 0].mean((1, 2)) * data.STD[0] + data.MEAN[0]) * 255
    return (grey / 6).round().long()


@pytest.mark.skipif(data.default_loader() != "dali", reason=WITHOUT_DALI)
def test_the_graph_for_a_gpu_decodes_with_nvjpeg(tmp_path: Path) -> None:
    """As DALI writes it down, without a GPU: images go to it encoded, and everything after that is done there."""
    (tmp_path / "class").mkdir()
    for train in (True, False):
        graph, on_cpu = (
            data.pipeline(reading(tmp_path, train=train), kind, None).serialize() for kind in ("cuda", "cpu")
        )
        assert b"mixed" in graph and b"mixed" not in on_cpu
        assert graph.count(b"gpu") > on_cpu.count(b"gpu") + 4  # the resize, the normalisation and the labels


@pytest.mark.skipif(data.default_loader() != "dali", reason=WITHOUT_DALI)
def test_the_gpu_sees_what_the_cpu_sees(photographs: Path, cuda: torch.device) -> None:
    folder = photographs / "val"
    (ours, labels), (theirs, _) = (
        images_of("dali", folder, train=False, device=device) for device in (cuda, CPU)
    )
    assert ours.device.type == labels.device.type == "cuda"
    assert torch.allclose(ours.mean((0, 2, 3)).cpu(), theirs.mean((0, 2, 3)), atol=0.02)
    assert (ours.cpu() - theirs).abs().mean() < 0.1


@pytest.mark.skipif(
    find_spec("nvidia.dali") is not None if find_spec("nvidia") else False, reason="DALI is here"
)
def test_without_dali_the_error_says_what_to_do(tmp_path: Path) -> None:
    assert data.default_loader() == "torchvision"
    with pytest.raises(SystemExit, match=r"(?s)not installed.*requirements-dali.txt.*--loader torchvision"):
        data.dali(reading(tmp_path, train=True), CPU)
