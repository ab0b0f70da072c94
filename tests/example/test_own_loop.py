# SPDX-License-Identifier: Apache-2.0
"""The smallest example, which is to be copied: it runs, it learns, and it fits on a screen."""

from __future__ import annotations

from pathlib import Path

from scripts import finish, start

PARAMETERS = 3 * 256 + 257 * 256 + 257 * 4


def test_a_server_and_two_workers(repository: Path, port: int) -> None:
    script = repository / "example" / "own_loop.py"
    places: list[dict[str, str]] = [
        {"RANK": "0", "WORLD_SIZE": "3"},  # as torchrun and dgs.launch set it
        {"SLURM_STEP_ID": "0", "SLURM_PROCID": "1", "SLURM_NTASKS": "3"},
        {"WORLD_SIZE": "3"},
    ]
    options: list[list[str]] = [[], [], ["--rank=2"]]
    (server, _), *workers = finish(
        *(
            start(script, "--max-version=400", *given, MASTER_PORT=str(port), **place)
            for given, place in zip(options, places, strict=True)
        )
    )
    accuracy = float(server.partition("accuracy ")[2].partition("%")[0])
    assert accuracy > 60, server  # the most frequent ring has 44 %
    for said, _ in workers:
        assert int(said.split()[0].replace(",", "")) < 4 * PARAMETERS / 30, said


def test_the_examples_stay_small(repository: Path) -> None:
    lines = {p.name: len(p.read_text().splitlines()) for p in (repository / "example").glob("*.py")}
    assert lines.pop("own_loop.py") <= 45
    assert not [name for name, count in lines.items() if count >= 200]
