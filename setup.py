# SPDX-License-Identifier: Apache-2.0
"""What pyproject.toml cannot say: the packages' folders and the compiled modules. See docs/building.md."""

import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from setuptools import __version__ as setuptools_version
from setuptools import find_packages, setup
from setuptools.command.build import build

if int(setuptools_version.partition(".")[0]) < 77:  # the first that reads pyproject.toml's licence
    sys.exit(
        f"building dgs needs setuptools 77 or newer, and setuptools {setuptools_version} is installed here; run:"
        " pip install --upgrade setuptools, or leave --no-build-isolation away"
    )

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "build_backend"))  # also when run as `python setup.py`, without the backend

from dgs_build import modules  # noqa: E402

if find_spec("torch") is not None:
    from dgs_build.build_ext import BuildExt
else:
    from dgs_build.no_torch import BuildExt


class Build(build):
    """setuptools' build, from an empty staging folder: an old one holds files that have left the sources."""

    def run(self) -> None:
        """Empty the staging folder (objects lie elsewhere and are kept), then build."""
        shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()


setup(
    packages=find_packages("python") + find_packages(".", include=["dgs_ext", "dgs_ext.*"]),
    package_dir={"": "python", "dgs_ext": "dgs_ext"},
    ext_modules=modules.plain(("_cpu", "_wire")),
    cmdclass={"build": Build, "build_ext": BuildExt},
)
