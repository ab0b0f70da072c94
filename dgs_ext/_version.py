# SPDX-License-Identifier: Apache-2.0
"""The version of dgs and dgs_ext, stated once; setup.py reads it from here without importing the package."""

__version__ = "0.1.0"
