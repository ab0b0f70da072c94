# SPDX-License-Identifier: Apache-2.0
"""Starts a script as the server and as each of its workers, on this machine.

    python -m dgs.launch --workers 4 train.py --epochs 3
    python -m dgs.launch --workers 4 -m package.train --epochs 3

What they say is shown behind their names. Ctrl-C and SIGTERM are passed on once; a second one, half a second later
or more, kills. A worker that dies is not started again, and the others go on. The exit code is the first that is
not 0, and 128 + n of signal n.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from ..errors import DGSError
from . import launch


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dgs.launch", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, required=True, help="how many, beside the server")
    parser.add_argument(
        "--port", type=int, default=0, help="the server's, on loopback; by default a free one"
    )
    parser.add_argument(
        "-m", "--module", action="store_true", help="script names a module, as after python -m"
    )
    parser.add_argument("script", help="takes its rank from RANK, as under torchrun, or leaves that to dgs")
    rest = parser.add_argument("args", nargs=argparse.REMAINDER, help="the script's own")
    rest.required = False  # which argparse takes it for
    return parser


def main() -> int:
    parser = options()
    args = parser.parse_args()
    if not args.module and not Path(args.script).exists():
        parser.error(f"there is no script {args.script}")
    program = [*(["-m"] if args.module else []), args.script, *args.args]
    try:
        return launch(program, args.workers, port=args.port)
    except BrokenPipeError:  # as of `| head`; nor can Python flush what is left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


if __name__ == "__main__":
    try:
        sys.exit(main())
    except DGSError as error:
        sys.exit(f"python -m dgs.launch: {error}")
