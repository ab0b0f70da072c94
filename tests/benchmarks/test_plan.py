# SPDX-License-Identifier: Apache-2.0
"""Links of a given rate leave nothing behind, and dgs.plan foretells what real runs over them do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def shaped(scripts: Path) -> ModuleType:
    import shaped

    return shaped


@pytest.fixture
def permitted(shaped: ModuleType) -> None:
    """Skips where the network cannot be shaped, with the reason."""
    reason = shaped.obstacle()
    if reason is not None:
        pytest.skip(f"links cannot be shaped here: {reason}")


@pytest.mark.usefixtures("permitted")
def test_the_machines_reach_each_other_and_are_gone_afterwards(shaped: ModuleType) -> None:
    listening = (
        "import socket; s = socket.create_server(('', 7)); print(flush=True); s.accept()[0].sendall(b'here')"
    )
    asking = "import socket, sys; print(socket.create_connection((sys.argv[1], 7)).recv(4).decode())"
    with pytest.raises(KeyError, match="what went wrong"), shaped.Shaped(2, 1e7) as network:
        command = network.command(0, sys.executable, "-c", listening)
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
            assert first.stdout is not None
            first.stdout.readline()  # it listens
            command = network.command(1, sys.executable, "-c", asking, network.address(0))
            heard = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
            first.kill()
        assert heard.stdout == "here\n", heard.stderr
        assert len(shaped._spaces(network._prefix)) == 3
        raise KeyError("what went wrong")
    assert shaped._spaces(network._prefix) == []


def test_without_the_tools_the_reason_is_said(
    shaped: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shaped.obstacle() == "there is no `ip` (Debian: apt-get install iproute2)"


@pytest.mark.slow
@pytest.mark.usefixtures("permitted")
@pytest.mark.timeout(900)
def test_what_is_foretold_is_seen(scripts: Path, tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    small = ["--rates", "60mbit", "--workers", "2", "--seconds", "30", "--out", str(out)]
    subprocess.run([sys.executable, scripts / "plan.py", *small], check=True, timeout=800)
    rows = json.loads(out.read_text())
    assert [row["run"] for row in rows] == ["dgs × 2", "asgd × 2", "all-reduce × 2"]
    assert all(abs(row["error %"]) < 20 for row in rows), rows
