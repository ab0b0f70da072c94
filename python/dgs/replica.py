# SPDX-License-Identifier: Apache-2.0
"""A worker's half of an exchange: its weights, its method's state and its session, kept in step with the server."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

from torch import Tensor, nn

from dgs_ext.ops import Selection

from . import buffers as module_buffers
from .config import Settings
from .errors import (
    DGSError,
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
from .methods import METHODS
from .model_buffers import ModelBuffers
from .push import Push, gradient, packed
from .schedules import DensitySchedule
from .termination import Termination
from .weights import Weights
from .worker import Worker

log = logging.getLogger(__name__)

_ATTEMPTS = 3  # at one step, over lost links


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
        self._model, self._settings, self._groups = model, settings, groups
        self.buffers = ModelBuffers(model, self.layout, settings.buffers_every, settings.buffers != "none")
        self.parameters = [p for _, p in named]
        self.weights = Weights(self.layout, self.parameters)
        self.method = METHODS[settings.mode].create(self.layout, self.weights.device, settings)
        strategy = METHODS[settings.mode]
        self._hypers = Hypers(self.layout, self.parameters, groups, schedule, strategy, settings.codec_up)
        self.session = Worker(self.layout, settings, self.method.dense, dial)
        self._pending: Push | None = None  # sent, and its fate not known
        self.accumulated = 0  # steps since the last exchange

    def connect(self) -> None:
        """Joins the server and loads its weights and buffers; one that paused with these weights keeps its own."""
        timeout = timedelta(seconds=self._settings.connect_timeout)
        model = self.session.resume(timeout, self.weights.digest())
        if model is not None:
            self._load(model)

    def post(self, groups: Sequence[Mapping[str, Any]]) -> None:
        """The first half of a step: computes the push and sends it, once the exchange before it is settled.

        With `exchange_every` = n, n - 1 of n steps change the method's state and send nothing.
        Until `settle`, weights and state are those of before the step, and gradients may be overwritten.
        """
        self._groups = groups
        held = self.session.held
        self.settle()
        if self.session.done:
            return
        self._check_unaltered()
        grads = [gradient(p) for p in self.parameters]
        hyper = self._hypers.at(groups, self.session.version, self.session.active)
        if self.accumulated + 1 < self._settings.exchange_every:
            self.method.accumulate(grads, self.weights.masters, hyper)
            self.accumulated += self._finite()
            return
        update = self.method.step(grads, self.weights.masters, hyper)
        if self._finite():
            push = packed(update, hyper, held)
            self._send(push, background=self._settings.overlap)

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
                self._finish(reply)
                return
        raise ServerLostError(
            f"a push failed {_ATTEMPTS} times over new sessions at version {self.session.version}"
        ) from lost

    def flush(self) -> None:
        """Pushes all that the method's state still holds; a lost link is a warning, for nothing comes after this."""
        session = self.session
        if session.done or self._pending is not None:
            return
        hyper = self._hypers.at(self._groups, session.version, session.active)
        update = self.method.flush(hyper)
        if update is None or not self._finite():
            return
        self._send(packed(update, hyper, session.held))
        try:
            self._finish(session.pull())
        except (TransportError, FrameError, RefusedError, ProtocolError) as error:
            log.warning("what the method's state still held was not acknowledged: %s", error)

    def _send(self, push: Push, *, background: bool = False) -> Push:
        """Sends `push`, again over a new session if need be: with the digest of the weights of now.

        One that is awaited at once needs no thread in the background, and the end of a process can start none.
        """
        session = self.session
        digest = (0, "")
        if isinstance(push.on_wire, Selection):
            segment = session.sequence % len(self.layout.segments)
            digest = (segment, self.weights.digest(segment))
        push = self._pending = replace(push, digest=digest, after=session.sequence)
        density = self._hypers.density(push.hyper)
        codec = self._settings.codec_up
        session.push(push.on_wire, codec, density, push.digest, push.held, background=background)
        return push

    def _finish(self, reply: Reply) -> None:
        if reply.applied:
            self._commit()
        self._pending = None
        self._receive(reply)

    def _commit(self) -> None:
        self.method.commit()
        self.accumulated = 0

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
            self._commit()
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
        if reply.applied and self.buffers.due(session.sequence):
            self.send_buffers()

    def _load(self, model: Model) -> None:
        self.weights.load(model.theta)
        self.buffers.load(model.buffers)

    def send_buffers(self) -> None:
        """Sends the buffers to the server; a lost link is noticed and mended by the next exchange."""
        if self.buffers.sent:
            try:
                self.session.send_buffers(self.buffers.packed())
            except TransportError as error:
                log.warning("the buffers did not reach the server: %s", error)

    def land(self) -> None:
        """Settles an exchange that is under way; one that was broken off is left to the next step."""
        if self.session.awaiting:
            self.settle()

    def leave(self) -> None:
        """What is due before a goodbye: the reply under way, the flush if it is set, and the buffers."""
        self.land()
        if self._settings.flush:
            self.flush()
        self.send_buffers()

    def pause(self, reason: str) -> None:
        """Says goodbye for a while: the server keeps this worker's mirror."""
        try:
            self.land()
        finally:
            self.session.close("paused", reason, self.weights.digest())

    def farewell(self, termination: Termination) -> None:
        """The end of a worker that did not `close`."""
        if not self.session.connected:
            return
        if not self.session.ends_by_error():
            try:
                self.leave()
            except (DGSError, RuntimeError) as error:  # at the exit no thread starts, as joining again would
                log.warning("the last exchange failed: %s", error)
        if termination.asked:
            self.session.close("left", "SIGTERM")
        else:
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
        with self.weights.swapped(seen.theta), self.buffers.showing(seen.buffers):
            yield self._model

    def counters(self) -> dict[str, Any]:
        """What a saved state holds beside the method's: numbers alone."""
        return {
            "accumulated": self.accumulated,
            "active": self.session.active,
            "first_lr": list(self._hypers.first_lr),
            "method": dict(self.method.numbers),
        }

    def load_counters(self, counters: Mapping[str, Any]) -> None:
        """Takes what `counters` gave; a state saved by another optimizer has none."""
        self.accumulated = int(counters.get("accumulated", 0))
        self._hypers.first_lr = [float(lr) for lr in counters.get("first_lr", self._hypers.first_lr)]
        self.session.active = int(counters.get("active", self.session.active))
        saved = counters.get("method", {})
        self.method.numbers = {name: int(saved.get(name, n)) for name, n in self.method.numbers.items()}

    def state_of(self, name: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Each parameter with its part of the method's buffer `name`, a view of the parameter's shape."""
        flat = self.method.buffers()[name]
        for segment, p in zip(self.layout.segments, self.parameters, strict=True):
            yield p, flat[segment.offset : segment.offset + segment.numel].view(segment.shape)
