# SPDX-License-Identifier: Apache-2.0
"""GradientSGD: a torch.optim optimizer whose step exchanges with the server."""

from __future__ import annotations

import logging
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.sgd import sgd

from dgs_ext import ops
from dgs_ext.ops import Selection

from . import buffers as module_buffers
from . import config, transport
from .errors import (
    ConfigError,
    DriftError,
    LayoutError,
    NonFiniteGradientError,
    ProtocolError,
    RefusedError,
    ServerLostError,
    TransportError,
)
from .hyper import Hypers
from .layout import Layout, trainable
from .methods import LOCAL, METHODS, Method
from .schedules import Constant, DensitySchedule, check_density
from .threads import share_cores
from .weights import Weights
from .worker import Dial, Model, Reply, Traffic, Worker

log = logging.getLogger(__name__)

_ATTEMPTS = 3  # at one step, over lost links


class GradientSGD(torch.optim.Optimizer):
    """Asynchronous SGD against a parameter server, by the method that `mode` names.

    The constructor connects, and loads the server's parameters and buffers into `model`, so that the first gradient
    is taken at the server's weights. Use it in a `with` block, or call `close()`.

    Args:
        params: parameters or groups, as for torch.optim.SGD; a group may set lr, momentum, weight_decay and density.
        lr: learning rate.
        model: the module that names the parameters and holds the buffers.
        momentum: in [0, 1).
        weight_decay: L2 penalty.
        args: any object with attributes named like settings, each optional.
        schedule: the density over the run; by default constant.
        connect: False leaves connecting to `connect()`.
        dial: makes a link to the server; by default gloo to `master`:`port`.
        settings: see dgs.config.Settings.

    Raises:
        ConfigError, LayoutError: before anything is sent.
        ServerUnreachableError, RefusedError: the server is not there, or does not take this worker.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 0.1,
        model: nn.Module | None = None,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        args: object | None = None,
        *,
        schedule: DensitySchedule | None = None,
        connect: bool = True,
        dial: Dial | None = None,
        **settings: Any,
    ) -> None:
        self.settings = config.resolve(args, **settings)
        self._worker: Worker | None = None
        super().__init__(
            params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "density": None}
        )
        self._local_steps = 0
        self._model = model
        if self.settings.mode == LOCAL:
            return
        self._prepare(schedule or Constant(self.settings.density), dial)
        if connect:
            self.connect()

    def _prepare(self, schedule: DensitySchedule, dial: Dial | None) -> None:
        settings = self.settings
        if settings.rank == 0:
            raise ConfigError(
                "rank 0 is the server: call init_server there, and GradientSGD on ranks 1 and up"
            )
        if self._model is None:
            raise ConfigError("model=… is needed: it names the parameters and holds the buffers")
        named = self._named_parameters(self._model)
        self.layout = Layout(
            [(name, tuple(p.shape)) for name, p in named],
            module_buffers.spec(self._model),
            dense_below=settings.dense_below,
            compress_all=settings.compress_all,
        )
        parameters = [p for _, p in named]
        share_cores(settings, server=False)
        self._weights = Weights(self.layout, parameters)
        self._method = _method(settings, self.layout, self._weights.device)
        if not self._method.uses_momentum and any(g["momentum"] for g in self.param_groups):
            warnings.warn(f"momentum has no part in mode {settings.mode} and is ignored", stacklevel=4)
        self._hypers = Hypers(self.layout, parameters, self.param_groups, schedule)
        self._client = Worker(self.layout, settings, self._method.dense, dial or self._dial)

    def _named_parameters(self, model: nn.Module) -> list[tuple[str, nn.Parameter]]:
        mine = [p for group in self.param_groups for p in group["params"] if p.requires_grad]
        named = trainable(model, mine)
        known = {id(p) for _, p in named}
        strange = [p for p in mine if id(p) not in known]
        if strange:
            raise LayoutError(
                f"a parameter of shape {tuple(strange[0].shape)} is not one of model's parameters"
            )
        if len({p.device for _, p in named}) > 1:
            raise LayoutError("the parameters are on several devices; one worker trains on one")
        return named

    def _dial(self, timeout: timedelta) -> transport.Link:
        s = self.settings
        return transport.dial(s.master, s.port, timeout, address=s.address, run=config.agent_run(s))

    def connect(self) -> None:
        """Joins the server, waiting for one at most `connect_timeout`, and loads its weights and buffers."""
        if self.settings.mode == LOCAL or self._worker is not None:
            return
        model = self._client.join(timedelta(seconds=self.settings.connect_timeout))
        self._load(model)
        self._worker = self._client
        self._farewell = weakref.finalize(self, self._client.close_at_exit)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of the method and one exchange with the server.

        Args:
            closure: reevaluates the model and returns the loss.

        Raises:
            NonFiniteGradientError: nothing was sent and no state has changed.
            DriftError: something else wrote the weights; nothing was applied.
            ServerLostError: the server is gone.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if self.settings.mode == LOCAL:
            self._local_step()
        elif not self.done:
            self._exchange_step(self._connected())
        return loss

    def _exchange_step(self, worker: Worker) -> None:
        self._check_unaltered(worker)
        grads = [_gradient(p) for p in self._weights.parameters]
        for _ in range(_ATTEMPTS):
            hyper = self._hypers.at(worker.version, worker.active)
            update = self._method.step(grads, self._weights.masters, hyper)
            if not self._finite():
                return
            sent, on_wire = self._quantised(update)
            try:
                reply = worker.exchange(
                    on_wire, self.settings.codec_up, self._hypers.density(hyper), self._digest()
                )
            except RefusedError as error:
                if error.code != "drift" or not self._after_drift(worker, str(error)):
                    raise
                continue
            except TransportError as error:
                log.warning("the link to the server is lost (%s)", error)
                applied, model = worker.rejoin()
                if applied:
                    self._method.commit(sent, hyper)
                self._load(model)
                if applied:
                    return
                continue
            if reply.applied:
                self._method.commit(sent, hyper)
            self._receive(worker, reply)
            return
        raise ServerLostError(
            f"a push failed {_ATTEMPTS} times over new sessions at version {worker.version}"
        )

    def _finite(self) -> bool:
        bad = self._method.failed()
        if bad is None:
            return True
        name = self.layout.segments[bad].name
        message = f"the gradient of {name}, or what it was added to, is not finite; nothing was sent"
        if self.settings.on_nonfinite == "raise":
            raise NonFiniteGradientError(message, name)
        log.warning("%s: the step is skipped", message)
        return False

    def _quantised(self, update: Selection | Tensor) -> tuple[Selection | Tensor, Selection | Tensor]:
        """What is pushed, where the state lives and on the CPU."""
        values = update.values if isinstance(update, Selection) else update
        ops.quantize_(values, int(self.settings.codec_up))
        return update, update.to_cpu() if isinstance(update, Selection) else update.cpu()

    def _receive(self, worker: Worker, reply: Reply) -> None:
        if reply.decoded.form == "bytes":
            raise ProtocolError("a PULL frame holds bytes, not values")
        if self._method.dense:
            self._weights.load(worker.values(reply))
        elif reply.decoded.form == "sparse":
            self._weights.add_sparse(*worker.entries(reply))
        else:
            self._weights.add_dense(worker.values(reply))
        every = self.settings.buffers_every
        if worker.traffic.exchanges % every == 0:
            self._send_buffers(worker)

    def _digest(self) -> tuple[int, str]:
        segment = self._client.sequence % len(self.layout.segments)
        return segment, self._weights.digest(segment)

    def _check_unaltered(self, worker: Worker) -> None:
        altered = self._weights.altered()
        if altered is None:
            return
        name = self.layout.segments[altered].name
        message = f"{name} was written or replaced since the last step by something other than this optimizer"
        if not self._after_drift(worker, message):
            raise DriftError(f"{message}; set on_drift='snapshot' to take the server's weights instead", name)

    def _after_drift(self, worker: Worker, message: str) -> bool:
        if self.settings.on_drift != "snapshot":
            return False
        log.warning("%s: the server's weights are taken anew", message)
        self._weights.reload()
        self._load(worker.restart())
        return True

    def _load(self, model: Model) -> None:
        self._weights.load(model.theta)
        assert self._model is not None
        module_buffers.load(self._model, model.buffers)

    def _send_buffers(self, worker: Worker) -> None:
        if self.layout.buffers and self.settings.buffers != "none":
            assert self._model is not None
            worker.send_buffers(module_buffers.pack(module_buffers.of(self._model), self.layout.buffers))

    def _connected(self) -> Worker:
        if self._worker is None:
            raise TransportError(
                "the optimizer is not connected: call connect(), and do not step after close() or in server_model()"
            )
        return self._worker

    def _local_step(self) -> None:
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            momenta = [self.state[p].get("momentum_buffer") for p in params]
            sgd(
                params,
                [p.grad for p in params],
                momenta,
                has_sparse_grad=any(p.grad.is_sparse for p in params),
                weight_decay=group["weight_decay"],
                momentum=group["momentum"],
                lr=group["lr"],
                dampening=0.0,
                nesterov=self.settings.nesterov,
                maximize=False,
            )
            for p, buffer in zip(params, momenta, strict=True):
                self.state[p]["momentum_buffer"] = buffer
        self._local_steps += 1

    @contextmanager
    def server_model(self) -> Iterator[nn.Module]:
        """Shows the server's parameters and buffers in `model`, for evaluation; then puts the worker's own back."""
        if self.settings.mode == LOCAL:
            if self._model is None:
                raise ConfigError("model=… is needed to show a model")
            yield self._model
            return
        worker = self._connected()
        self._check_unaltered(worker)
        seen = worker.look()
        assert self._model is not None
        own = {name: b.detach().clone() for name, b in module_buffers.of(self._model).items()}
        self._worker = None  # no step on weights that are not the worker's
        try:
            with self._weights.swapped(seen.theta):
                module_buffers.load(self._model, seen.buffers)
                try:
                    yield self._model
                finally:
                    module_buffers.load(self._model, own)
        finally:
            self._worker = worker

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group before connecting; afterwards the layout is agreed and this is a ConfigError."""
        if getattr(self, "_worker", None) is not None or hasattr(self, "_client"):
            raise ConfigError(
                "the layout is fixed once the optimizer is made: give all parameters to its constructor"
            )
        super().add_param_group(param_group)
        _check_group(self.param_groups[-1])

    def state_dict(self) -> dict[str, Any]:
        """torch's state_dict, with each parameter's velocity and residual under `state`."""
        if self.settings.mode == LOCAL:
            return super().state_dict()
        for name, flat in self._method.buffers().items():
            for segment, p in zip(self.layout.segments, self._weights.parameters, strict=True):
                part = flat[segment.offset : segment.offset + segment.numel]
                self.state[p][name] = part.view(segment.shape).clone()
        try:
            return super().state_dict()
        finally:
            self.state.clear()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads hyper-parameters and the method's state; weights come from the server."""
        super().load_state_dict(state_dict)
        if self.settings.mode == LOCAL:
            return
        self.state.clear()
        numbers = {id(p): i for i, p in enumerate(p for g in self.param_groups for p in g["params"])}
        for name, flat in self._method.buffers().items():
            for segment, p in zip(self.layout.segments, self._weights.parameters, strict=True):
                saved = state_dict["state"].get(numbers[id(p)], {}).get(name)
                part = flat[segment.offset : segment.offset + segment.numel]
                if saved is None:
                    part.zero_()
                else:
                    part.copy_(saved.reshape(-1))

    def close(self, outcome: str = "finished", reason: str = "") -> None:
        """Sends the buffers and a goodbye, and frees the link. Further steps are errors; may be called twice."""
        worker, self._worker = self._worker, None
        if worker is None:
            return
        self._farewell.detach()
        try:
            if outcome == "finished":
                self._send_buffers(worker)
        except TransportError as error:
            log.warning("the buffers did not reach the server: %s", error)
        finally:
            worker.close(outcome, reason)

    def __enter__(self) -> GradientSGD:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if kind is None:
            self.close()
        else:
            self.close("failed", repr(error))

    @property
    def version(self) -> int:
        """Pushes that the server had applied at the last reply (mode sgd: steps taken)."""
        return self._local_steps if self.settings.mode == LOCAL else self._client.version

    @property
    def progress(self) -> float:
        """version / max_version, in [0, 1]; 0 where the run has no end."""
        end = self._end
        return min(1.0, self.version / end) if end else 0.0

    @property
    def done(self) -> bool:
        """Whether the run has reached max_version: further steps do nothing."""
        if self.settings.mode == LOCAL:
            return bool(self._end) and self.version >= (self._end or 0)
        return self._client.done

    @property
    def _end(self) -> int | None:
        welcome = None if self.settings.mode == LOCAL else self._client.welcome
        return welcome.max_version if welcome else self.settings.max_version

    @property
    def rank(self) -> int:
        """This worker's rank, from 1 (mode sgd: 0)."""
        welcome = None if self.settings.mode == LOCAL else self._client.welcome
        return welcome.rank if welcome else 0

    @property
    def worker_index(self) -> int:
        """This worker's number from 0, for a data sampler."""
        return max(0, self.rank - 1)

    @property
    def num_workers(self) -> int:
        """Workers in the run, for a data sampler: world_size - 1, or those active when the world size is open."""
        if self.settings.mode == LOCAL:
            return 1
        welcome = self._client.welcome
        known = welcome.workers if welcome else 1
        world = self.settings.world_size
        return world - 1 if world else max(known, self._client.active)

    @property
    def traffic(self) -> Traffic:
        """Bytes, exchanges, waiting time and staleness so far."""
        return Traffic() if self.settings.mode == LOCAL else self._client.traffic


def _method(settings: config.Settings, layout: Layout, device: torch.device) -> Method:
    return METHODS[settings.mode].create(layout, device, settings)


def _gradient(p: Tensor) -> Tensor:
    """The gradient as an op takes it: flat and contiguous; empty for none."""
    grad = p.grad
    if grad is None:
        return torch.empty(0, device=p.device)
    if grad.is_sparse:
        grad = grad.to_dense()
    return grad.contiguous().view(-1)


def _check_group(group: dict[str, Any]) -> None:
    lr, momentum, decay, density = (group[k] for k in ("lr", "momentum", "weight_decay", "density"))
    if not float(lr) >= 0:
        raise ConfigError(f"lr must be at least 0, got {lr}")
    if not 0 <= momentum < 1:
        raise ConfigError(f"momentum must be in [0, 1), got {momentum}")
    if not decay >= 0:
        raise ConfigError(f"weight_decay must be at least 0, got {decay}")
    if density is not None:
        check_density(density)


__all__ = ["GradientSGD"]
