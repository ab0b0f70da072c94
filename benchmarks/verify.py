# SPDX-License-Identifier: Apache-2.0
"""A step with the ops against the same step with their plain-torch twins, bit for bit.

The twins choose by `top` instead of sorting; the tests compare the two.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from unittest.mock import patch

import torch
from operands import Problem
from steps import Step
from torch import Tensor

from dgs_ext import ops, reference
from dgs_ext.ops import Selection


class Twins:
    """The twins of dgs_ext/reference.py under the signatures of dgs_ext.ops."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        signature, twin = inspect.signature(getattr(ops, name)), getattr(reference, name)
        taken = inspect.signature(twin).parameters
        fields = [field for field in ("starts", "indices", "values", "nnz") if field in taken]

        def call(*args: object, **kwargs: object) -> None:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            given = dict(bound.arguments)
            for key, value in bound.arguments.items():
                if isinstance(value, Selection):
                    del given[key]
                    given.update((field, getattr(value, field)) for field in fields)
            twin(**given)

        return call


def top(x: Tensor, k: int) -> Tensor:
    """What reference.top chooses, k >= 1, without sorting x, which takes tens of seconds for the largest tensors.

    What is above the k-th largest magnitude, and of its equals the first.
    """
    magnitude = x.abs()
    least = magnitude.kthvalue(x.numel() - k + 1).values
    taken = magnitude > least
    if least > 0:
        taken[(magnitude == least).nonzero().view(-1)[: k - int(taken.sum())]] = True
    return taken.nonzero().view(-1)


def chosen(p: Problem, most: int) -> list[int]:
    """Segments of together at most `most` elements, the largest first; the smallest if none is so small."""
    sizes = p.offsets.diff().tolist()
    order = sorted(range(len(sizes)), key=lambda s: -sizes[s])
    taken: list[int] = []
    for s in order:
        if sizes[s] <= most:
            taken.append(s)
            most -= sizes[s]
    return sorted(taken) or order[-1:]


def verify(name: str, step: Step, p: Problem, most: int) -> int:
    """Runs `step` both ways over segments of at most `most` elements; returns how many elements these were.

    Raises SystemExit when they differ.
    """
    segments = chosen(p, most)
    mine, theirs = p.part(segments), p.part(segments)
    for problem, library in ((mine, ops), (theirs, Twins())):
        with patch.object(reference, "top", top):
            if step.given is not None:
                step.given(problem, library)
            step.run(problem, library)
    expected = theirs.written()
    for what, got in mine.written().items():
        for a, b in zip(got, expected[what], strict=True):
            if not torch.equal(a, b):
                raise SystemExit(f"{name}: {what} differs from the twin's: no timing is worth printing")
    return mine.numel
