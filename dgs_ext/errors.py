# SPDX-License-Identifier: Apache-2.0
"""The base of every error that dgs raises, and the two that the compiled modules raise themselves."""


class DGSError(Exception):
    """Base class of all errors of this library."""


class FrameError(DGSError, ValueError):
    """A frame that cannot be read or written; the message names the field."""


class BuildError(DGSError, ImportError):
    """The compiled modules are missing, or do not fit the torch, Python or machine at hand."""
