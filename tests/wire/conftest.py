# SPDX-License-Identifier: Apache-2.0
import sys
from pathlib import Path

# So that the tests here can import reference_decoder and frames under --import-mode=importlib.
sys.path.insert(0, str(Path(__file__).resolve().parent))
