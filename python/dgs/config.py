# SPDX-License-Identifier: Apache-2.0
"""Settings, from where they may come: keyword over `args` attribute over environment over default."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any

from dgs_ext.wire import Codec

from .errors import ConfigError
from .methods import ALIASES, LOCAL_METHODS, METHODS, MODES
from .schedules import check_density

CODECS = {codec.name.lower(): codec for codec in Codec if codec is not Codec.BYTES}


def _setting(default: Any, doc: str, env: str | None = None) -> Any:
    return field(default=default, metadata={"doc": doc, "env": env})


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set about a run; each is a keyword, an attribute of `args`, or an environment variable.

    The environment variable of a setting is DGS_<NAME> (DGS_SERVER_CUDA for `cuda`: DGS_CUDA is the build's),
    besides torchrun's RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, and where neither gives a rank or a world size,
    those of a task that Slurm's srun started among several. `sparsity` is accepted for 1 - density.
    """

    mode: str = _setting("dgs", "dgs, asgd, gd, dgc or sgd")
    rank: int | None = _setting(None, "0 serves, 1.. work; None lets the server choose a worker's", "RANK")
    world_size: int | None = _setting(
        None, "server and workers; None: any number comes and goes", "WORLD_SIZE"
    )
    master: str = _setting("127.0.0.1", "the server's host name or address", "MASTER_ADDR")
    port: int = _setting(29500, "the server's port", "MASTER_PORT")
    address: str | None = _setting(
        None, "this process's own address; None: the one that routes to the master"
    )
    token: str | None = _setting(None, "a secret that both ends must hold")
    density: float = _setting(0.01, "fraction of each tensor that a push sends, in (0, 1]")
    density_down: float | None = _setting(None, "the same for a pull; None: what changed since the last one")
    budget_down: float = _setting(
        4.0, "a pull's bytes at most, in those of a push, where density_down is None"
    )
    selection: str = _setting(
        "exact", "of pushes, the server's of pulls: exact, or sampled: the counts float"
    )
    codec: str = _setting(
        "float32", "values on the wire: float32, float16, bfloat16, int8, level4, level3, level2 or sign"
    )
    codec_down: str | None = _setting(
        None, "the same for a pull; None: the worker's, or where that is too wide for the budget, fewer bits"
    )
    dense_below: int = _setting(1024, "tensors of fewer elements are sent whole")
    compress_all: bool = _setting(False, "send no tensor whole")
    clip: float | None = _setting(None, "dgc: clip the gradient's global norm to clip/√workers")
    clip_workers: int | None = _setting(None, "dgc: the workers in clip/√workers; None: those active")
    nesterov: bool = _setting(False, "dgc and sgd: Nesterov momentum")
    dampening: float = _setting(0.0, "sgd: of the momentum")
    maximize: bool = _setting(False, "ascend instead of descend")
    decoupled_weight_decay: bool = _setting(False, "sgd and asgd: decay the weights past the momentum")
    buffers: str = _setting("mean", "batch-norm buffers on the server: mean over workers, first, or none")
    buffers_every: int = _setting(100, "exchanges between two sendings of the buffers")
    exchange_every: int = _setting(1, "steps per exchange; those between are held in the method's state")
    overlap: bool = _setting(False, "exchange while the next batch is computed; its result is a step older")
    flush: bool = _setting(False, "a worker that leaves pushes all that its method's state still holds")
    max_version: int | None = _setting(None, "pushes after which the run is done for everyone")
    connect_timeout: float = _setting(300.0, "seconds that a worker waits for the server")
    exchange_timeout: float = _setting(120.0, "seconds that an exchange may take")
    rejoin_timeout: float = _setting(30.0, "seconds that a worker that lost the server tries to join again")
    heartbeat: float = _setting(2.0, "seconds between a worker's signs of life")
    heartbeat_timeout: float = _setting(30.0, "seconds of silence after which a worker is dropped")
    grace: float = _setting(30.0, "seconds without any worker alive after which the server returns")
    join_timeout: float = _setting(600.0, "seconds that the server waits for the first worker")
    max_workers: int = _setting(1024, "sessions at once")
    checkpoint_dir: str | None = _setting(None, "folder of the server's checkpoints; None: it writes none")
    checkpoint_every: float = _setting(300.0, "seconds between two of them; the last is written at the end")
    checkpoint_keep: int = _setting(3, "how many of them stay")
    checkpoint_resume: bool = _setting(False, "the server goes on from the last of them, if there is one")
    on_drift: str = _setting("raise", "weights altered between exchanges: raise, or snapshot")
    on_nonfinite: str = _setting("raise", "NaN or infinite gradients: raise, or skip the step with a warning")
    threads: int | None = _setting(
        None, "torch's threads in this process; None: cores shared out on one machine"
    )
    run_dir: str | None = _setting(None, "a new folder for the run's numbers, which the server writes")
    metrics_every: float = _setting(1.0, "seconds between two records of the run")
    tensorboard: bool = _setting(False, "write the run's numbers into run_dir for TensorBoard, too")
    progress: bool = _setting(False, "show one progress bar for the run, at the server")
    prometheus_port: int | None = _setting(None, "the server's port for Prometheus; None: it has none")
    prometheus_address: str = _setting("127.0.0.1", "where prometheus_port listens")
    cuda: bool = _setting(False, "train on a GPU (dgs.device); the server: hold the parameters on one")

    def __post_init__(self) -> None:
        _check(self)

    @property
    def local(self) -> bool:
        """Whether the mode trains in one process, without a server."""
        return self.mode in LOCAL_METHODS

    @property
    def sampled(self) -> bool:
        """Whether this end selects by a sampled threshold."""
        return self.selection == "sampled"

    @property
    def codec_up(self) -> Codec:
        return CODECS[self.codec]

    @property
    def codec_pulls(self) -> Codec | None:
        """The codec of all pulls, or None where the server chooses it for each."""
        return None if self.codec_down is None else CODECS[self.codec_down]


