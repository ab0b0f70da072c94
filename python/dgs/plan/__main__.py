# SPDX-License-Identifier: Apache-2.0
"""Says whether dgs pays: a model of the time of a step, against dense all-reduce (docs/plan.md).

python -m dgs.plan --model resnet18 --workers 16 --bandwidth 1gbit --latency 0.5ms --step-time 0.33
python -m dgs.plan --listen 10.0.0.1:29600                            # on the machine that would serve
python -m dgs.plan --server 10.0.0.1:29600 --measure --step-time 0.33   # on one that would train
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from datetime import timedelta

import torch

from ..config import CODECS
from ..errors import ConfigError, DGSError
from ..transport import GlooListener, dial
from ..units import rate, seconds
from . import PAYLOAD, STATED, Case, Link, layout_of, plan, record, text
from .advice import DENSE_CODECS, DENSITIES, SPARSE_CODECS
from .measure import measured
from .probe import answer, measure
from .shapes import KNOWN

_PATIENCE = timedelta(seconds=30)


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dgs.plan", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model",
        default="resnet18",
        help=f"{', '.join(KNOWN)}, a number of parameters (124M), or module:callable",
    )
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--step-time", help="of a gradient on one worker, forward and backward: 0.33, 80ms")
    parser.add_argument("--batch-size", type=int, help="samples of a gradient: rates are in samples then")
    parser.add_argument("--bandwidth", default="1gbit", help="of every machine's link, headers and all")
    parser.add_argument("--server-bandwidth", help="of the server's link, if it has another")
    parser.add_argument("--latency", default="0.1ms", help="one way")
    parser.add_argument(
        "--jitter", type=float, default=0.0, help="deviation of the logarithm of a gradient's time"
    )
    parser.add_argument("--straggler", type=float, default=1.0, help="how many times longer one worker takes")
    parser.add_argument("--server-cores", type=int, default=4, help="frames that the server handles at once")
    parser.add_argument("--density", type=float, nargs="+", default=list(DENSITIES))
    parser.add_argument(
        "--codec", nargs="+", default=list(SPARSE_CODECS), metavar="CODEC", help=", ".join(CODECS)
    )
    parser.add_argument("--density-down", type=float, help="None: the server's own rule")
    parser.add_argument("--codec-down", help="None: the same as up")
    parser.add_argument("--overlap", action="store_true", help="compute while the exchange is under way")
    parser.add_argument(
        "--measure", action="store_true", help="take this machine's costs, not the stated ones"
    )
    parser.add_argument("--device", default="cpu", help="where the worker measured trains")
    parser.add_argument("--threads", type=int, help="torch's, for --measure")
    parser.add_argument("--server", metavar="HOST:PORT", help="measure the link to a --listen there")
    parser.add_argument(
        "--listen", metavar="HOST:PORT", help="answer those who measure their link, until Ctrl-C"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    return parser


def _place(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ConfigError(f"a server must be given as HOST:PORT, got {text!r}")
    return host.strip("[]"), int(port)


def _device(text: str) -> torch.device:
    try:
        return torch.device(text)
    except RuntimeError:
        raise ConfigError(f"--device must be like cpu, cuda or cuda:1, got {text!r}") from None


def link(args: argparse.Namespace) -> Link:
    """The network: as named, or as measured."""
    served = None if args.server_bandwidth is None else PAYLOAD * rate(args.server_bandwidth)
    if args.server is None:
        return Link(PAYLOAD * rate(args.bandwidth), seconds(args.latency), served)
    host, port = _place(args.server)
    wire = dial(host, port, _PATIENCE)
    try:
        found = measure(wire)
    finally:
        wire.close()
    return Link(found.bandwidth, found.latency, served)


def case(args: argparse.Namespace) -> Case:
    """What the options say."""
    if args.step_time is None:
        raise ConfigError(
            "--step-time is needed: what a gradient takes on one of your workers, like 0.33 or 80ms"
        )
    layout = layout_of(args.model)
    if args.threads is not None:
        if args.threads < 1:
            raise ConfigError(f"--threads must be at least 1, got {args.threads}")
        torch.set_num_threads(args.threads)
    return Case(
        layout, args.workers, seconds(args.step_time), link(args),
        measured(layout, _device(args.device)) if args.measure else STATED, args.jitter, args.straggler,
        args.density_down, args.codec_down, args.overlap, args.server_cores,
    )  # fmt: skip


def listen(text: str) -> None:
    """Answers those who measure, until interrupted."""
    host, port = _place(text)
    listener = GlooListener(host, port)
    try:
        print(f"answering at {host}:{listener.port}", flush=True)
        answer(listener)
    finally:
        listener.close()


def main() -> None:
    args = options().parse_args()
    logging.basicConfig(level=logging.INFO if args.listen else logging.WARNING)
    if args.listen:
        listen(args.listen)
        return
    if args.batch_size is not None and args.batch_size < 1:
        raise ConfigError(f"--batch-size must be at least 1, got {args.batch_size}")
    found = plan(case(args), densities=args.density, codecs=args.codec, dense_codecs=DENSE_CODECS)
    print(json.dumps(record(found, args.batch_size), indent=1) if args.json else text(found, args.batch_size))


if __name__ == "__main__":
    try:
        main()
    except DGSError as error:
        sys.exit(f"python -m dgs.plan: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
