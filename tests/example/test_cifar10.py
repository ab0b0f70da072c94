# SPDX-License-Identifier: Apache-2.0
"""The CIFAR-10 example with real processes on a few synthetic images, and its data's handling."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cifar10 as example
import cifar10_data
import pytest
import torch
from torch.nn.functional import pad

SMALL = ("--model=small", "--max-version=24", "--batch-size=16", "--evaluate-every=10")


def start(repository: Path, data: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(repository / "example" / "cifar10.py"), f"--data={data}", *options],
        cwd=repository,
        env=os.environ | {"OMP_NUM_THREADS": "1"},  # else plain SGD takes all cores, which tests share
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def finish(*processes: subprocess.Popen[str]) -> list[tuple[str, str]]:
    try:
        said = [p.communicate(timeout=240) for p in processes]
    finally:
        for p in processes:
            p.kill()
    assert [p.returncode for p in processes] == [0] * len(processes), said
    return said


@pytest.mark.parametrize("mode", ["dgs", "asgd"])
def test_a_server_and_two_workers(
    repository: Path, synthetic: Path, tmp_path: Path, port: int, mode: str
) -> None:
    saved = tmp_path / "new" / "model.pt"
    common = (*SMALL, f"--mode={mode}", f"--port={port}", "--world-size=3", f"--checkpoint={saved}", "--cuda")
    ranks = (start(repository, synthetic, *common, f"--rank={rank}") for rank in range(3))
    (server, log), *workers = finish(*ranks)
    assert "version 10 of 24: test accuracy" in server or "version 20 of 24: test accuracy" in server
    assert "the final model, version 24: test accuracy" in server
    assert torch.cuda.is_available() or "no CUDA device" in log
    assert any("staleness" in bar and "(1/" in bar for _, bar in workers)  # one may come when all is done
    net = example.make_net("small")
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net.load_state_dict(torch.load(saved))
    assert not torch.equal(net.state_dict()["0.weight"], before["0.weight"])
    assert not torch.equal(net.state_dict()["1.running_mean"], before["1.running_mean"])


def test_plain_sgd_learns_what_can_be_learned(repository: Path, synthetic: Path, tmp_path: Path) -> None:
    saved = tmp_path / "model.pt"
    options = ("--model=small", "--max-version=60", "--batch-size=32", "--mode=sgd", f"--checkpoint={saved}")
    ((said, _),) = finish(start(repository, synthetic, *options))
    accuracy = float(said.partition("test accuracy ")[2].partition("%")[0])
    assert accuracy > 60, said
    assert saved.exists()


def test_both_versions_of_the_data_read_alike(synthetic: Path, synthetic_python: Path) -> None:
    for train, count in ((True, 300), (False, 60)):
        images, labels = cifar10_data.load(synthetic, train=train)
        assert images.shape == (count, 3, 32, 32) and images.dtype == torch.uint8
        assert labels.shape == (count,) and labels.dtype == torch.int64
        again = cifar10_data.load(synthetic_python, train=train)
        assert torch.equal(images, again[0]) and torch.equal(labels, again[1])


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    (folder / "test_batch.bin").write_bytes(bytes(5000))
    with pytest.raises(SystemExit, match=r"test_batch.bin must hold rows of 3073 bytes, and holds 5000"):
        cifar10_data.load(tmp_path, train=False)


def test_without_data_and_network_the_error_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("torchvision.datasets")

    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(datasets, "CIFAR10", unreachable)
    with pytest.raises(SystemExit, match=r"(?s)holds neither.*no route to host.*--data"):
        cifar10_data.load(tmp_path, train=True)


def test_the_workers_share_out_every_pass() -> None:
    images, labels = torch.zeros(103, 3, 32, 32, dtype=torch.uint8), torch.arange(103)
    streams = [cifar10_data.batches((images, labels), 8, index, 2) for index in range(2)]
    for _ in range(2):
        seen = [torch.cat([next(stream)[1] for _ in range(7)]) for stream in streams]
        assert [len(s) for s in seen] == [52, 51]
        assert torch.equal(torch.cat(seen).sort().values, labels)


def test_an_augmented_image_is_a_shifted_or_mirrored_one() -> None:
    images = torch.randint(1, 256, (40, 3, 32, 32), dtype=torch.uint8)
    labels = torch.arange(40)
    moved, which = next(cifar10_data.batches((images, labels), 40, 0, 1))
    shifts = set()
    for image, label in zip(moved, which, strict=True):
        wide = pad(images[label], (4, 4, 4, 4))
        crops = {(y, x): wide[:, y : y + 32, x : x + 32] for y in range(9) for x in range(9)}
        views = {
            (*at, flip): crop.flip(-1) if flip else crop for at, crop in crops.items() for flip in (0, 1)
        }
        found = [key for key, view in views.items() if torch.equal(view, image)]
        assert len(found) == 1
        shifts.add(found[0])
    assert len(shifts) > 20 and {flip for *_, flip in shifts} == {0, 1}


def test_the_real_images_have_the_deviation_they_are_divided_by(cifar10: Path) -> None:
    images, labels = cifar10_data.load(cifar10, train=True)
    assert len(images) == cifar10_data.IMAGES
    assert labels.bincount().tolist() == [5000] * 10
    normal = cifar10_data.normalised(images[::10], torch.device("cpu"))
    assert normal.mean((0, 2, 3)).abs().max() < 0.02
    assert (normal.std((0, 2, 3)) - 1).abs().max() < 0.02


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_workers_with_two_passes_each_reach_65_percent(
    repository: Path, cifar10: Path, tmp_path: Path, port: int
) -> None:
    options = (
        "--model=small",
        "--epochs=4",
        "--world-size=3",
        f"--port={port}",
        f"--checkpoint={tmp_path}/m.pt",
    )
    processes = [start(repository, cifar10, *options, f"--rank={rank}") for rank in range(3)]
    try:
        said, _ = processes[0].communicate(timeout=1700)
    finally:
        for p in processes:
            p.kill()
            p.wait()
    accuracy = float(said.rpartition("test accuracy ")[2].partition("%")[0])
    assert accuracy >= 65, said
