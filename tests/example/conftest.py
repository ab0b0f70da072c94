# SPDX-License-Identifier: Apache-2.0
"""The examples' own folder on the path, and data for them."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "example"))

ROWS = 60  # images in each synthetic batch
BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with CIFAR-10's binary batches, of a few images that anyone can tell apart."""
    root = tmp_path_factory.mktemp("cifar")
    folder = root / "cifar-10-batches-bin"
    folder.mkdir()
    for name, (labels, pixels) in made().items():
        np.concatenate([labels[:, None], pixels], axis=1).tofile(folder / f"{name}.bin")
    return root


@pytest.fixture(scope="session")
def synthetic_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the same images as CIFAR-10's Python batches."""
    root = tmp_path_factory.mktemp("cifar-python")
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    for name, (labels, pixels) in made().items():
        batch = {b"data": pixels, b"labels": labels.tolist()}
        (folder / name).write_bytes(pickle.dumps(batch))
    return root


def made() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    random = np.random.default_rng(0)
    batches = {}
    for name in BATCHES:
        labels = random.integers(10, size=ROWS, dtype=np.uint8)
        noise = random.integers(40, size=(ROWS, 3072), dtype=np.uint8)
        batches[name] = labels, noise + 20 * labels[:, None]
    return batches
