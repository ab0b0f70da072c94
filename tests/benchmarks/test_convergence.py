# SPDX-License-Identifier: Apache-2.0
"""The convergence benchmark on a few images that anyone can tell apart: it searches, trains, resumes and reports."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tqdm")
pytest.importorskip("matplotlib")

ROWS = 40  # images in each batch file


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with CIFAR-10's binary batches, of classes that differ in brightness."""
    root = tmp_path_factory.mktemp("cifar")
    (root / "cifar-10-batches-bin").mkdir()
    random = np.random.default_rng(0)
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        labels = random.integers(10, size=(ROWS, 1), dtype=np.uint8)
        pixels = random.integers(30, size=(ROWS, 3072), dtype=np.uint8) + 20 * labels
        np.concatenate([labels, pixels], axis=1).tofile(root / "cifar-10-batches-bin" / f"{name}.bin")
    return root


def run(repository: Path, images: Path, out: Path, *more: str) -> list[dict[str, object]]:
    command = [sys.executable, str(repository / "benchmarks" / "convergence.py"), "--data", str(images),
               "--out", str(out), "--setups", "sgd", "dgs", "dgs, 1 % down", "--workers", "2", "--batch-size", "10",
               "--epochs", "2", "--grid-epochs", "1", "--rates", "0.05", "0.1", "0.2", *more]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def test_rates_are_searched_runs_resumed_and_results_reported(
    repository: Path, images: Path, tmp_path: Path
) -> None:
    records = run(repository, images, tmp_path, "--seeds", "1")
    best = {}
    for method in ("sgd", "dgs"):
        short, long = (
            {r["rate"]: r["validation"] for r in records if r["name"] == method and r["epochs"] == epochs}
            for epochs in (1, 2)
        )
        first = max(short, key=short.__getitem__)
        assert len(short) == 6 or min(short) < first < max(short)
        assert min(long) == first
        best[method] = max(long, key=long.__getitem__)
        assert len(long) == 6 or long[max(long)] < long[best[method]] - 0.01
    last = records[-1]
    assert (last["name"], last["rate"], last["steps"]) == ("dgs, 1 % down", best["dgs"], 36)
    dense = 4 * 308_650
    assert 0 < last["up"] < dense / 20
    assert 0 < last["down"] < dense / 20

    lines = (tmp_path / "results.jsonl").read_text()
    with (tmp_path / "results.jsonl").open("a") as file:
        file.write('{"key": "torn')
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- figures -->\nold\n<!-- end of figures -->\nafter\n")
    again = run(repository, images, tmp_path, "--seeds", "2", "--page", str(page))
    assert (tmp_path / "results.jsonl").read_text().startswith(lines)
    added = [(r["name"], r["seed"], r["rate"]) for r in again[len(records) :]]
    assert added == [("sgd", 1, best["sgd"]), ("dgs", 1, best["dgs"])]
    table, _, search = (tmp_path / "table.md").read_text().partition("\n\n")
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:]] == ["sgd", "dgs", "dgs, 1 % down"]
    assert [line.split("|")[1].strip() for line in search.splitlines()[2:]] == ["sgd", "sgd", "dgs", "dgs"]
    written = page.read_text()
    assert written.startswith("before\n<!-- figures -->\n| ")
    assert written.endswith("<!-- end of figures -->\nafter\n")
    assert table in written
    assert search in written
    assert page.with_suffix(".png").exists()
    assert (tmp_path / "curves.png").stat().st_size > 10_000


def test_codecs_are_compared_at_equal_bytes(repository: Path, images: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(repository / "benchmarks" / "frontier_cifar.py"), "--data", str(images),
               "--out", str(tmp_path), "--codecs", "float32", "level3", "--workers", "2", "--batch-size", "10",
               "--epochs", "1", "--seeds", "1"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "frontier_cifar.jsonl").read_text().splitlines()]
    assert [(row["codec"], row["status"]) for row in rows] == [("float32", "ok"), ("level3", "ok")]
    assert rows[0]["density"] == pytest.approx(0.01, rel=1e-3)
    assert rows[1]["density"] > 0.05
    assert rows[1]["up"] == pytest.approx(rows[0]["up"], rel=0.1)
    assert "2 workers" in done.stdout and "level3" in done.stdout


def test_what_settings_do_is_compared(repository: Path) -> None:
    command = [sys.executable, str(repository / "benchmarks" / "asynchrony.py"), "--seeds", "1", "--steps", "40",
               "--modes", "dgs"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "dgs on, slow network" in done.stdout
    assert "dgs on, 4 of 8 leave" in done.stdout


def test_throughput_is_predicted_and_measured(repository: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(repository / "benchmarks" / "simulation.py"), "--workers", "2", "--modes", "dgs",
               "--steps", "8", "--scale", "8", "--out", str(tmp_path / "figures.json")]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads((tmp_path / "figures.json").read_text())
    assert row["run"] == "dgs × 2"
    assert row["error %"] == pytest.approx(100 * (row["predicted/s"] / row["measured/s"] - 1))
    assert 0 < row["predicted/s"] < 2 / 0.1
