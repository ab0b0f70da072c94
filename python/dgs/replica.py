# SPDX-License-Identifier: Apache-2.0
"""A worker's half of an exchange: its weights, its method's state and its session, kept in step with the server."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn

from dgs_ext import ops
from dgs_ext.ops import Selection

from . import buffers as module_buffers
from .config import Settings
from .errors import (
    DriftError,
    FrameError,
    NonFiniteGradientError,
    ProtocolError,
    RefusedError,
    ServerLostError,
    TransportError,
)
from .exchange import Model, Reply
from .hyper import Hypers
from .introduction import Dial
from .layout import Layout
from .methods import METHODS, Hyper
from .schedules import DensitySchedule
from .weights import Weights
from .worker import Worker

log = logging.getLogger(__name__)

_ATTEMPTS = 3  # at one step, over lost links


@dataclass(frozen=True, slots=True)
class Push:
    """A step that has been computed and not yet acknowledged."""

    hyper: Hyper
    sent: Selection | Tensor  # quantised, where the method's state lives
    on_wire: Selection | Tensor  # the same on the CPU
    held: int  # the version of the weights that its gradient was computed at
    digest: tuple[int, str] = (0, "")
    after: int = 0  # this worker's pushes that were applied before it


class Replica:
    """A model that follows the server's.

    A step that fails or is refused leaves weights and state bitwise as they were.

    Args:
        model: holds the parameters and buffers.
        named: the parameters to train, by name, in the layout's order.
        groups: the optimizer's param_groups.
        settings: see dgs.config.Settings.
        schedule: the density of groups that set none.
        dial: makes a link to the server.
    """

    def __init__(
        self,
        model: nn.Module,
        named: Sequence[tuple[str, Tensor]],
        groups: Sequence[Mapping[str, Any]],
        settings: Settings,
        schedule: DensitySchedule,
        dial: Dial,
    ) -> None:
        self.layout = Layout(
            [(name, tuple(p.shape)) for name, p in named],
            module_buffers.spec(model),
            module_buffers.frozen_spec(model, {name for name, _ in named}),
            dense_below=settings.dense_below,
            compress_all=settings.compress_all,
        )
        self._model, self._settings = model, settings
        self.parameters = [p for _, p in named]
        self.weights = Weights(self.layout, self.parameters)
        self.method = METHODS[settings.mode].create(self.layout, self.weights.device, settings)
        self._hypers = Hypers(self.layout, self.parameters, groups, schedule, METHODS[settings.mode])
        self.session = Worker(self.layout, settings, self.method.dense, dial)
        self._pending: Push | None = None  # sent, and its fate not known

    def connect(self) -> None:
        """Joins the server and loads its weights and buffers."""
        self._load(self.session.join(timedelta(seconds=self._settings.connect_timeout)))

    def post(self, groups: Sequence[Mapping[str, Any]]) -> None:
        """The first half of a step: computes the push and sends it, once the exchange before it is settled.

        Until `settle`, weights and state are those of before the step, and gradients may be overwritten.
        """
        held = self.session.held
        self.settle()
        self._check_unaltered()
        push = self._compute(groups, held)
        if push is not None:
            self._send(push)

    def settle(self) -> None:
        """The other half: receives the reply, commits and applies it; over a new session if the link is lost.

        Does nothing when no exchange is under way. One that Ctrl-C or a lost server broke off counts if the server
        turns out to have applied it, and has not happened otherwise.
        """
        push = self._pending
        if push is None:
            return
        if not self.session.awaiting:
            self._rejoin("the last exchange was broken off")
            return
        lost: Exception | None = None
        for attempt in range(_ATTEMPTS):
            if attempt:
                push = self._send(push)
            try:
                reply = self.session.pull()
            except RefusedError as error:
                self._pending = None
                self._after_refusal(error, push)
            except (TransportError, FrameError) as error:
                lost = error
                if self._rejoin(error):
                    return
            else:
                self._finish(push, reply)
                return
        raise ServerLostError(
            f"a push failed {_ATTEMPTS} times over new sessions at version {self.session.version}"
        ) from lost

    def _compute(self, groups: Sequence[Mapping[str, Any]], held: int) -> Push | None:
        """The push of this step; None when it is to be skipped."""
        session, codec = self.session, self._settings.codec_up
        grads = [_gradient(p) for p in self.parameters]
        hyper = self._hypers.at(groups, session.version, session.active)
        update = self.method.step(grads, self.weights.masters, hyper)
        if not self._finite():
            return None
        ops.quantize_(update.values if isinstance(update, Selection) else update, int(codec))
        on_wire = update.to_cpu() if isinstance(update, Selection) else update.cpu()
        return Push(hyper, update, on_wire, held)

    def _send(self, push: Push) -> Push:
        """Sends `push`, again over a new session if need be: with the digest of the weights of now."""
        session = self.session
        digest = (0, "")
        if isinstance(push.on_wire, Selection):
            segment = session.sequence % len(self.layout.segments)
            digest = (segment, self.weights.digest(segment))
        push = self._pending = replace(push, digest=digest, after=session.sequence)
        density = self._hypers.density(push.hyper)
        session.push(push.on_wire, self._settings.codec_up, density, push.digest, push.held)
        return push

    def _finish(self, push: Push, reply: Reply) -> None:
        if reply.applied:
            self.method.commit(push.sent, push.hyper)
        self._pending = None
        self._receive(reply)

    def _finite(self) -> bool:
        bad = self.method.failed()
        if bad is None:
            return True
        name = self.layout.segments[bad].name
        message = f"the gradient of {name}, or what it was added to, is not finite; nothing was sent"
        if self._settings.on_nonfinite == "raise":
            raise NonFiniteGradientError(message, name)
        log.warning("%s: the step is skipped", message)
        return False

    def _after_refusal(self, error: RefusedError, push: Push) -> None:
        """Takes a fresh snapshot after a refusal that it mends, else raises."""
        if error.code != "drift":
            raise error
        name = self.layout.segments[push.digest[0]].name
        self._after_drift(name, f"the server: {error}")

    def _check_unaltered(self) -> None:
        altered = self.weights.altered(self.session.sequence)
        if altered is not None:
            name = self.layout.segments[altered].name
            message = (
                f"{name} was written or replaced since the last step by something other than this optimizer"
            )
            self._after_drift(name, message)

    def _after_drift(self, name: str, message: str) -> None:
        if self._settings.on_drift != "snapshot":
            raise DriftError(f"{message}; set on_drift='snapshot' to take the server's weights instead", name)
        log.warning("%s: the server's weights are taken anew", message)
        self.weights.reload()
        try:
            self._load(self.session.restart())
        except (TransportError, FrameError) as error:
            self._rejoin(error)

    def _rejoin(self, cause: object) -> bool:
        """Joins again with a fresh snapshot. Returns whether the pending push had been applied, and is committed."""
        log.warning("the link to the server is lost (%s)", cause)
        _, model = self.session.rejoin()
        push, self._pending = self._pending, None
        applied = push is not None and self.session.sequence > push.after
        if push is not None and applied:
            self.method.commit(push.sent, push.hyper)
        self._load(model)
        return applied

    def _receive(self, reply: Reply) -> None:
        session = self.session
        if reply.decoded.form == "bytes":
            raise ProtocolError("a PULL frame holds bytes, not values")
        if self.method.dense and reply.decoded.form != "dense":
            raise ProtocolError(
                f"a PULL frame of mode {self._settings.mode} holds a difference, not the model"
            )
        if self.method.dense:
            self.weights.load(session.values(reply))
        elif reply.decoded.form == "sparse":
            self.weights.add_sparse(*session.entries(reply))
        else:
            self.weights.add_dense(session.values(reply))
        if reply.applied and self._buffers_due(session.traffic.exchanges):
            self.send_buffers()

    def _buffers_due(self, exchanges: int) -> bool:
        """Every n exchanges, and before the first n after 1, 2, 4, …: initial statistics are good for nothing."""
        every = self._settings.buffers_every
        return exchanges % every == 0 or (exchanges < every and exchanges & (exchanges - 1) == 0)

    def _load(self, model: Model) -> None:
        self.weights.load(model.theta)
        module_buffers.load(self._model, model.buffers)

    def send_buffers(self) -> None:
        """Sends the buffers to the server; a lost link is noticed and mended by the next exchange."""
        if self.layout.buffers and self._settings.buffers != "none":
            packed = module_buffers.pack(module_buffers.of(self._model), self.layout.buffers)
            try:
                self.session.send_buffers(packed)
            except TransportError as error:
                log.warning("the buffers did not reach the server: %s", error)

    def farewell(self) -> None:
        """The buffers and the goodbye of a worker that ends without `close`."""
        if not self.session.connected:
            return
        if not self.session.ends_by_error():
            self.send_buffers()
        self.session.close_at_exit()

    @contextmanager
    def server_model(self) -> Iterator[nn.Module]:
        """Shows the server's parameters and buffers in the model; then puts this worker's back, bit for bit."""
        self.settle()
        self._check_unaltered()
        self.send_buffers()
        try:
            seen = self.session.look()
        except (TransportError, FrameError) as error:
            self._rejoin(error)
            seen = self.session.look()
        own = {name: b.detach().clone() for name, b in module_buffers.of(self._model).items()}
        with self.weights.swapped(seen.theta):
            module_buffers.load(self._model, seen.buffers)
            try:
                yield self._model
            finally:
                module_buffers.load(self._model, own)

    def state_of(self, name: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Each parameter with its part of the method's buffer `name`, a view of the parameter's shape."""
        flat = self.method.buffers()[name]
        for segment, p in zip(self.layout.segments, self.parameters, strict=True):
            yield p, flat[segment.offset : segment.offset + segment.numel].view(segment.shape)


def _gradient(p: Tensor) -> Tensor:
    """The gradient as an op takes it: flat and contiguous; empty for none."""
    grad = p.grad
    if grad is None:
        return torch.empty(0, device=p.device)
    if grad.is_sparse:
        grad = grad.to_dense()
    return grad.contiguous().view(-1)
