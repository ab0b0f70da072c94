# SPDX-License-Identifier: Apache-2.0
"""The CIFAR-10 example with real processes on a few synthetic images, and its data's handling."""

from __future__ import annotations

import pickle
from pathlib import Path

import cifar10 as example
import cifar10_data
import pytest
import scripts
import torch
from safetensors.torch import load_file
from scripts import Script, finish, kill
from torch.nn.functional import pad
from waiting import until

import dgs

SMALL = ("--model=small", "--max-version=24", "--batch-size=16", "--evaluate-every=10")


def start(repository: Path, data: Path, *options: object) -> Script:
    return scripts.start(repository / "example" / "cifar10.py", f"--data={data}", *options)


def accuracy(said: str) -> float:
    return float(said.partition("the final model: test accuracy ")[2].partition("%")[0])


@pytest.mark.parametrize(
    "mode", ["dgs", "asgd", *(pytest.param(m, marks=pytest.mark.slow) for m in ("gd", "dgc"))]
)
def test_a_server_and_two_workers(
    repository: Path, synthetic: Path, tmp_path: Path, port: int, mode: str
) -> None:
    folder = tmp_path / "new" / "run"
    common = (*SMALL, f"--mode={mode}", f"--port={port}", "--world-size=3", "--cuda")
    ranks = (
        start(repository, synthetic, *common, f"--checkpoint-dir={folder}", f"--rank={r}") for r in range(3)
    )
    (server, log), *workers = finish(*ranks)
    assert accuracy(server) >= 0
    assert f"{mode} 24/24" in log and "test accuracy" in log and "up " in log and "samples/s" in log, log
    assert torch.cuda.is_available() or "no CUDA device" in log
    assert not any("samples/s" in said for _, said in workers)  # one progress for all
    net = example.make_net("small")
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net.load_state_dict(load_file(folder / "latest" / "model.safetensors"))
    assert not torch.equal(net.state_dict()["0.weight"], before["0.weight"])
    assert not torch.equal(net.state_dict()["1.running_mean"], before["1.running_mean"])


def test_killed_and_started_again_it_goes_on(
    repository: Path, synthetic: Path, tmp_path: Path, port: int
) -> None:
    common = ("--model=small", "--batch-size=8", "--world-size=2", f"--port={port}", "--max-version=100000")
    saving = (*common, f"--checkpoint-dir={tmp_path}", "--checkpoint-every=0.2", "--rank=0")
    first = [start(repository, synthetic, *saving), start(repository, synthetic, *common, "--rank=1")]
    try:
        until(lambda: reached(tmp_path) > 5, "a checkpoint of a later version", 120)
    finally:
        kill(*first)
    before = reached(tmp_path)
    end = f"--max-version={before + 10}"
    again = (
        start(repository, synthetic, *saving, end, "--checkpoint-resume"),
        start(repository, synthetic, *common, end, "--rank=1"),
    )
    (_, log), _ = finish(*again)
    assert f"going on from {tmp_path}" in log and "worker 1 finished after 10 exchanges" in log, log
    assert reached(tmp_path) == before + 10


def reached(folder: Path) -> int:
    """The version of the newest checkpoint, 0 before the first."""
    return max((int(path.name.rpartition("-")[2]) for path in folder.glob("0*-version-*")), default=0)


def test_plain_sgd_learns_what_can_be_learned_and_resumes(
    repository: Path, synthetic: Path, tmp_path: Path
) -> None:
    options = ("--model=small", "--batch-size=32", "--mode=sgd", f"--checkpoint-dir={tmp_path}")
    ((said, _),) = finish(start(repository, synthetic, *options, "--max-version=60"))
    assert accuracy(said) > 60, said
    ((again, log),) = finish(
        start(repository, synthetic, *options, "--max-version=62", "--checkpoint-resume", "--no-progress")
    )
    assert accuracy(again) > 60 and "sgd" not in log, log
    assert dgs.checkpoint.load(tmp_path / "sgd.safetensors")["optimizer"]["session"]["steps"] == 62


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


def test_a_batch_that_would_run_code_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "test_batch").write_bytes(pickle.dumps(print))
    with pytest.raises(SystemExit, match=r"test_batch is no batch of CIFAR-10: it names builtins.print"):
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
    options = ("--model=small", "--epochs=4", "--world-size=3", f"--port={port}")
    processes = [start(repository, cifar10, *options, f"--rank={rank}") for rank in range(3)]
    (said, _), *_ = finish(*processes, seconds=1700)
    assert accuracy(said) >= 65, said
