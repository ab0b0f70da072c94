# SPDX-License-Identifier: Apache-2.0
"""The transformer over a text: what it reads, how little of its table travels, and that it learns."""

from __future__ import annotations

import math
import re
from pathlib import Path

import char_lm as example
import pytest
import torch
from scripts import Script, finish, start

SMALL = ("--width=16", "--layers=1", "--context=16", "--batch-size=8", "--evaluate-every=20", "--write=40")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """Return a text of 64 kB, of which every line is like every other."""
    path = tmp_path / "text.txt"
    path.write_text("the quick brown fox jumps over the lazy dog\n" * 1500)
    return path


def run(repository: Path, text: Path, *options: object) -> Script:
    return start(repository / "example" / "char_lm.py", text, *SMALL, *options)


def test_a_server_and_two_workers(repository: Path, text: Path, port: int) -> None:
    options = ("--max-version=200", f"--port={port}", "--world-size=3", "--show-every=10")
    (server, log), (first, _), (second, _) = finish(
        *(run(repository, text, *options, f"--rank={rank}") for rank in range(3))
    )
    said = re.match(r"the final model: (\d\.\d+) bits per byte\n", server)
    assert said and float(said[1]) < 3.5, server  # a byte drawn from the text's own frequencies: 4.4
    assert "bits per byte" in log and "dgs 200/200" in log, log
    exchanges = re.search(r"worker 1 finished after (\d+) exchanges", log)
    shown = re.findall(r"up ([\d,]+) bytes, down ([\d,]+), dense ([\d,]+),.* (\d+) of its 65,536 rows", first)
    assert exchanges and len(shown) == math.ceil(int(exchanges[1]) / 10) and not second, (log, first)
    for numbers in shown:
        up, down, dense, rows = (int(number.replace(",", "")) for number in numbers)
        assert max(up, down) < dense / 20 and 0 < rows <= 8 * 16


def test_plain_sgd_needs_no_server(repository: Path, text: Path) -> None:
    ((said, log),) = finish(run(repository, text, "--max-version=10", "--mode=sgd"))
    assert said.startswith("the final model: ") and "sgd 10/10" in log


def test_windows_are_a_text_and_what_follows_each_byte(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(bytes(range(250)))
    kept, held_out = example.read(path)
    assert torch.equal(torch.cat([kept, held_out]), torch.arange(250)) and len(held_out) == 25
    read, following = example.windows(kept, torch.tensor([3, 217]), 4, torch.device("cpu"))
    assert read.tolist() == [[3, 4, 5, 6, 7], [217, 218, 219, 220, 221]]
    assert following.tolist() == [[5, 6, 7, 8], [219, 220, 221, 222]]


def test_no_position_sees_what_follows_it() -> None:
    torch.manual_seed(0)
    net = example.CharLM(16, 1, 12).eval()
    torch.nn.init.normal_(net.pairs.weight)
    text = torch.randint(256, (2, 13))
    other = text.clone()
    other[:, 8:] = torch.randint(256, (2, 5))
    with torch.no_grad():
        assert torch.allclose(net(text)[:, :7], net(other)[:, :7], atol=1e-6)
        assert not torch.allclose(net(text)[:, 7:], net(other)[:, 7:], atol=1e-2)
