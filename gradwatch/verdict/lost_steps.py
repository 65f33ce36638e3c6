"""What takes a step away between an optimizer and the weight that it was made for."""

from __future__ import annotations

from collections.abc import Sequence

from gradwatch.evidence.topology import map_topology
from gradwatch.records import Param, StepRecord
from gradwatch.verdict.rule import Explanation
from gradwatch.wording.module_names import count_params, name_owners, name_patterns
from gradwatch.wording.phrases import name_region

_OVERFLOWED = (
    "Find what makes the loss so large, such as an exp of an unbounded output or inputs of a size "
    "far from 1, and bound it (clamp, scale the inputs, clip gradients); then start again with a "
    "new optimizer, since the running mean in this one's state stays infinite."
)


def explain_overflow(
    record: StepRecord, indices: Sequence[int], span: int, largest: float
) -> Explanation:
    """Why steps are 0 behind a gradient too large to be squared.

    Args:
        record: the newest one.
        indices: of the parameters.
        span: optimizer steps in which none of them has moved.
        largest: norm of the largest gradient that each of them has had at least.
    """
    params = [record.layer_set.params[index] for index in indices]
    message = (
        f"{_say_still(params, span)}: its gradient has been {largest:.2g}, whose square float32 "
        "cannot hold, and an optimizer that divides by a running mean of squares makes steps of 0 "
        f"from then on ({count_params(params)})."
    )
    return Explanation("precision", message, remedy=_OVERFLOWED)


def explain_lost(record: StepRecord, indices: Sequence[int], span: int) -> Explanation:
    """Why steps leave weights as they are: they are written elsewhere.

    Args:
        record: the newest one.
        indices: of the parameters.
        span: optimizer steps in which none of them has moved.
    """
    params = [record.layer_set.params[index] for index in indices]
    layers, types = name_owners(params), map_topology(record.layer_set).types
    grad, rate = (record.param(name)[indices[0]] for name in ("step_grad_l2_norm", "learning_rate"))
    message = (
        f"{_say_still(params, span)}, although its optimizer stepped with a gradient of {grad:.2g} "
        f"and a rate of {rate:.2g} ({count_params(params)})."
    )
    remedy = (
        f"Compare {name_patterns(layers, types)} before and after optimizer.step(): the "
        "step is not written to the tensor that forward uses. Look at copies, views and compiled "
        "or fused optimizers; foreach=False, fused=False and no torch.compile show which."
    )
    return Explanation("lost_update", message, remedy=remedy)


def _say_still(params: Sequence[Param], span: int) -> str:
    return f"{name_region(name_owners(params))} has not changed at all over {span} steps"
