# SPDX-License-Identifier: Apache-2.0
"""A folder of images per class, as batches: by NVIDIA DALI on a GPU or on the CPU, or by torchvision; all alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pixels in [0, 1]
AREA, ASPECT = (0.08, 1.0), (3 / 4, 4 / 3)  # of a random crop
MARGIN = 256 / 224  # a picture's shorter side to the central crop that is tested

Batch = tuple[
    Tensor, Tensor
]  # normalised images float32 [n, 3, size, size] and labels int64 [n], on the device


class Loader(Protocol):
    """Each iteration is one pass over this process's share of the images, in another order every time."""

    def __iter__(self) -> Iterator[Batch]: ...


@dataclass(frozen=True)
class Reading:
    """What to read: part `index` of `parts` of the images in `folder`, one folder in it per class."""

    folder: Path
    train: bool  # shuffled and augmented; else the central crop of each image, in order
    size: int  # pixels
    batch: int
    index: int = 0
    parts: int = 1
    threads: int = 2
    seed: int = 0  # of the augmentation; the order of the images is the same for all


def default_loader() -> str:
    """The quickest of the loaders that are installed."""
    return "dali" if find_spec("nvidia") and find_spec("nvidia.dali") else "torchvision"


def endless(loader: Loader) -> Iterator[Batch]:
    """Pass after pass."""
    while True:
        yield from loader


def dali(reading: Reading, device: torch.device) -> Loader:
    """Batches from DALI: decoded (nvJPEG), cropped and normalised on the GPU if `device` is one, else on the CPU."""
    try:
        from nvidia.dali.plugin.base_iterator import LastBatchPolicy
        from nvidia.dali.plugin.pytorch import DALIClassificationIterator
    except ImportError as error:
        raise SystemExit(
            f"--loader dali: NVIDIA DALI is not installed ({error}). pip install -r requirements-dali.txt where the "
            "driver is of CUDA 12, nvidia-dali-cuda130 where it is of 13, or take --loader torchvision"
        ) from error
    batches = DALIClassificationIterator(
        pipeline(reading, device.type, device.index or 0 if device.type == "cuda" else None),
        reader_name="Reader",
        last_batch_policy=LastBatchPolicy.PARTIAL,
        auto_reset=True,
    )
    return _Dali(batches)


def pipeline(reading: Reading, kind: str, number: int | None) -> Any:
    """DALI's graph from files to normalised images on the device of that kind, cuda or cpu, and number."""
    from nvidia.dali import fn, pipeline_def, types

    decoder = {"device": "mixed" if kind == "cuda" else "cpu", "adjust_orientation": False}

    @pipeline_def
    def graph() -> tuple[Any, Any]:
        files, labels = fn.readers.file(
            name="Reader",
            file_root=str(reading.folder),
            shard_id=reading.index,
            num_shards=reading.parts,
            # Shuffled anew for every pass, by the same seed in every process: so the shards stay apart.
            shuffle_after_epoch=reading.train,
            # Else a pass begins where the last batch of the one before it ended: some images twice, some not at all.
            pad_last_batch=True,
        )
        if reading.train:
            images = fn.decoders.image_random_crop(
                files, random_area=AREA, random_aspect_ratio=ASPECT, **decoder
            )
            images = fn.resize(images, size=[reading.size, reading.size])
        else:
            images = fn.decoders.image(files, **decoder)
            images = fn.resize(images, resize_shorter=round(MARGIN * reading.size))
        images = fn.crop_mirror_normalize(
            images,
            crop=(reading.size, reading.size),
            mirror=fn.random.coin_flip() if reading.train else 0,
            mean=[255 * x for x in MEAN],
            std=[255 * x for x in STD],
            dtype=types.FLOAT,
            output_layout="CHW",
        )
        return images, labels.gpu() if kind == "cuda" else labels

    return graph(batch_size=reading.batch, num_threads=reading.threads, device_id=number, seed=reading.seed)


class _Dali:
    def __init__(self, batches: Any) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[Batch]:
        for (batch,) in self._batches:
            yield batch["data"], batch["label"].squeeze(1).long()


def torchvision(reading: Reading, device: torch.device) -> Loader:
    """The same batches from torchvision, in processes beside this one."""
    size = reading.size
    if reading.train:
        steps = [v2.RandomResizedCrop(size, AREA, ASPECT, antialias=True), v2.RandomHorizontalFlip()]
    else:
        steps = [v2.Resize(round(MARGIN * size), antialias=True), v2.CenterCrop(size)]
    normalise = (v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD))
    images = ImageFolder(str(reading.folder), v2.Compose([v2.ToImage(), *steps, *normalise]))
    return _Torchvision(
        DataLoader(
            images,
            reading.batch,
            sampler=Share(len(images), reading),
            num_workers=reading.threads,
            persistent_workers=reading.threads > 0,
            pin_memory=device.type == "cuda",
            generator=torch.Generator().manual_seed(reading.seed),
        ),
        device,
    )


class Share(Sampler[int]):
    """Every so-many-th image of a pass, in an order that all processes draw alike: together they see each once."""

    def __init__(self, count: int, reading: Reading) -> None:
        self._count, self._reading, self._passes = count, reading, 0

    def __len__(self) -> int:
        return len(range(self._reading.index, self._count, self._reading.parts))

    def __iter__(self) -> Iterator[int]:
        order = torch.arange(self._count)
        if self._reading.train:
            order = torch.randperm(self._count, generator=torch.Generator().manual_seed(self._passes))
        self._passes += 1
        yield from order[self._reading.index :: self._reading.parts].tolist()


class _Torchvision:
    def __init__(self, batches: DataLoader[Batch], device: torch.device) -> None:
        self._batches, self._device = batches, device

    def __iter__(self) -> Iterator[Batch]:
        for images, labels in self._batches:
            yield images.to(self._device, non_blocking=True), labels.to(self._device, non_blocking=True)


LOADERS = {"dali": dali, "torchvision": torchvision}
