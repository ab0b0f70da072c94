# SPDX-License-Identifier: Apache-2.0
"""`python -m dgs_ext`: says what was built, checks it, and notices an op that computes something else."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

import dgs_ext
from dgs_ext import ops, self_check
from dgs_ext.errors import BuildError


def test_report_names_versions_cuda_and_instruction_sets() -> None:
    run = subprocess.run([sys.executable, "-m", "dgs_ext"], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    report = dict(line.split(":", 1) for line in run.stdout.splitlines())
    assert f"torch {dgs_ext.info.torch}" in report["built with"]
    assert f"torch {torch.__version__}" in report["runs on"]
    assert dgs_ext.info.instruction_sets in report["CPU ops"]
    assert (dgs_ext.info.cuda or dgs_ext.info.cuda_reason) in report["CUDA ops"]
    assert "640 of 60000 entries selected" in report["self-check"]


def test_self_check_on_the_gpu(cuda: torch.device) -> None:
    assert self_check.run(cuda) == self_check.run("cpu")


def test_self_check_notices_one_wrong_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    def quantize_badly(values: torch.Tensor, codec: int) -> None:
        values.copy_(values.to(torch.bfloat16))
        values[7] = torch.nextafter(values[7], torch.tensor(float("inf")))

    monkeypatch.setattr(ops, "quantize_", quantize_badly)
    with pytest.raises(BuildError, match=r"on cpu: quantize_ \(values\) differs .* in 1 of 640 places"):
        self_check.run("cpu")
