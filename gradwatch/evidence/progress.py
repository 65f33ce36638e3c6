"""Whether a training can get anywhere: what its steps change of the loss, and who is to blame."""

from __future__ import annotations

from statistics import median

import numpy as np

from gradwatch.evidence.history import History
from gradwatch.evidence.loss_change import measure_step_norms
from gradwatch.evidence.optimizer_pools import has_players
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


def shows_no_fall(history: History) -> bool:
    """Whether the loss is where it began although there was time, and its value would tell.

    That of several players does not, nor that of steps which are to raise it.

    Args:
        history: of the run so far.

    Example:
        >>> from gradwatch.evidence.worked_example import make_history, make_record
        >>> records = [make_record(step, step={"loss": 2.3}) for step in range(40)]
        >>> shows_no_fall(make_history(records[:20])), shows_no_fall(make_history(records))
        (False, True)
    """
    return history.losses.is_at_start and _value_tells(history)


def is_slow(history: History, thresholds: Thresholds) -> bool:
    """Whether the loss has come down by next to nothing, and its steps were to take no more off.

    A loss that is at its floor falls as little, but there steps promise much and take each other
    back. Here they are too small, or too few so far, to tell whether anything is learned.

    Args:
        history: of the run so far.
        thresholds: ``least_fall``, of what counts as progress.

    Source:
        Lan, Liu, Zhou & Yosinski (2019), "LCA: Loss Change Allocation", equation 2.

    Example:
        >>> from gradwatch.evidence.worked_example import make_history, make_record
        >>> rows = {"loss_change": -1e-5}
        >>> falls = [make_record(i, param=rows, step={"loss": 1 - i / 5e4}) for i in range(60)]
        >>> is_slow(make_history(falls), Thresholds())
        True
    """
    if not (history.losses.has_hardly_fallen and _value_tells(history)):
        return False
    return measure_way(history) < thresholds.least_fall


def shows_no_fall_in_few_records(history: History) -> bool:
    """Whether more records could show that the loss has fallen.

    Args:
        history: of the run so far.

    Example:
        >>> from gradwatch.evidence.worked_example import make_history, make_record
        >>> records = [make_record(5 * step, step={"loss": 2.3}) for step in range(40)]
        >>> [shows_no_fall_in_few_records(make_history(records[:n])) for n in (5, 10, 40)]
        [False, True, False]
    """
    return history.losses.lacks_records and _value_tells(history)


def _value_tells(history: History) -> bool:
    return not has_players(history.latest) and not history.loss_change.climbs


def measure_overshoot(history: History, thresholds: Thresholds) -> float:
    """What one step is to take off a loss that none takes anything off, where that is much.

    To first order: the sum of ``|g . dw|`` of a step against the loss at the start. It does not say
    how the run will end: steps that raise a loss at first can find a flatter place by themselves.

    Args:
        history: of the run so far.
        thresholds: ``progress`` of the loss, which a single step is to make.

    Returns:
        A share of the first loss; 0 where steps promise less, or the loss falls.

    Source:
        Lewkowycz, Bahri, Dyer, Sohl-Dickstein & Gur-Ari (2020), "The large learning rate phase of
        deep learning: the catapult mechanism".

    Example:
        >>> from gradwatch.evidence.worked_example import make_history, make_record
        >>> stays = [make_record(step, step={"loss": 1.0}) for step in range(40)]
        >>> round(measure_overshoot(make_history(stays), Thresholds()), 3)
        0.5
    """
    if not shows_no_fall(history):
        return 0.0
    promised = history.loss_change.usual_total / abs(history.losses.beginning)
    return promised if promised >= 1 - thresholds.progress else 0.0


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
