# SPDX-License-Identifier: Apache-2.0
"""What is measured on the spot: the machine's costs, and a link with the library's own transport."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
import torch
from torch import nn

import dgs
from dgs.errors import ConfigError, ProtocolError
from dgs.layout import Layout
from dgs.plan import Case, Link, layout_of, plan
from dgs.plan.measure import measured
from dgs.plan.probe import answer, measure
from dgs.transport import GlooListener, InProcessListener, Listener, dial

TIMEOUT = timedelta(seconds=60)


@contextmanager
def answering(listener: Listener) -> Iterator[None]:
    """Answers one link in a thread."""
    thread = threading.Thread(target=answer, args=(listener, 1))
    thread.start()
    try:
        yield
    finally:
        thread.join(60)
        listener.close()
        assert not thread.is_alive()


def test_a_link_through_gloo() -> None:
    listener = GlooListener("127.0.0.1", 0)
    with answering(listener):
        link = dial("127.0.0.1", listener.port, TIMEOUT)
        found = measure(link)
        link.close()
    assert 1e6 < found.bandwidth < 1e13
    assert 0 < found.latency < 10


def test_a_worker_that_comes_to_a_probe_is_told() -> None:
    listener = InProcessListener()
    net = nn.Linear(3, 2)
    with answering(listener), pytest.raises(dgs.errors.RefusedError, match="only measures links"):
        dgs.GradientSGD(
            net.parameters(), 0.1, net, rank=1, dial=lambda _: listener.dial(), connect_timeout=10
        )


def test_a_probe_that_comes_to_a_server_is_told() -> None:
    listener, stop = InProcessListener(), threading.Event()
    server = threading.Thread(
        target=dgs.init_server, args=(None, nn.Linear(3, 2)), kwargs={"listener": listener, "stop": stop}
    )
    server.start()
    with pytest.raises(ProtocolError, match=r"start python -m dgs\.plan --listen"):
        measure(listener.dial())
    stop.set()
    server.join(60)
    assert not server.is_alive()


def test_costs_of_this_machine_and_a_plan_of_them() -> None:
    layout = layout_of("200k")
    costs = measured(layout, torch.device("cpu"), rounds=3)
    assert costs.select.of(layout.numel, 0) + costs.pack.of(0, 10_000) > 0
    assert costs.serve.of(layout.numel, 10_000) > 0
    assert min(costs.dense_server.per_entry, costs.optimizer.fixed) > 0
    assert "measured on this machine" in costs.source
    assert plan(Case(layout, 4, 0.1, Link(1e7), costs)).worth == "yes"


def test_costs_where_every_tensor_is_sent_whole() -> None:
    costs = measured(Layout([("a", (10, 10)), ("b", (70,))]), torch.device("cpu"), rounds=2)
    assert costs.serve.of(170, 340) > 0


def test_a_device_that_is_none() -> None:
    device = torch.device("cuda", 99)
    with pytest.raises(ConfigError, match="cannot be used"):
        measured(layout_of("1k"), device)
