# SPDX-License-Identifier: Apache-2.0
"""What another thread or process brings about is waited for, never assumed to have come."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(condition: Callable[[], object], what: str = "it came about", seconds: float = 30.0) -> None:
    """Return as soon as condition() is true; fail after `seconds`, a bound for machines under load."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"after {seconds:g} s: not {what}"
        time.sleep(0.01)
