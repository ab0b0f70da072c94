# SPDX-License-Identifier: Apache-2.0
"""Makes one HTML page of the folders of one or several runs, and prints its first table.

python -m dgs.report runs/dgs runs/asgd --out report.html
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..errors import ConfigError, DGSError
from . import page, read, table


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m dgs.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run_dir", nargs="+", type=Path, help="what run_dir named in a run, over or going on")
    parser.add_argument(
        "--out", type=Path, help="by default report.html: of one run in its folder, of several where you are"
    )
    args = parser.parse_args()
    runs = [read(folder) for folder in args.run_dir]
    out = args.out or (args.run_dir[0] if len(runs) == 1 else Path()) / "report.html"
    try:
        out.write_text(page(runs))
    except OSError as error:
        raise ConfigError(f"--out {out} cannot be written: {error.strerror or error}") from None
    print(f"{table(runs)}\n\n{out}")


if __name__ == "__main__":
    try:
        main()
    except DGSError as error:
        sys.exit(f"python -m dgs.report: {error}")
