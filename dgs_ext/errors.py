# SPDX-License-Identifier: Apache-2.0
"""The errors that the compiled parts raise; ``dgs.errors`` re-exports them and adds its own."""

from __future__ import annotations


class DGSError(Exception):
    """Base of every error that this library defines."""


class BuildError(DGSError, ImportError):
    """The compiled part is missing or cannot work with the torch that it was loaded in."""


class FrameError(DGSError, ValueError):
    """A frame, or what was to become one, breaks a rule of docs/wire_format.md.

    Args:
        message: the rule that was broken, in words.
        code: its stable name, e.g. ``"truncated"`` or ``"checksum"``; the page lists them all.
        field: the header field, part of the body or buffer concerned.
        value: what was found there (for values and indices that are refused: the position).

    The decoder's output buffers are garbage after this error and nothing else has changed.
    """

    def __init__(self, message: str, *, code: str, field: str = "", value: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.field = field
        self.value = value

    def __str__(self) -> str:
        return f"[{self.code}] {self.args[0]}"

    def __reduce__(self) -> tuple[object, ...]:
        return (_frame_error, (self.args[0], self.code, self.field, self.value))


def _frame_error(message: str, code: str, field: str, value: int) -> FrameError:
    return FrameError(message, code=code, field=field, value=value)
