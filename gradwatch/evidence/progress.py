"""Whether a training can get anywhere: what its steps change of the loss, and who is to blame."""

from __future__ import annotations

from statistics import median

import numpy as np

from gradwatch.evidence.history import History
from gradwatch.evidence.loss_change import measure_step_norms
from gradwatch.thresholds import Thresholds


def is_at_rest(history: History, thresholds: Thresholds) -> bool:
    """Whether no weight moves, and the network stands still although its loss is not low.

    Args:
        history: of the run so far.
        thresholds: ``update_ratio`` of a weight that moves; see ``History.stands_still``.

    Example:
        >>> from gradwatch.evidence.worked_example import make_history, make_record
        >>> rows = {"loss_change": -1e-12, "update_l2_norm": 1e-12}
        >>> is_at_rest(make_history(make_record(i, param=rows) for i in range(12)), Thresholds())
        True
    """
    if not history.stands_still(thresholds):
        return False
    reading = history.latest
    update = reading.measure_update(thresholds.weight_floor)[reading.judged] * history.rates.decay
    return update.size > 0 and bool(np.all(update < thresholds.update_ratio))


def has_gone_nowhere(history: History, thresholds: Thresholds) -> bool:
    """Whether all steps so far together could not have changed the loss, and it has not fallen.

    The sum of ``|g . dw|`` bounds what the loss can fall by, to first order.

    Args:
        history: of the run so far.
        thresholds: ``patience`` in steps, ``progress`` of the loss, ``run_progress`` of the sum.

    Source:
        Lan, Liu, Zhou & Yosinski (2019), "LCA: Loss Change Allocation", equation 2.

    Example:
        >>> from gradwatch.evidence.worked_example import make_history, make_record
        >>> rows = {"loss_change": -1e-12}
        >>> records = [make_record(100 * i, param=rows) for i in range(12)]
        >>> has_gone_nowhere(make_history(records), Thresholds())
        True
    """
    if history.last_step - history.first_step < thresholds.patience or history.rates.is_warming_up:
        return False
    has_fallen = history.losses.remaining < thresholds.progress
    return not has_fallen and measure_way(history) < thresholds.run_progress


def measure_way(history: History) -> float:
    """Sum of ``|g . dw|`` over the run against the loss at its start.

    Args:
        history: of the run so far.

    Returns:
        A share of the first loss; NaN where it is not known.

    Example:
        >>> from gradwatch.evidence.worked_example import make_history, make_record
        >>> round(measure_way(make_history(make_record(step) for step in range(10))), 3)
        5.005
    """
    beginning = abs(history.losses.beginning)
    return history.loss_change.run_total / beginning if beginning > 0 else float("nan")


def measure_elasticity(history: History) -> float:
    """Median ``||g|| * ||w||`` of the weights against the loss at the start.

    What a weight that grows by its own size would change of the loss: about 1 in a network through
    which gradients get, whatever the learning rate.

    Args:
        history: of the run so far.

    Returns:
        A share of the first loss; 0 where it is not known.

    Example:
        >>> from gradwatch.evidence.worked_example import make_history, make_record
        >>> measure_elasticity(make_history([make_record()]))
        1.0625
    """
    record, beginning = history.latest.record, abs(history.losses.beginning)
    product = record.param("grad_l2_norm") * record.param("weight_l2_norm")
    product = product[history.latest.judged & np.isfinite(product)]
    return median(product.tolist()) / beginning if product.size and beginning > 0 else 0.0


def lacks_rate(history: History, thresholds: Thresholds) -> bool:
    """Whether it is the steps that are too small, and not the gradient.

    Args:
        history: of the run so far.
        thresholds: ``elasticity`` of a gradient that is there.

    Example:
        >>> from gradwatch.evidence.worked_example import make_history, make_record
        >>> lacks_rate(make_history([make_record()]), Thresholds())
        True
    """
    return measure_elasticity(history) >= thresholds.elasticity


def measure_scaled_clipping(history: History) -> tuple[float, float]:
    """What clipping leaves of the gradient where a ``GradScaler`` still has it scaled.

    Args:
        history: of the run so far.

    Returns:
        Norm of the gradient at the step against that of the one that arrived, and the former times
        the loss scale. NaN without a loss scale, or where nothing was clipped.

    Example:
        >>> from gradwatch.evidence.worked_example import make_history, make_record
        >>> clipped = {"step_grad_l2_norm": (0.0625 / 1024, 2 / 1024)}
        >>> record = make_record(param=clipped, step={"loss_scale": 1024.0})
        >>> [round(number, 5) for number in measure_scaled_clipping(make_history([record]))]
        [0.00098, 2.00098]
    """
    record = history.latest.record
    scale = record.step("loss_scale")
    if not scale > 1:
        return float("nan"), float("nan")
    arrived, used = history.latest.ask(measure_step_norms).tolist()
    if not (arrived > 0 and used > 0):
        return float("nan"), float("nan")
    return used / arrived, used * scale
