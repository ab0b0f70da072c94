# SPDX-License-Identifier: Apache-2.0
"""Does it pay? A model of the time of a step for dense all-reduce, asynchronous dense and dgs (docs/plan.md).

case = Case(layout_of("resnet18"), workers=16, step_time=0.33, link=Link(0.94e9, latency=5e-4))
print(text(plan(case), batch=64))
"""

from .advice import Plan, break_even, plan
from .costs import STATED, Cost, Costs
from .rates import PAYLOAD, Link
from .rows import Case, Row
from .shapes import layout_of
from .table import record, text

__all__ = [
    "PAYLOAD",
    "STATED",
    "Case",
    "Cost",
    "Costs",
    "Link",
    "Plan",
    "Row",
    "break_even",
    "layout_of",
    "plan",
    "record",
    "text",
]
