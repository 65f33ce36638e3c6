"""What takes a step away between an optimizer and the weight that it was made for."""

from __future__ import annotations

from collections.abc import Sequence

from gradwatch.evidence.standstill import LARGEST_SQUARED
from gradwatch.evidence.topology import map_topology
from gradwatch.records import StepRecord
from gradwatch.verdict.rule import Explanation
from gradwatch.wording.module_names import count_params, name_owners, name_patterns
from gradwatch.wording.phrases import name_region

_OVERFLOWED = (
    "Find what makes the loss so large, such as an exp of an unbounded output or inputs of a size "
    "far from 1, and bound it (clamp, scale the inputs, clip gradients); then start again with a "
    "new optimizer, since the running mean in this one's state stays infinite."
)


def explain_lost(
    record: StepRecord, indices: Sequence[int], span: int, largest: float
) -> Explanation:
    """Why steps leave weights as they are: they are 0, or they are written elsewhere.

    Args:
        record: the newest one.
        indices: of the parameters.
        span: optimizer steps in which none of them has moved.
        largest: norm of the largest gradient that each of them has had at least.
    """
    params = [record.layer_set.params[index] for index in indices]
    layers, types = name_owners(params), map_topology(record.layer_set).types
    still = f"{name_region(layers)} has not changed at all over {span} steps"
    if largest >= LARGEST_SQUARED:
        message = (
            f"{still}: its gradient has been {largest:.2g}, whose square float32 cannot hold, and "
            "an optimizer that divides by a running mean of squares makes steps of 0 from then on "
            f"({count_params(params)})."
        )
        return Explanation("precision", message, remedy=_OVERFLOWED)
    grad, rate = (record.param(name)[indices[0]] for name in ("step_grad_l2_norm", "learning_rate"))
    message = (
        f"{still}, although its optimizer stepped with a gradient of {grad:.2g} and a rate of "
        f"{rate:.2g} ({count_params(params)})."
    )
    remedy = (
        f"Compare {name_patterns(layers, types)} before and after optimizer.step(): the "
        "step is not written to the tensor that forward uses. Look at copies, views and compiled "
        "or fused optimizers; foreach=False, fused=False and no torch.compile show which."
    )
    return Explanation("lost_update", message, remedy=remedy)
