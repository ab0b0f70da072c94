# SPDX-License-Identifier: Apache-2.0
"""Every benchmark runs and verifies what it times; its figures are not judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


def start(repository: Path, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a benchmark to its end."""
    command = [sys.executable, str(repository / "benchmarks" / f"{name}.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=240)


def run(repository: Path, name: str, *arguments: str) -> str:
    """Runs a benchmark and returns what it printed."""
    done = start(repository, name, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_packer_is_compared_with_what_else_could_be_sent(repository: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("above\n<!-- packer -->\nold\n<!-- end of packer -->\nbelow\n")
    printed = run(repository, "wire", "--smoke", "--page", str(page))
    text = page.read_text()
    assert text.startswith("above\n<!-- packer -->\nOne core of ") and text.endswith("packer -->\nbelow\n")
    assert "\nold\n" not in text and "| `float32` |" in text and "| clustered | 1 % |" in text
    assert (tmp_path / "wire.png").read_bytes().startswith(b"\x89PNG")
    record = json.loads((tmp_path / "wire.json").read_text())
    for indices in ("random", "clustered"):
        rows = {row["message"]: row for row in record["rows"] if row["indices"] == indices}
        assert rows.keys() >= {
            "float32",
            "int8",
            "sign",
            "copy (floor)",
            "int32 + float32",
            "zlib",
            "torch.save",
        }
        for name, row in rows.items():
            assert name in printed
            assert min(row["pack_ms"], row["unpack_ms"]) > 0
        assert rows["copy (floor)"]["bytes_per_kept"] == 12 and rows["copy (floor)"]["pack_floors"] == 1
        float32 = rows["float32"]
        assert float32["bytes_per_kept"] * float32["kept"] == pytest.approx(
            64 + (4 + float32["index_bits"] / 8) * float32["kept"]
        )


def test_an_exchange_is_split_into_stages_and_compared_with_plain_torch(
    repository: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page.md"
    page.write_text("above\n<!-- server -->\nold\n<!-- end of server -->\nbelow\n")
    printed = run(repository, "server", "--smoke", "--page", str(page))
    text = page.read_text()
    assert text.startswith("above\n<!-- server -->\n") and text.endswith("<!-- end of server -->\nbelow\n")
    ours = ("this library", "this library, float32 down", "this library, float32 at 1 % down")
    for name in (*ours, "plain torch, float32 down"):
        assert f"| {name}, 2 workers |" in text
    assert "\nold\n" not in text and text.count("|---|") == 3
    assert (tmp_path / "server.png").read_bytes().startswith(b"\x89PNG")
    record = json.loads((tmp_path / "server.json").read_text())
    rows = [(row["plain"], row["codec_down"], row["workers"]) for row in record["exchange"]]
    assert rows == [(False, None, 2), (False, "float32", 2), (False, "float32", 2), (True, "float32", 2)]
    for row in record["exchange"]:
        stages = row["milliseconds"]
        assert list(stages) == ["receive", "wait", "decode", "push", "pull", "encode", "send"]
        assert min(stages.values()) > 0 and f"× {row['workers']}" in printed
        assert row["latency ms"] > 0 and row["MB up"] > 0
        assert (row["MB up"] < row["MB down"]) == (row["density_down"] is None)
    assert [row["size"] for row in record["transport"]] == [256, 1024, 16384, 262144]
    assert all(row["pull_ms"] > 0 and row["plain_ms"] > 0 for row in record["pull"])


def test_a_servers_memory_is_looked_at_on_its_way_through_many_exchanges(
    repository: Path, tmp_path: Path
) -> None:
    of = ("--model", "tiny", "--workers", "2", "--exchanges", "200", "--out", str(tmp_path))
    printed = run(repository, "server", "--parts", "flat", *of)
    points = json.loads((tmp_path / "server.json").read_text())["flat"]
    goals = [2, *range(10, 201, 10)]
    assert all(p["exchanges"] >= goal for p, goal in zip(points, goals, strict=True))
    assert points[-1]["exchanges"] == 200 and "94,972 parameters" in printed
    assert all(p["megabytes"] > 2 * 4 * 94_972 / 1e6 and p["threads"] > 2 for p in points)


def test_kernels_have_floors_baselines_and_a_record(repository: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("above\n<!-- kernels -->\nold\n<!-- end of kernels -->\nbelow\n")
    printed = run(repository, "kernels", "--smoke", "--page", str(page))
    assert "not compiled" not in printed
    text = page.read_text()
    assert text.startswith("above\n<!-- kernels -->\n") and text.endswith("<!-- end of kernels -->\nbelow\n")
    assert "| `dgs` |" in text and "| tiny | 1 % |" in text and "\nold\n" not in text
    assert "Quoted in README.md" in printed
    assert (tmp_path / "kernels.png").read_bytes().startswith(b"\x89PNG")
    record = json.loads((tmp_path / "kernels.json").read_text())
    assert record["machine"]["cores"] > 0
    rows = {row["step"]: row for row in record["rows"]}
    assert rows.keys() >= {"dgs", "gd", "dgc", "pull", "asgd", "select"}
    for name, row in rows.items():
        assert name in printed
        assert row["verified"] == row["numel"]
        assert row["times_floor"] == pytest.approx(row["ms"] / row["floor_ms"])
        assert row["floor_ms"] == min(ms for who, ms in row["others"].items() if who.startswith("floor"))
        apart = [ms for who, ms in row["others"].items() if who.endswith("the cache")] or [row["floor_ms"]]
        assert row["times_streams"] == pytest.approx(row["ms"] / min(apart))
    assert rows["pull"]["times_streams"] == rows["pull"]["times_floor"], "it writes in place"
    dgs = rows["dgs"]
    assert dgs["faster"] == pytest.approx(
        min(dgs["others"][name] for name in ("topk", "kthvalue")) / dgs["ms"]
    )


def test_what_is_read_twice_is_counted_and_judged(repository: Path, tmp_path: Path) -> None:
    counts = tmp_path / "recorded.json"
    printed = run(repository, "recorded", "--smoke", "--methods", "dgs", "--out", str(counts))
    record = json.loads(counts.read_text())
    assert [(r["method"], r["steps"]) for r in record] == [("dgs", 3)] * 2
    assert all(0 <= r["worst_step"] <= r["read_again"] <= 3 * r["parameters"] for r in record)
    assert "small ResNet on CIFAR-10" in printed
    assert "transformer on a text" in printed
    refused = start(repository, "recorded", "--smoke", "--methods", "dgs", "--limit", "-0.01")
    assert refused.returncode == 1
    assert "were read a second time, more than -1.0%" in refused.stderr
