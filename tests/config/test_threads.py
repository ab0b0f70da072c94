# SPDX-License-Identifier: Apache-2.0
"""How many threads a process uses, so that several on one machine do not fight over the cores."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dgs import GradientSGD
from dgs.config import resolve
from dgs.threads import sensible_threads, share_cores


def threads(
    cores: int, *, server: bool, environ: dict[str, str] | None = None, **keywords: Any
) -> int | None:
    return sensible_threads(resolve(None, {}, **keywords), cores, server=server, environ=environ or {})


@pytest.mark.parametrize(
    ("world_size", "cores", "each"), [(2, 8, 8), (3, 8, 4), (4, 8, 2), (9, 4, 1), (None, 8, 8)]
)
def test_on_one_machine_workers_share_the_cores(world_size: int | None, cores: int, each: int) -> None:
    assert threads(cores, server=False, world_size=world_size) == each
    assert threads(cores, server=True, world_size=world_size) == 1


def test_what_is_set_stands() -> None:
    assert threads(8, server=True, threads=3) == 3
    assert threads(8, server=False, threads=3, environ={"OMP_NUM_THREADS": "1"}) == 3
    assert threads(8, server=False, environ={"OMP_NUM_THREADS": "1"}) is None


def test_a_process_alone_keeps_torchs_own_number_unless_it_is_set() -> None:
    assert threads(8, server=False, mode="sgd") is None
    before = torch.get_num_threads()
    parameter = torch.nn.Parameter(torch.zeros(1))
    try:
        GradientSGD([parameter], mode="sgd", threads=before + 1)
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def test_with_a_master_elsewhere_only_the_launcher_knows_how_many_share_the_machine() -> None:
    assert threads(8, server=False, master="192.0.2.1", world_size=9) is None
    assert threads(8, server=False, master="192.0.2.1", environ={"LOCAL_WORLD_SIZE": "3"}) == 4


@pytest.mark.parametrize(("cores", "each"), [(1, 1), (2, 1), (4, 2), (16, 4), (60, 7)])
def test_a_server_with_a_machine_of_its_own_divides_it_among_frames_and_threads(cores: int, each: int) -> None:
    assert threads(cores, server=True, master="192.0.2.1") == each


def test_a_name_that_does_not_resolve_leaves_torchs_own_number() -> None:
    assert threads(8, server=False, master="no-such-host.invalid") is None


def test_the_number_is_given_to_torch() -> None:
    before = torch.get_num_threads()
    try:
        share_cores(resolve(None, {}, threads=before + 1), server=False)
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)
