# SPDX-License-Identifier: Apache-2.0
"""CIFAR-10 in memory: read from the official batches, shuffled, augmented and normalised as tensors."""

from __future__ import annotations

import fcntl
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

IMAGES = 50_000  # to train on

Images = tuple[Tensor, Tensor]  # uint8 [n, 3, 32, 32] and labels int64 [n]

_SIDE, _MARGIN = 32, 4
_MEAN = torch.tensor([125.3, 123.0, 113.9]).view(3, 1, 1)
_STD = torch.tensor([63.0, 62.1, 66.7]).view(3, 1, 1)


def load(root: Path, *, train: bool) -> Images:
    """The images to train on or to test with, from the binary or the Python version in `root`; else downloads."""
    names = [f"data_batch_{i}" for i in range(1, 6)] if train else ["test_batch"]
    binary, python = root / "cifar-10-batches-bin", root / "cifar-10-batches-py"
    if not binary.is_dir() and not python.is_dir():
        _download(root)
    if binary.is_dir():
        read = [_binary(binary / f"{name}.bin") for name in names]
    else:
        read = [_python(python / name) for name in names]
    pixels, labels = (np.concatenate(parts) for parts in zip(*read, strict=True))
    return torch.from_numpy(pixels).view(-1, 3, _SIDE, _SIDE), torch.from_numpy(labels.astype(np.int64))


def _binary(path: Path) -> tuple[np.ndarray, np.ndarray]:
    rows = np.fromfile(path, np.uint8)
    if rows.size == 0 or rows.size % 3073:
        raise SystemExit(f"{path} must hold rows of 3073 bytes, and holds {rows.size} bytes: unpack it again")
    rows = rows.reshape(-1, 3073)
    return rows[:, 1:], rows[:, 0]


class _Arrays(pickle.Unpickler):
    """The official format, which is a pickle; of arrays and no more, so that it cannot bring code."""

    def find_class(self, module: str, name: str) -> Any:
        known = {"ndarray", "dtype", "_reconstruct", "_frombuffer"}
        if module.partition(".")[0] != "numpy" or name not in known:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return super().find_class(module, name)


def _python(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        with path.open("rb") as file:
            batch = _Arrays(file, encoding="bytes").load()
    except (pickle.UnpicklingError, EOFError) as error:
        raise SystemExit(f"{path} is no batch of CIFAR-10: {error}") from None
    return batch[b"data"], np.array(batch[b"labels"])


def _download(root: Path) -> None:
    """Fetches the Python version; the processes of one machine take turns, and the second finds it there."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            from torchvision.datasets import CIFAR10

            CIFAR10(str(root), download=True)
        except (ImportError, OSError, RuntimeError) as error:
            raise SystemExit(
                f"{root} holds neither cifar-10-batches-bin nor cifar-10-batches-py, and downloading failed: "
                f"{error}\nName a folder that does (--data), or unpack in it "
                "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
            ) from error


def batches(data: Images, size: int, index: int, workers: int) -> Iterator[Images]:
    """Augmented batches without end, of the worker with number `index`.

    All workers shuffle alike, and each takes every so-many-th image: together they see each once in a pass.
    """
    images, labels = data
    for seed in range(2**63):
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
        for rows in order[index::workers].split(size):
            yield augmented(images[rows]), labels[rows]


def augmented(images: Tensor) -> Tensor:
    """Each image moved by up to four pixels each way, and half of them mirrored.

    They lie in memory with the channels last, and so then does all of the net's work: a quarter faster on a CPU.
    """
    count, line = len(images), torch.arange(_SIDE)
    top, left = torch.randint(2 * _MARGIN + 1, (2, count, 1, 1))
    mirrored = torch.rand(count, 1, 1) < 0.5
    rows, columns = top + line.view(_SIDE, 1), left + torch.where(mirrored, line.flip(0), line)
    moved = pad(images, [_MARGIN] * 4)[torch.arange(count).view(-1, 1, 1), :, rows, columns]
    return moved.permute(0, 3, 1, 2)


def normalised(images: Tensor, device: torch.device) -> Tensor:
    """Images float32 on `device`, of mean 0 and deviation 1 over the training set."""
    return (images.to(device) - _MEAN.to(device)) / _STD.to(device)
