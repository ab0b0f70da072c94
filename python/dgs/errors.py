# SPDX-License-Identifier: Apache-2.0
"""Every error the library raises, under one base class; docs/errors.md says what may still be trusted after each."""

from __future__ import annotations

from dgs_ext.errors import BuildError, DGSError, FrameError

__all__ = [
    "AuthenticationError",
    "BuildError",
    "CheckpointError",
    "ConfigError",
    "DGSError",
    "DivergedError",
    "DriftError",
    "FrameError",
    "FrameTooLargeError",
    "LayoutError",
    "LinkClosedError",
    "LinkTimeoutError",
    "NonFiniteGradientError",
    "NotConnectedError",
    "PortInUseError",
    "ProtocolError",
    "RefusedError",
    "ServerLostError",
    "ServerUnreachableError",
    "TransportError",
]


class ConfigError(DGSError, ValueError):
    """A setting is out of range, contradicts another, or is missing."""


class CheckpointError(DGSError, OSError):
    """A checkpoint cannot be written, or is missing, damaged or not one. Those before it are as they were."""


class LayoutError(DGSError, ValueError):
    """The parameters cannot be laid out: none trainable, not floating point, or unknown to the model."""


class NonFiniteGradientError(DGSError, ArithmeticError):
    """A gradient, or the state it was added to, holds NaN or infinity. Nothing was sent and no state has changed."""

    def __init__(self, message: str, tensor: str) -> None:
        super().__init__(message)
        self.tensor = tensor


class DriftError(DGSError, RuntimeError):
    """The weights are not those of the server's mirror. Nothing was applied on either side."""

    def __init__(self, message: str, tensor: str) -> None:
        super().__init__(message)
        self.tensor = tensor


class TransportError(DGSError, ConnectionError):
    """A link between a worker and the server failed; the link is dead."""


class LinkClosedError(TransportError):
    """The other end closed the link or died."""


class LinkTimeoutError(TransportError, TimeoutError):
    """The other end did not answer in time; the link is dead."""


class FrameTooLargeError(TransportError):
    """A frame is larger than the cap agreed when the session began."""


class NotConnectedError(TransportError):
    """A step before `connect()`, after `close()` or inside `server_model()`. Nothing was sent."""


class ProtocolError(DGSError, RuntimeError):
    """The other end said something that the protocol does not allow at this point."""


class RefusedError(DGSError, RuntimeError):
    """The other end refused a join or a push; `code` says why in one word. The refuser's state is unchanged."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class AuthenticationError(RefusedError):
    """The two ends do not hold the same token."""

    def __init__(self, message: str) -> None:
        super().__init__("token", message)


class DivergedError(RefusedError, ArithmeticError):
    """A push would overflow the server's parameters: the run diverges. Start again with a smaller learning rate."""

    def __init__(self, message: str, tensor: str = "") -> None:
        super().__init__("diverged", message)
        self.tensor = tensor


class ServerUnreachableError(TransportError):
    """No server answered at the address within the connect timeout."""


class ServerLostError(TransportError):
    """The server was lost during the run and could not be joined again. The last push may not have been applied."""


class PortInUseError(TransportError):
    """The server's port is taken by another process."""
