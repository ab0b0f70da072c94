# SPDX-License-Identifier: Apache-2.0
"""Serves a model by itself, without the script of its workers, and keeps it in checkpoints.

    dgs-server mymodels:make_net --master 192.168.1.10 --checkpoint-dir checkpoints --resume

Without --world-size workers come and go until --max-version, SIGTERM or Ctrl-C, each of which ends with a last
checkpoint. Where the folder holds one already, --resume goes on from it, and the model need not be named.
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
from typing import Any

from ..config import resolve
from ..errors import ConfigError, DGSError
from ..options import WORKERS_OWN, add_settings
from ..server import init_server
from . import load_model


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dgs-server", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "model",
        nargs="?",
        help="module:callable, which makes it, or the folder of a checkpoint to begin with",
    )
    parser.add_argument(
        "--model-args", type=_keywords, default={}, help='for the callable: {"num_classes": 100}'
    )
    add_settings(parser, without=WORKERS_OWN, keep="checkpoint_keep", resume="checkpoint_resume")
    return parser


def _keywords(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError(f'must be JSON like {{"num_classes": 100}}, got {text!r}')
    return found


def serve(args: argparse.Namespace) -> None:
    settings = resolve(args, rank=0)
    if settings.checkpoint_dir is None and args.model is not None:  # without either, load_model asks for both
        raise ConfigError("what is trained is kept in checkpoints: give --checkpoint-dir")
    net = load_model(args.model, args.model_args, settings)
    report = init_server(args, net, rank=0)
    print(f"version {report.version}: {settings.checkpoint_dir}/latest/model.safetensors")


def main() -> int:
    args = options().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    sys.path.insert(0, "")  # as for `python -m`: the model's module lies here as a rule
    try:
        serve(args)
    except DGSError as error:
        print(f"dgs-server: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0


if __name__ == "__main__":
    sys.exit(main())
