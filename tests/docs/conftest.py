# SPDX-License-Identifier: Apache-2.0
"""What the tests of the documentation share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # blocks, shell, stages, sources


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The nets are small and the machine may be busy; servers and workers set a number of their own, too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
