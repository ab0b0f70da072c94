# SPDX-License-Identifier: Apache-2.0
"""Becomes the program of its arguments, and is told to end when its parent dies: `tied.py PARENT PROGRAM …`.

A file to be run by itself, for what subprocess would do between fork and exec is not safe beside numpy's threads.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h; it outlives exec


def main(parent: int, program: list[str]) -> None:
    """Does not return."""
    # SIGTERM: the server still writes its last checkpoint.
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0):
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent:  # it has died already
        sys.exit(128 + signal.SIGTERM)
    os.execv(program[0], program)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
