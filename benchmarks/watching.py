# SPDX-License-Identifier: Apache-2.0
"""What it costs a run to be watched: exchanges with a server that writes, that is scraped, and that does neither.

    python benchmarks/watching.py

Server and worker are threads of this process: its CPU time is that of both, and of all that is done beside exchanges,
however busy the machine is with others. Each round has a server of its own for each contestant, which records once a
second, as by default. The scraped one is scraped once in the round, about once a second as well.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from harness import table
from torch import nn

import dgs
from dgs.transport import InProcessListener
from dgs.transport.address import held

WIDTH = 256  # of two layers: 131,584 parameters, few enough for the watching to show
SAMPLES = 32
CONTESTANTS = {  # name -> whether it writes, whether it is scraped
    "unwatched": (False, False),
    "run_dir": (True, False),
    "Prometheus": (False, True),
    "both": (True, True),
}


Times = list[tuple[float, float]]


@dataclass(frozen=True)
class Worker:
    """The only one of its server, whose gradients are there already."""

    optimizer: dgs.GradientSGD
    url: str | None  # of the server's endpoint

    def steps(self, count: int) -> None:
        """Exchanges, with a scrape meanwhile."""
        scrape = threading.Thread(target=self.scraped)
        scrape.start()
        for _ in range(count):
            self.optimizer.step()
            self.optimizer.observe(1.0, samples=SAMPLES)
        scrape.join()

    def scraped(self) -> str:
        return "" if self.url is None else str(urllib.request.urlopen(self.url, timeout=60).read(), "utf-8")


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH))


@contextmanager
def serving(folder: Path | None, scraped: bool) -> Iterator[Worker]:
    """A server in a thread, with its worker."""
    with held() as port:
        yield from _serving(folder, port if scraped else None)


def _serving(folder: Path | None, port: int | None) -> Iterator[Worker]:
    settings: dict[str, Any] = {"run_dir": str(folder)} if folder else {}
    settings |= {} if port is None else {"prometheus_port": port}
    listener, model = InProcessListener(), net()
    for p in model.parameters():
        p.grad = 1e-3 * torch.randn_like(p)
    serve = partial(dgs.init_server, None, net(), listener=listener, world_size=2, threads=1, **settings)
    thread = threading.Thread(target=serve)
    thread.start()
    dial = lambda _: listener.dial()  # noqa: E731
    optimizer = dgs.GradientSGD(model.parameters(), 1e-3, model, dial=dial, threads=1)
    yield Worker(optimizer, None if port is None else f"http://127.0.0.1:{port}/metrics")
    optimizer.close()
    thread.join()


def timed(folder: Path | None, scraped: bool, steps: int) -> tuple[float, float]:
    """CPU seconds, and seconds, of `steps` exchanges with a new server."""
    with serving(folder, scraped) as worker:
        worker.steps(10)  # take room
        cpu, began = time.process_time(), time.perf_counter()
        worker.steps(steps)
        return time.process_time() - cpu, time.perf_counter() - began


def verify(folder: Path, steps: int) -> None:
    """What is written and what is scraped is what happened."""
    with serving(folder, scraped=True) as worker:
        worker.steps(steps)
        text = worker.scraped()
    told = json.loads((folder / "summary.json").read_text())
    assert told["version"] == steps and told["workers"][0]["samples"] == SAMPLES * steps, told
    assert 'dgs_exchange_seconds_count{worker="1"}' in text, text


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=300, help="exchanges in a round")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--smoke", action="store_true", help="too short to mean anything")
    args = parser.parse_args()
    steps, rounds = (20, 2) if args.smoke else (args.steps, args.rounds)
    times: dict[str, Times] = {name: [] for name in CONTESTANTS}
    with tempfile.TemporaryDirectory() as made:
        verify(Path(made) / "verified", steps)
        for number in range(rounds):
            turn = number % len(CONTESTANTS)  # who is first changes, as it may pay for the others
            for name in [*CONTESTANTS, *CONTESTANTS][turn : turn + len(CONTESTANTS)]:
                writes, scraped = CONTESTANTS[name]
                folder = Path(made) / name / str(number) if writes else None
                times[name].append(timed(folder, scraped, steps))
    rows = [
        (
            name,
            *compared(found, times["unwatched"], steps),
            statistics.median(t for _, t in found) / steps * 1e6,
        )
        for name, found in times.items()
    ]
    parameters = sum(p.numel() for p in net().parameters())
    title = f"µs of CPU time an exchange, {parameters:,} parameters, medians of {rounds} rounds of {steps}"
    print(table(title, ("", "µs", "more", "ratio", "µs by the clock"), rows))


def compared(found: Times, unwatched: Times, steps: int) -> tuple[float, float, float]:
    """Microseconds of an exchange, how many more than unwatched in the same round, and the ratio of the two."""
    pairs = [(a, b) for (a, _), (b, _) in zip(found, unwatched, strict=True)]
    own, more = statistics.median(a for a, _ in pairs), statistics.median(a - b for a, b in pairs)
    return 1e6 * own / steps, 1e6 * more / steps, statistics.median(a / b for a, b in pairs)


if __name__ == "__main__":
    main()
