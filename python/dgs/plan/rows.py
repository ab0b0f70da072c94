# SPDX-License-Identifier: Apache-2.0
"""What is compared: dense all-reduce, dense asynchronous, and dgs at several densities and codecs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from dgs_ext.wire import Codec

from .. import config
from ..config import CODECS, Settings
from ..errors import ConfigError
from ..layout import Layout
from ..methods import METHODS
from ..simulate.compute import Always, Compute, LogNormal, Straggler
from . import sizes
from .costs import STATED, Costs
from .rates import Exchange, Link, Throughput, all_reduce, asynchronous

_BUSY = 0.9  # of the time: what is busier than this is what limits the rate
ALL_REDUCE = "all-reduce"


@dataclass(frozen=True)
class Case:
    """What is known of a training.

    Args:
        layout: of the model's parameters.
        workers: machines that compute gradients.
        step_time: seconds of a gradient on one of them, forward and backward.
        link: the network.
        costs: what the machines compute for an exchange.
        jitter: deviation of the logarithm of a gradient's time, for which all-reduce waits; 0: always the same.
        straggler: how many times longer one of the workers takes.
        density_down, codec_down, overlap: settings of the same name (dgs.Settings).
        cores: frames that the server handles at once.
    """

    layout: Layout
    workers: int
    step_time: float
    link: Link
    costs: Costs = STATED
    jitter: float = 0.0
    straggler: float = 1.0
    density_down: float | None = None
    codec_down: str | None = None
    overlap: bool = False
    cores: int = 4

    def __post_init__(self) -> None:
        for name in ("workers", "cores"):
            if getattr(self, name) < 1:
                raise ConfigError(f"plan: {name} must be at least 1, got {getattr(self, name)}")
        if self.jitter < 0:
            raise ConfigError(f"plan: jitter must be at least 0, got {self.jitter}")
        _ = self.compute  # refuses what is no time

    @cached_property
    def compute(self) -> Compute:
        """Seconds of a gradient, by worker."""
        one = LogNormal(self.step_time, self.jitter) if self.jitter else Always(self.step_time)
        return one if self.straggler == 1 else Straggler(one, self.straggler)

    @property
    def times(self) -> list[float]:
        """Mean seconds of each worker's gradient."""
        return [self.step_time * self.straggler] + (self.workers - 1) * [self.step_time]

    @property
    def mean_time(self) -> float:
        """Seconds of a gradient, mean over the workers."""
        return sum(self.times) / self.workers


@dataclass(frozen=True, slots=True)
class Row:
    """One way to train, and what a gradient takes in it. Times are seconds, each without its waiting for others.

    Args:
        method: "dgs", "asgd" or "all-reduce".
        density, codec: of what a worker sends; all-reduce's codec is what gradients are cast to.
        bytes_up, bytes_down: of one gradient, through its worker's link.
        compute, select, pack: the worker's own work.
        up, down: on the link; of all-reduce, up is what the backward pass does not hide of the reduction.
        server: the server's work.
        latency: of the messages.
        waiting: for the server and its link, or for the slowest worker.
        rate: gradients a second, of all workers.
        limited_by: what would have to be faster, in words.
        codec_down: of what comes back, by the server's rule if the case names none.
    """

    method: str
    density: float
    codec: str
    bytes_up: float
    bytes_down: float
    compute: float
    select: float
    pack: float
    up: float
    down: float
    server: float
    latency: float
    waiting: float
    rate: float
    limited_by: str
    codec_down: str

    @property
    def step(self) -> float:
        """Seconds between two steps of a worker."""
        own = self.compute + self.select + self.pack
        return own + self.up + self.down + self.server + self.latency + self.waiting

    @property
    def sparse(self) -> bool:
        """Whether the method sends a part at a time, and so has a density."""
        return self.method in METHODS and not METHODS[self.method].dense

    @property
    def name(self) -> str:
        """The row in words."""
        if self.method == ALL_REDUCE:
            return f"dense all-reduce, {self.codec}"
        density = f" {100 * self.density:g} %," if self.sparse else ""
        return f"{self.method},{density} {self.codec}"


def reduced(case: Case, codec: str) -> Row:
    """Dense all-reduce of gradients cast to `codec`."""
    size = CODECS[codec].width * case.layout.numel
    optimizer = case.costs.optimizer.of(case.layout.numel, 0)
    one = all_reduce(case.workers, case.compute, size, optimizer, case.link)
    exposed = one.total - one.slowest - optimizer
    moved = 2 * (case.workers - 1) / case.workers * size
    parts = {"the slowest gradient": one.slowest, "the links": exposed}
    return Row(
        ALL_REDUCE, 1.0, codec, moved, moved, case.mean_time, optimizer, 0.0, exposed, 0.0, 0.0, 0.0,
        max(0.0, one.slowest - case.mean_time), case.workers / one.total, max(parts, key=lambda p: parts[p]), codec,
    )  # fmt: skip


def exchanged(case: Case, mode: str, density: float, codec: str) -> Row:
    """An asynchronous method with those settings. Raises ConfigError where the library refuses them."""
    dense = METHODS[mode].dense
    density = 1.0 if dense else density
    down = {"density_down": case.density_down, "codec_down": case.codec_down}
    settings = config.resolve(None, {}, mode=mode, density=density, codec=codec, **down)
    push, pull, codec_down = _sizes(case, settings, dense)
    numel, link = case.layout.numel, case.link
    select, pack = case.costs.worker(numel, push, pull, dense)
    serve = case.costs.server(numel, push, pull, dense)
    exchange = Exchange(push.bytes, pull.bytes, select + pack, serve)
    seen = asynchronous(case.times, exchange, link, overlap=case.overlap, cores=case.cores)
    parts = {
        "computing": case.mean_time,
        "selection and packing": select + pack,
        "the link, up": 8 * push.bytes / min(link.bandwidth, link.shared),
        "the link, down": 8 * pull.bytes / min(link.bandwidth, link.shared),
        "the server's work": exchange.server,
        "latency": link.delay(push.bytes) + link.delay(pull.bytes),
    }
    compute, _, on_up, on_down, server, latency = parts.values()
    waiting = max(0.0, case.workers / seen.rate - sum(parts.values()))
    return Row(
        mode, density, codec, push.bytes, pull.bytes, compute, select, pack, on_up, on_down, server, latency,
        waiting, seen.rate, _limit(seen, parts), codec_down.name.lower(),
    )  # fmt: skip


def _sizes(case: Case, settings: Settings, dense: bool) -> tuple[sizes.Size, sizes.Size, Codec]:
    up, density = settings.codec_up, settings.density
    if dense:
        return sizes.dense(case.layout, up), sizes.dense(case.layout, Codec.FLOAT32), Codec.FLOAT32
    down = None if settings.codec_down is None else CODECS[settings.codec_down]
    pull = sizes.pull(case.layout, case.workers, density, up, settings.density_down, down)
    return sizes.push(case.layout, density, up), *pull


def _limit(seen: Throughput, parts: dict[str, float]) -> str:
    shared = {
        "the server's link, in": seen.link_in,
        "the server's link, out": seen.link_out,
        "the server's work": seen.server,
    }
    busiest = max(shared, key=lambda name: shared[name])
    return busiest if shared[busiest] > _BUSY else max(parts, key=lambda name: parts[name])
