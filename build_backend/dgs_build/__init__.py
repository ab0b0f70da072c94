# SPDX-License-Identifier: Apache-2.0
"""How this repository is built: the in-tree PEP 517 backend and the decisions behind setup.py."""
