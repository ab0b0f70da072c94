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
from torch import nn

from . import config, local, transport, worker_state
from .errors import ConfigError, DGSError, LayoutError, NotConnectedError
from .hyper import check_group, check_options, defaults
from .introduction import Dial
from .layout import trainable, unwrapped
from .methods import LOCAL_METHODS, STRATEGIES
from .metrics.alone import Alone
from .observed import Observed
from .replica import Replica
from .schedules import Constant, DensitySchedule
from .standing import Standing
from .termination import Termination
from .threads import share_cores

log = logging.getLogger(__name__)


class GradientSGD(Standing, torch.optim.Optimizer):
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
        self._termination = Termination()
        params = list(params)
        if not params:
            raise LayoutError("there are no parameters: nothing to train")
        given = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(params, defaults(self.settings) | given)
        self._local_steps, self._alone, self._observed = 0, None, Observed()
        self._model = model
        self._names = {id(p): name for name, p in model.named_parameters()} if model is not None else {}
        check_options(self.settings, self.param_groups)
        if self.settings.local:
            share_cores(self.settings, server=False)
            sizes = [p.numel() for group in self.param_groups for p in group["params"] if p.requires_grad]
            self._alone = Alone(self.settings, args, sizes, self._observed)
            return
        self._schedule, self._dial = schedule or Constant(self.settings.density), dial
        self._replica = self._prepare()
        if connect:
            self.connect()

    def _prepare(self) -> Replica:
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
        dial = self._dial or functools.partial(_dial, settings)
        return Replica(model, named, self.param_groups, settings, self._schedule, dial)

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
        session = self._replica.session
        self._termination.urgent = lambda: not session.connected
        self._farewell = weakref.finalize(self, self._replica.farewell, self._termination)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of the method and one exchange with the server; nothing once the run is `done`.

        With `exchange_every` = n, every n-th step exchanges. With `overlap`, the exchange goes on beside the next
        batch: what came is applied, and its errors are raised, by the next call.

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
        if not self.settings.overlap:
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
        if replica is None:
            self._step_alone()
        else:
            with self._termination.deferred():
                replica.post(self.param_groups)
        return loss

    @torch.no_grad()
    def settle(self) -> None:
        """The other half: waits for the reply to what was posted, and applies it; nothing if nothing was."""
        replica = self._ready()
        if replica is not None:
            with self._termination.deferred():
                replica.settle()

    def _step_alone(self) -> None:
        for group in self.param_groups:
            check_group(group, self._strategy)
        if local.finite(self.param_groups, self._names, self.settings):
            LOCAL_METHODS[self.settings.mode]().step(self.param_groups, self.state)
            self._local_steps += 1
            if self._alone is not None:
                self._alone.stepped(self._local_steps)

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
        """Adds a group, before `connect()` has joined a server; what was loaded before is kept.

        Raises ConfigError afterwards (the layout is agreed with the server then), and for options out of range;
        LayoutError for parameters that are not the model's. The groups are then as they were.
        """
        before = self._replica
        if before is not None and before.session.welcome is not None:
            raise ConfigError(
                "add_param_group: the layout is agreed with the server once connected: give all parameters to the "
                "constructor, or make it with connect=False and call connect() after the last group"
            )
        super().add_param_group(param_group)
        try:
            check_group(self.param_groups[-1], self._strategy)
            if before is not None:
                self._replica = self._prepare()
                worker_state.move(before, self._replica)
        except DGSError:
            self.param_groups.pop()
            raise

    def __getstate__(self) -> dict[str, Any]:
        """ConfigError: a session with the server cannot be copied."""
        raise ConfigError(
            "GradientSGD cannot be copied or pickled: save state_dict(), and give it to load_state_dict() of another"
        )

    def state_dict(self) -> dict[str, Any]:
        """torch's state_dict, with each parameter's velocity and residual under `state`, and the counters beside it.

        An exchange under way is settled first.
        """
        replica = self._replica
        if replica is None:
            return super().state_dict() | {worker_state.COUNTERS: {"steps": self._local_steps}}
        replica.land()
        worker_state.export(replica, self.state)
        try:
            return super().state_dict() | {worker_state.COUNTERS: replica.counters()}
        finally:
            self.state.clear()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads hyper-parameters, the method's state and the counters; the weights are the server's.

        To go on where a worker paused: load the model, make the optimizer with connect=False, load this, connect.
        What the saved state does not hold, such as that of another method, starts from zero.
        Raises ConfigError or ValueError, and changes nothing, when the groups or the shapes are others.
        """
        replica = self._replica
        groups = [defaults(self.settings) | group for group in state_dict["param_groups"]]
        for group in groups:
            check_group(group, self._strategy)
        if replica is not None:
            replica.land()
        parts = [] if replica is None else worker_state.parts(replica, self.param_groups, state_dict["state"])
        super().load_state_dict({**state_dict, "param_groups": groups})
        counters = state_dict.get(worker_state.COUNTERS, {})
        if replica is None:
            self._local_steps = int(counters.get("steps", 0))
            return
        self.state.clear()
        worker_state.load(parts)
        if not self._connected:
            worker_state.load_masters(replica, self.param_groups, state_dict["state"])
        replica.load_counters(counters)

    def close(self, outcome: str = "finished", reason: str = "") -> None:
        """Ends the session: settles, with `flush` pushes what is held, sends the buffers and says goodbye.

        Further steps are errors; may be called twice.

        Args:
            outcome: "finished", "left" (asked to end early; the server does not count it as finished), "failed",
                which sends nothing but the goodbye, or "paused", which sends no more either: the server keeps this
                worker's place, for one that comes back with the same weights to go on without a snapshot.
            reason: for the server's report.
        """
        if outcome not in ("finished", "left", "failed", "paused"):
            raise ConfigError(f"close: outcome must be finished, left, failed or paused, got {outcome!r}")
        replica = self._replica
        if self._alone is not None:
            self._alone.close(outcome, reason)
        if replica is None or not self._connected:
            return
        self._connected = False
        self._farewell.detach()
        if outcome == "paused":
            replica.pause(reason)
            return
        try:
            if outcome != "failed" and not self._showing and replica.session.connected:
                replica.leave()
        finally:
            replica.session.close(outcome, reason)

    def __enter__(self) -> GradientSGD:
        """Until the end of the block SIGTERM, too, is an orderly end: SystemExit(143), and outcome "left"."""
        if self._replica is not None:
            self._termination.install()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            with self._termination.deferred():
                if self._termination.asked:
                    self.close("left", "SIGTERM")
                elif kind is None:
                    self.close()
                else:
                    self.close("failed", repr(error))
        finally:
            self._termination.remove()


def _dial(settings: config.Settings, timeout: timedelta) -> transport.Link:
    return transport.dial(
        settings.master, settings.port, timeout, address=settings.address, run=config.agent_run(settings)
    )


__all__ = ["GradientSGD"]