def _check(s: Settings) -> None:
    _one_of("mode", s.mode, MODES)
    _one_of("selection", s.selection, ("exact", "sampled"))
    _one_of("codec", s.codec, CODECS)
    _one_of("codec_down", s.codec_down, (None, *CODECS))
    if s.mode in METHODS and METHODS[s.mode].dense and s.codec_up.in_blocks:
        raise ConfigError(
            f"codec {s.codec} loses too much of a dense push, of which mode {s.mode} keeps no rest: use float32, "
            "float16 or bfloat16"
        )
    if s.codec_down == "sign":
        raise ConfigError(
            "codec_down sign was seen to wreck training: where a few of the differences are much larger than the "
            "mean of their block, they take tens of pulls to come (docs/codecs.md); use level3, level2 or int8"
        )
    _one_of("buffers", s.buffers, ("mean", "first", "none"))
    _one_of("on_drift", s.on_drift, ("raise", "snapshot"))
    _one_of("on_nonfinite", s.on_nonfinite, ("raise", "skip"))
    check_density(s.density)
    if s.density_down is not None:
        check_density(s.density_down, "density_down")
    for name, (least, most) in _RANGES.items():
        value = getattr(s, name)
        if value is not None and not least <= value <= most:
            raise ConfigError(f"{name} must be in [{least:g}, {most:g}], got {value}")
    if s.rank is not None and s.world_size is not None and s.rank >= s.world_size:
        raise ConfigError(f"rank must be below world_size = {s.world_size}, got {s.rank}")
    if s.world_size == 1 and not s.local:
        raise ConfigError(
            f"world_size 1 leaves no worker for mode {s.mode}: 1 server + 1 worker is world_size 2 (or mode sgd)"
        )
    if s.local and s.rank:
        raise ConfigError(f"mode {s.mode} runs in one process: rank 0 trains, got rank {s.rank}")
    if s.tensorboard and not s.run_dir:
        raise ConfigError("tensorboard writes into run_dir: give run_dir, too")
    if s.heartbeat_timeout <= s.heartbeat:
        raise ConfigError(
            f"heartbeat_timeout ({s.heartbeat_timeout} s) must exceed heartbeat ({s.heartbeat} s)"
        )


_MANY = 2**53  # counts up to here are exact in JSON
_LONG = 1e9  # seconds, which every timer takes

_RANGES: Mapping[str, tuple[float, float]] = {
    "rank": (0, 65535), "world_size": (1, 65536), "port": (0, 65535), "dense_below": (0, _MANY),
    "clip": (1e-30, 1e30), "clip_workers": (1, 65535), "buffers_every": (1, _MANY), "max_version": (1, _MANY),
    "exchange_every": (1, _MANY), "budget_down": (1, 1e6),
    "connect_timeout": (0, _LONG), "exchange_timeout": (1e-3, _LONG), "rejoin_timeout": (0, _LONG),
    "heartbeat": (1e-3, _LONG), "heartbeat_timeout": (1e-3, _LONG), "grace": (0, _LONG),
    "join_timeout": (0, _LONG), "max_workers": (1, 65535), "threads": (1, 65535),
    "metrics_every": (0.01, _LONG), "prometheus_port": (0, 65535),
    "checkpoint_every": (1e-3, _LONG), "checkpoint_keep": (1, _MANY),
}  # fmt: skip


