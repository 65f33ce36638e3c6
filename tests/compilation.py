"""What tests of compiled models share: a backend that counts, and how records are compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._dynamo.backends.debugging import aot_eager

from gradwatch.capture.compiled_graph import PROBE
from gradwatch.records import StepRecord

FRAMES: Any = torch._C._dynamo.eval_frame

needs_regions = pytest.mark.skipif(
    not hasattr(FRAMES, "_get_cache_entries_for_region"),
    reason="this torch has one cache of compiled code for all",
)

FOLLOWED = 3
"""Steps before the first that has a plan."""

COMPARED = 1
"""Runs of each graph, with statistics and without, to see whether they compute the same."""


CANCELLING = ("loss_change", "past_loss_change")
"""Sums of products of either sign, of which rounding takes more."""


class Backend:
    """Counts the runs of what it compiles: of graphs with our statistics, and of others."""

    def __init__(self, below: Callable[..., Any] = aot_eager) -> None:
        self.below = below
        self.runs = {True: 0, False: 0}

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        is_tapped = any(node.name == PROBE for node in graph.graph.nodes)
        compiled = self.below(graph, inputs)

        def run(*args: Any) -> Any:
            self.runs[is_tapped] += 1
            return compiled(*args)

        return run


def assert_same_records(left: Sequence[StepRecord], right: Sequence[StepRecord]) -> None:
    assert [record.global_step for record in left] == [record.global_step for record in right]
    for record, other in zip(left, right, strict=True):
        assert record.layer_set == other.layer_set
        for name in ("layer_values", "step_values"):
            values, others = getattr(record, name), getattr(other, name)
            np.testing.assert_allclose(values, others, rtol=1e-6, atol=1e-12, err_msg=name)
        for name in record.layer_set.rows.param:
            rounding = 1e-5 if name in CANCELLING else 1e-6
            values, others = record.param(name), other.param(name)
            np.testing.assert_allclose(values, others, rtol=rounding, atol=1e-12, err_msg=name)
