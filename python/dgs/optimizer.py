# SPDX-License-Identifier: Apache-2.0
"""GradientSGD: a torch.optim optimizer whose step exchanges with the server."""

from __future__ import annotations

import functools
import logging
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn

from . import config, local, transport
from .errors import ConfigError, LayoutError, NotConnectedError
from .exchange import Traffic
from .hyper import check_group, check_options, defaults
from .introduction import Dial
from .layout import trainable, unwrapped
from .methods import LOCAL_METHODS, STRATEGIES
from .replica import Replica
from .schedules import Constant, DensitySchedule
from .threads import share_cores

log = logging.getLogger(__name__)


class GradientSGD(torch.optim.Optimizer):
    """Asynchronous SGD against a parameter server, by the method that `mode` names.

    The constructor connects, and loads the server's parameters and buffers into `model`, so that the first gradient
    is taken at the server's weights. Use it in a `with` block, or call `close()`.

    Args:
        params: parameters or groups, as for torch.optim.SGD; a group may also set its density.
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
        self._strategy = STRATEGIES[self.settings.mode]
        self._replica: Replica | None = None
        self._connected = self._showing = False
        params = list(params)
        if not params:
            raise LayoutError("there are no parameters: nothing to train")
        given = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(params, defaults(self.settings) | given)
        self._local_steps = 0
        self._model = model
        self._names = {id(p): name for name, p in model.named_parameters()} if model is not None else {}
        check_options(self.settings, self.param_groups)
        if self.settings.local:
            share_cores(self.settings, server=False)
            return
        self._replica = self._prepare(schedule or Constant(self.settings.density), dial)
        if connect:
            self.connect()

    def _prepare(self, schedule: DensitySchedule, dial: Dial | None) -> Replica:
        settings = self.settings
        if settings.rank == 0:
            raise ConfigError(
                "rank 0 is the server: call init_server there, and GradientSGD on ranks 1 and up"
            )
        if self._model is None:
            raise ConfigError("model=… is needed: it names the parameters and holds the buffers")
        model = unwrapped(self._model)
        named = self._named_parameters(model)
        share_cores(settings, server=False)
        dial = dial or functools.partial(_dial, settings)
        return Replica(model, named, self.param_groups, settings, schedule, dial)

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

    def connect(self) -> None:
        """Joins the server, waiting for one at most `connect_timeout`, and loads its weights and buffers."""
        if self._replica is None or self._connected:
            return
        self._replica.connect()
        self._connected = True
        self._farewell = weakref.finalize(self, self._replica.farewell)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of the method and one exchange with the server; nothing once the run is `done`.

        Args:
            closure: reevaluates the model and returns the loss.

        Raises:
            NonFiniteGradientError: nothing was sent and no state has changed.
            DriftError: something else wrote the weights; nothing was applied.
            DivergedError: the server's parameters would overflow; nothing was applied.
            ServerLostError: the server is gone.
            NotConnectedError: before `connect`, after `close`, or inside `server_model`.
        """
        loss = self.post(closure)
        self.settle()
        return loss

    @torch.no_grad()
    def post(self, closure: Callable[[], Any] | None = None) -> Any:
        """The first half of `step`: computes the push and sends it, once the exchange before it is settled.

        Weights and state are those of before the step until `settle`; gradients may be overwritten.
        """
        replica = self._ready()
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if self.done:
            return loss
        if replica is not None:
            replica.post(self.param_groups)
        else:
            self._step_alone()
        return loss

    @torch.no_grad()
    def settle(self) -> None:
        """The other half: waits for the reply to what was posted, and applies it; nothing if nothing was."""
        replica = self._ready()
        if replica is not None:
            replica.settle()

    def _step_alone(self) -> None:
        for group in self.param_groups:
            check_group(group, self._strategy)
        if local.finite(self.param_groups, self._names, self.settings):
            LOCAL_METHODS[self.settings.mode]().step(self.param_groups, self.state)
            self._local_steps += 1

    def _ready(self) -> Replica | None:
        if self._showing:
            raise NotConnectedError("model shows the server's weights: step after the server_model() block")
        if self._replica is not None and not self._connected:
            raise NotConnectedError(
                "the optimizer is not connected: call connect(); after close() make another"
            )
        return self._replica

    @contextmanager
    def server_model(self) -> Iterator[nn.Module]:
        """Shows the server's parameters and buffers in `model`, for evaluation; then puts the worker's own back.

        Mode sgd has one model, and shows it. Raises NotConnectedError, and DriftError as `step` does.
        """
        if self._model is None:
            raise ConfigError("model=… is needed to show a model")
        replica = self._ready()
        self._showing = True
        try:
            if replica is None:
                yield self._model
            else:
                with replica.server_model():
                    yield self._model
        finally:
            self._showing = False

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Called by the constructor; afterwards the layout is agreed with the server and this is a ConfigError."""
        if self._replica is not None:
            raise ConfigError(
                "the layout is fixed once the optimizer is made: give all parameters to its constructor"
            )
        super().add_param_group(param_group)
        check_group(self.param_groups[-1], self._strategy)

    def __getstate__(self) -> dict[str, Any]:
        """ConfigError: a session with the server cannot be copied."""
        raise ConfigError(
            "GradientSGD cannot be copied or pickled: save state_dict(), and give it to load_state_dict() of another"
        )

    def state_dict(self) -> dict[str, Any]:
        """torch's state_dict, with each parameter's velocity and residual under `state`."""
        if self._replica is None:
            return super().state_dict()
        for name in self._replica.method.buffers():
            for p, part in self._replica.state_of(name):
                self.state[p][name] = part.clone()
        try:
            return super().state_dict()
        finally:
            self.state.clear()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads hyper-parameters and the method's state; the weights are the server's.

        What the saved state does not hold, such as that of another method, starts from zero.
        Raises ConfigError or ValueError, and changes nothing, when the groups or the shapes are others.
        """
        groups = [defaults(self.settings) | group for group in state_dict["param_groups"]]
        for group in groups:
            check_group(group, self._strategy)
        parts = [] if self._replica is None else list(self._saved(self._replica, state_dict["state"]))
        super().load_state_dict({**state_dict, "param_groups": groups})
        if self._replica is None:
            return
        self.state.clear()
        for part, saved in parts:
            part.zero_() if saved is None else part.copy_(saved)

    def _saved(self, replica: Replica, state: dict[int, Any]) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Each part of the method's state beside what was saved of it, float32 as it was."""
        numbers = {id(p): i for i, p in enumerate(p for g in self.param_groups for p in g["params"])}
        for name in replica.method.reserve({name for part in state.values() for name in part}):
            for p, part in replica.state_of(name):
                saved = state.get(numbers[id(p)], {}).get(name)
                if saved is not None and saved.shape != part.shape:
                    raise ConfigError(
                        f"load_state_dict: {name} of parameter {numbers[id(p)]} must have shape "
                        f"{tuple(part.shape)}, got {tuple(saved.shape)}"
                    )
                yield part, saved

    def close(self, outcome: str = "finished", reason: str = "") -> None:
        """Sends the buffers and a goodbye, and frees the link. Further steps are errors; may be called twice."""
        replica = self._replica
        if replica is None or not self._connected:
            return
        self._connected = False
        self._farewell.detach()
        try:
            if outcome == "finished" and not self._showing:
                replica.send_buffers()
        finally:
            replica.session.close(outcome, reason)

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
        return self._local_steps if self._replica is None else self._replica.session.version

    @property
    def progress(self) -> float:
        """version / max_version, in [0, 1]; 0 where the run has no end."""
        end = self._end
        return min(1.0, self.version / end) if end else 0.0

    @property
    def done(self) -> bool:
        """Whether the run has reached max_version: further steps do nothing."""
        if self._replica is not None:
            return self._replica.session.done
        return self._end is not None and self.version >= self._end

    @property
    def _end(self) -> int | None:
        welcome = None if self._replica is None else self._replica.session.welcome
        return welcome.max_version if welcome else self.settings.max_version

    @property
    def rank(self) -> int:
        """This worker's rank, from 1 (mode sgd: 0)."""
        welcome = None if self._replica is None else self._replica.session.welcome
        return welcome.rank if welcome else 0

    @property
    def worker_index(self) -> int:
        """This worker's number from 0, for a data sampler."""
        return max(0, self.rank - 1)

    @property
    def num_workers(self) -> int:
        """Workers in the run, for a data sampler: world_size - 1, or those active when the world size is open."""
        if self._replica is None:
            return 1
        session, world = self._replica.session, self.settings.world_size
        known = session.welcome.workers if session.welcome else 1
        return world - 1 if world else max(known, session.active)

    @property
    def traffic(self) -> Traffic:
        """Bytes, exchanges, waiting time and staleness so far."""
        return Traffic() if self._replica is None else self._replica.session.traffic


def _dial(settings: config.Settings, timeout: timedelta) -> transport.Link:
    return transport.dial(
        settings.master, settings.port, timeout, address=settings.address, run=config.agent_run(settings)
    )


__all__ = ["GradientSGD"]
