# SPDX-License-Identifier: Apache-2.0
"""The method that docs/extending.md works out, from the page itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fleet import Fleet, Vectors, same_bits, set_grads, state_of, tensors, weights_of

from dgs import MODES
from dgs.errors import ConfigError, TransportError
from dgs.methods import METHODS, register

LR = 0.25


@pytest.fixture
def randomk(repository: Path) -> Iterator[type]:
    """The class that the page's code registers."""
    blocks = re.findall(r"```python\n(.*?)```", (repository / "docs/extending.md").read_text(), re.DOTALL)
    assert len(blocks) == 1
    names: dict[str, Any] = {}
    exec(compile(blocks[0], "docs/extending.md", "exec"), names)
    yield names["RandomK"]
    del METHODS["randomk"]


def test_it_is_a_mode_once_registered(randomk: type) -> None:
    assert METHODS["randomk"] is randomk and "randomk" in MODES and list(MODES)[-2:] == ["randomk", "sgd"]
    assert register(randomk) is randomk, "twice is as good as once"
    for name in ("dgs", "sgd", "aji"):
        with pytest.raises(ValueError, match=f"register: name must be a new one, got '{name}'"):
            register(type("Other", (randomk,), {"name": name}))
    model = Vectors(tensors(1))
    with Fleet(Vectors(tensors(0)), mode="randomk") as fleet, pytest.raises(ConfigError, match="no velocity"):
        fleet.join(model, nesterov=True)


@pytest.mark.parametrize("codec", ["float32", "bfloat16"])
def test_it_trains_and_loses_nothing(randomk: type, codec: str) -> None:
    """Workers in turn, a lost link, steps not exchanged, and the last push: Σq + r = Σ lr·g."""
    models = [Vectors(tensors(k)) for k in range(2)]
    start = torch.cat([t.view(-1) for t in tensors(9).values()]).double()
    asked = torch.zeros_like(start)
    with Fleet(Vectors(tensors(9)), mode="randomk", density=0.05, codec=codec) as fleet:
        workers = [
            fleet.join(model, lr=LR, exchange_every=1 + k, flush=True) for k, model in enumerate(models)
        ]
        for step in range(12):
            k = step % 2
            grads = {name: t.round() for name, t in tensors(20 + step).items()}
            set_grads(models[k], grads)
            if step == 6:
                with pytest.MonkeyPatch.context() as broken:
                    broken.setattr(fleet.taps[k], "receive", _lost)
                    workers[k].step()
            else:
                workers[k].step()
            asked += LR * torch.cat([g.view(-1) for g in grads.values()]).double()
        held = sum(state_of(w)["residual"].double() for w in workers)
        assert torch.count_nonzero(held) > 0.5 * held.numel()
        torch.testing.assert_close(start - fleet.state.theta.double() + held, asked, rtol=0, atol=1e-4)
        for worker in workers:
            worker.close()
        left = sum(state_of(w)["residual"].double() for w in workers)
        torch.testing.assert_close(start - fleet.state.theta.double() + left, asked, rtol=0, atol=1e-4)
        assert codec != "float32" or not left.any()


def _lost(*_: object) -> Any:
    raise TransportError("the link is cut")


def test_its_choice_is_random_of_the_right_size_and_saved(randomk: type) -> None:
    models = [Vectors(tensors(1)) for _ in range(2)]
    chosen = []
    with Fleet(Vectors(tensors(0)), mode="randomk", density=0.05) as fleet:
        layout = fleet.state.layout
        worker = fleet.join(models[0], lr=LR)
        for seed in range(3):
            set_grads(models[0], tensors(seed))
            worker.step()
            q = fleet.taps[0].last_push(layout.numel, layout.fingerprint) != 0
            assert [int(part.sum()) for part in q.split([2000, 1800, 50])] == [100, 90, 50]
            chosen.append(q)
        assert int((chosen[0] & chosen[1])[:3800].sum()) < 40
        saved = worker.state_dict()
        set_grads(models[0], tensors(7))
        worker.step()
        last = fleet.taps[0].last_push(layout.numel, layout.fingerprint)

        resumed = fleet.join(models[1], lr=LR)
        resumed.load_state_dict(saved)
        set_grads(models[1], tensors(7))
        resumed.step()
        assert same_bits(last, fleet.taps[1].last_push(layout.numel, layout.fingerprint))
        assert same_bits(weights_of(worker), fleet.state.mirrors[0].weights)
