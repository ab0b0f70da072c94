# SPDX-License-Identifier: Apache-2.0
"""What every transport checks of messages and frames."""

from __future__ import annotations

import json
from typing import Any

from ..errors import FrameTooLargeError, ProtocolError
from .base import MAX_JSON


def check_cap(payload: int, cap: int) -> None:
    """Raises FrameTooLargeError if a payload of that many bytes passes the session's cap."""
    if payload > cap:
        raise FrameTooLargeError(
            f"a frame of {payload} payload bytes passes the session's cap of {cap} bytes"
        )


def parse_json(text: str | bytes) -> dict[str, Any]:
    """A JSON object of at most MAX_JSON bytes, or ProtocolError."""
    if len(text) > MAX_JSON:
        raise ProtocolError(f"a message of {len(text)} bytes passes the limit of {MAX_JSON}")
    try:
        message = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"a message is no JSON: {error}") from None
    if not isinstance(message, dict):
        raise ProtocolError(f"a message is a JSON {type(message).__name__}, not an object")
    return message
