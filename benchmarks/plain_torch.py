# SPDX-License-Identifier: Apache-2.0
"""The steps as one writes them in plain torch, tensor by tensor: with `topk`, and with a threshold by `kthvalue`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from harness import Contestant
from operands import LR, MOMENTUM, WEIGHT_DECAY, Problem
from torch import Tensor

Pick = Callable[[Tensor, int], Tensor]


def topk(x: Tensor, k: int) -> Tensor:
    return x.abs().topk(k, sorted=False).indices


def kthvalue(x: Tensor, k: int) -> Tensor:
    magnitude = x.abs()
    threshold = magnitude.kthvalue(x.numel() - k + 1).values
    return (magnitude >= threshold).nonzero().view(-1)


PICKS: dict[str, Pick] = {"topk": topk, "kthvalue": kthvalue}


def contestants(step: str, p: Problem) -> Iterator[Contestant]:
    """The plain versions of a step of steps.py; they work in place on the op's scratch buffers."""
    grads, weights = p.segments(p.grads), p.segments(p.weights)
    a, b = p.segments(p.velocity_next), p.segments(p.residual_next)
    ks = p.counts.tolist()

    def sent(x: Tensor, k: int, pick: Pick) -> tuple[Tensor | slice, Tensor]:
        """Indices and values of what is sent; a tensor that is sent whole is not searched."""
        at = slice(None) if k == x.numel() else pick(x, k)
        return at, x[at].clone() if k == x.numel() else x[at]

    def step_velocity(pick: Pick, keep: float) -> list[object]:
        out: list[object] = []
        for g, w, v, k in zip(grads, weights, a, ks, strict=True):
            v.add_(g.add(w, alpha=WEIGHT_DECAY), alpha=LR)
            at, q = sent(v, k, pick)
            v[at] -= keep * q
            out.append((at, q))
        return out

    def step_dgc(pick: Pick) -> list[object]:
        out: list[object] = []
        for g, w, u, r, k in zip(grads, weights, a, b, ks, strict=True):
            u.mul_(MOMENTUM).add_(g.add(w, alpha=WEIGHT_DECAY))
            r.add_(u, alpha=LR)
            at, q = sent(r, k, pick)
            r[at] = 0
            if k < r.numel():
                u[at] = 0
            out.append((at, q))
        return out

    def pulled(pick: Pick) -> list[object]:
        out: list[object] = []
        for theta, mirror, k in zip(p.segments(p.velocity), b, ks, strict=True):
            at, q = sent(theta - mirror, k, pick)
            mirror[at] += q
            out.append((at, q))
        return out

    def dense() -> list[object]:
        return [g.add(w, alpha=WEIGHT_DECAY).mul_(LR) for g, w in zip(grads, weights, strict=True)]

    def selected(pick: Pick) -> list[object]:
        return [sent(x, k, pick) for x, k in zip(p.segments(p.velocity), ks, strict=True)]

    def reset() -> None:
        p.velocity_next[0].copy_(p.velocity[0])
        p.residual_next[0].copy_(p.residual[0])

    if step == "asgd":
        yield Contestant("torch", dense)
        return
    versions: dict[str, Callable[[Pick], list[object]]] = {
        "dgs": lambda pick: step_velocity(pick, 1 - MOMENTUM),
        "gd": lambda pick: step_velocity(pick, 1.0),
        "dgc": step_dgc,
        "pull": pulled,
        "select": selected,
    }
    if step in versions:
        for name, pick in PICKS.items():
            yield Contestant(name, lambda pick=pick: versions[step](pick), reset)  # type: ignore[misc]