def _one_of(name: str, value: object, allowed: object) -> None:
    if value not in allowed:  # type: ignore[operator]
        raise ConfigError(f"{name} must be one of {', '.join(map(str, allowed))}, got {value!r}")  # type: ignore[call-overload]


def resolve(args: object | None, environ: Mapping[str, str] | None = None, /, **keywords: Any) -> Settings:
    """Settings from `keywords`, the attributes of `args`, the environment and the defaults, in this order.

    A keyword or attribute that is None counts as not given. Raises ConfigError on a contradiction.
    """
    environ = os.environ if environ is None else environ
    if isinstance(args, Mapping):
        raise ConfigError(
            "args must be an object with attributes, got a mapping: pass it as keywords, **args"
        )
    known = {f.name for f in fields(Settings)}
    unknown = set(keywords) - known - {"sparsity"}
    if unknown:
        raise ConfigError(
            f"unknown setting {sorted(unknown)[0]!r}; the settings are {', '.join(sorted(known))}"
        )
    values: dict[str, Any] = {}
    for layer in (
        _from_environment(environ),
        {name: getattr(args, name, None) for name in (*known, "sparsity")},
        keywords,
    ):
        given = {name: value for name, value in layer.items() if value is not None}
        values |= _without_sparsity(given)
    values["mode"] = ALIASES.get(values.get("mode", "dgs"), values.get("mode", "dgs"))
    return Settings(**{name: _converted(name, value) for name, value in values.items()})


def _without_sparsity(given: dict[str, Any]) -> dict[str, Any]:
    if "sparsity" not in given:
        return given
    sparsity = _as("sparsity", float, given.pop("sparsity"))
    if "density" in given:
        raise ConfigError(f"density ({given['density']}) and sparsity ({sparsity}) are both given; give one")
    if not 0.0 <= sparsity < 1.0:
        raise ConfigError(f"sparsity must be in [0, 1), got {sparsity}")
    return given | {"density": 1.0 - sparsity}


_VARIABLES = {"cuda": "DGS_SERVER_CUDA"}  # where it is not DGS_<NAME>


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = _from_slurm(environ)
    for f in fields(Settings):
        for key in (f.metadata["env"], _VARIABLES.get(f.name, f"DGS_{f.name.upper()}")):
            if key and environ.get(key):
                found[f.name] = environ[key]
    if environ.get("DGS_SPARSITY"):
        found["sparsity"] = environ["DGS_SPARSITY"]
    return found


_PLACE = ("RANK", "WORLD_SIZE", "DGS_RANK", "DGS_WORLD_SIZE")


def _from_slurm(environ: Mapping[str, str]) -> dict[str, str]:
    """Rank and world size of one of srun's tasks; a batch script and a lone task say nothing of a run's."""
    tasks = environ.get("SLURM_NTASKS", "")
    step = environ.get("SLURM_STEP_ID") and environ.get("SLURM_PROCID")  # a batch script has the latter, but no step
    if not step or any(environ.get(name) for name in _PLACE) or not tasks.isdecimal() or int(tasks) < 2:
        return {}
    return {"rank": environ["SLURM_PROCID"], "world_size": tasks}


def _kind(f: Field[Any]) -> type:
    text = str(f.type).partition(" |")[0]
    return {"int": int, "float": float, "bool": bool, "str": str}[text]


def _converted(name: str, value: Any) -> Any:
    return _as(name, _kind(next(f for f in fields(Settings) if f.name == name)), value)


_TRUTH = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


def _as(name: str, kind: type, value: Any) -> Any:
    try:
        if kind is bool and isinstance(value, str):
            return _TRUTH[value.lower()]
        if kind is int and isinstance(value, float) and value != int(value):
            raise ValueError
        return kind(value)
    except (ValueError, TypeError, KeyError, OverflowError):
        raise ConfigError(f"{name} must be {kind.__name__}, got {value!r}") from None


def default(name: str) -> Any:
    """The default of a setting, for argument parsers."""
    found = next(f for f in fields(Settings) if f.name == name)
    return None if found.default is MISSING else found.default


def agent_run(settings: Settings, environ: Mapping[str, str] | None = None) -> str | None:
    """A name for this run in the store of torchrun's agent, where the port is the agent's; else None."""
    environ = os.environ if environ is None else environ
    agent = (
        environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        and environ.get("MASTER_ADDR") == settings.master
        and environ.get("MASTER_PORT") == str(settings.port)
    )
    return f"restart{environ.get('TORCHELASTIC_RESTART_COUNT', '0')}" if agent else None
