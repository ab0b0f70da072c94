# SPDX-License-Identifier: Apache-2.0
"""One self-contained HTML page of one or several runs: python -m dgs.report RUN_DIR [RUN_DIR ...]."""

from __future__ import annotations

from .page import page
from .read import RunData, read

__all__ = ["RunData", "page", "read"]
