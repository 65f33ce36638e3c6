"""Every number of a record, one row each: what it is, and how several of it become one.

A statistic of gradwatch's is added by adding its row here and measuring it in ``capture``; one of
somebody else's by ``gradwatch.watch(statistics=...)``. The record, the log, the merging over calls
and over ranks, and the unscaling of a scaled loss all read the row.
"""

from __future__ import annotations

from gradwatch.errors import InvalidInput
from gradwatch.schema.statistic import CallMerge, RankMerge, Scope, Statistic, Unit

__all__ = [
    "STATISTICS",
    "CallMerge",
    "RankMerge",
    "Scope",
    "Statistic",
    "Unit",
    "adopt",
    "find_statistic",
    "list_names",
    "register_statistic",
]

STATISTICS: dict[tuple[str, str], Statistic] = {}
"""All rows by table (see below) and name, in the order in which a record stores them."""

_ADOPTED: dict[tuple[str, str], Statistic] = {}
"""Rows that some watch's records have besides, likewise."""

_TABLES = {"layer": "layer", "activation": "layer", "param": "param", "step": "step"}
"""Layers and activations share a table, and so their names."""


def register_statistic(statistic: Statistic) -> Statistic:
    """Add a row; records that are captured from now on have it.

    Args:
        statistic: the row.

    Returns:
        The row.

    Raises:
        InvalidInput: the name is taken, or does not say its unit.

    Example:
        >>> try:
        ...     register_statistic(Statistic("loss", "step", "", "last", "mean", "the loss"))
        ... except InvalidInput as error:
        ...     print(str(error)[-27:])
        taken. Choose another name.
    """
    key = _check_name(statistic)
    STATISTICS[key] = statistic
    return statistic


def adopt(statistic: Statistic) -> Statistic:
    """Make a row known without adding it to every record; those of one watch may have it.

    Args:
        statistic: the row; nothing changes where it is known already.

    Returns:
        The row.

    Raises:
        InvalidInput: the name is taken by another row, or does not say its unit.
    """
    if _ADOPTED.get((_TABLES[statistic.scope], statistic.name)) != statistic:
        key = _check_name(statistic)
        _ADOPTED[key] = statistic
    return statistic


def _check_name(statistic: Statistic) -> tuple[str, str]:
    """Its key, which is still free."""
    key = _TABLES[statistic.scope], statistic.name
    if key in STATISTICS or key in _ADOPTED:
        raise InvalidInput(
            f"Expected a new name for a statistic of the scope {statistic.scope!r}, got "
            f"{statistic.name!r}, which is taken. Choose another name."
        )
    if not statistic.name.endswith(statistic.unit):
        raise InvalidInput(
            f"Expected a name that ends in its unit, {statistic.unit!r}, got "
            f"{statistic.name!r}. Append the unit to the name."
        )
    return key


def find_statistic(scope: Scope, name: str) -> Statistic | None:
    """The row of that name; ``None`` for a name that is not known here.

    Args:
        scope: ``"layer"`` and ``"activation"`` share their names.
        name: of the statistic.

    Example:
        >>> row = find_statistic("param", "loss_change")
        >>> row.shape, row.over_ranks, row.formula
        ('(n_params,)', 'sum', '(grad * update).sum()')
    """
    key = _TABLES[scope], name
    return STATISTICS.get(key) or _ADOPTED.get(key)


def list_names(*scopes: Scope) -> tuple[str, ...]:
    """Names of the rows of these scopes, scope by scope, in the order of a record.

    Args:
        scopes: any number of them.

    Example:
        >>> list_names("step")[-3:]
        ('learning_rate', 'interval', 'loss')
    """
    return tuple(row.name for scope in scopes for row in STATISTICS.values() if row.scope == scope)


_SAMPLED = "of a strided sample of some 8,192 elements"

for _row in (
    Statistic(
        "grad_output_l2_norm", "layer", "l2_norm", "l2", "l2_of_mean_loss",
        "||dL/d(output)|| of this call, over all its elements",
        scales_with_loss=True, is_logarithmic=True,
        formula="grad_output.norm()",
    ),
    Statistic(
        "grad_input_l2_norm", "layer", "l2_norm", "l2", "l2_of_mean_loss",
        "||dL/d(input)||, this call's own contribution; NaN where there is none",
        scales_with_loss=True, is_logarithmic=True,
        formula="grad_input.norm()",
    ),
    Statistic(
        "output_l2_norm", "layer", "l2_norm", "l2", "l2", "||output||", is_logarithmic=True,
        formula="output.norm()",
    ),
    Statistic(
        "grad_zero_fraction", "layer", "fraction", "mean", "mean",
        f"share of exact zeros in dL/d(output), {_SAMPLED}",
        formula="(grad_output == 0).double().mean()",
    ),
    Statistic(
        "saturated_fraction", "activation", "fraction", "mean", "mean",
        "share of elements with |phi'| below 5 % of its maximum",
        source="Glorot & Bengio (2010), section 3, look at such units in histograms",
        formula="(slope < 0.05 * steepest).double().mean()",
    ),
    Statistic(
        "derivative_mean", "activation", "", "mean", "mean", "mean |phi'| over the elements",
        formula="slope.mean()",
    ),
    Statistic(
        "opposed_fraction", "activation", "fraction", "max", "mean",
        "share of elements of an output that are saturated, and that the loss pulls back to the "
        "slope; the largest of several passes, which may belong to players of a game",
    ),
    Statistic(
        "zero_fraction", "activation", "fraction", "mean", "mean",
        "share of outputs that are exactly 0; of the ReLU family only",
        formula="(output == 0).double().mean()",
    ),
    Statistic(
        "dead_fraction", "activation", "fraction", "last", "mean",
        "share of units that fired for no sample of the window; of the ReLU family only",
        source="Lu et al. (2019), Dying ReLU and initialization",
        formula="(output <= 0).all(dim=0).double().mean()",
    ),
    Statistic(
        "unit_samples", "activation", "", "last", "sum",
        "samples that each unit of that window has seen",
    ),
    Statistic(
        "grad_l2_norm", "param", "l2_norm", "last", "l2",
        "||g||; NaN where the gradient is None, which is not the same as 0",
        scales_with_loss=True, is_logarithmic=True,
        formula="grad.norm()",
    ),
    Statistic(
        "weight_l2_norm", "param", "l2_norm", "last", "l2", "||w|| before the step",
        is_logarithmic=True,
        formula="weight.norm()",
    ),
    Statistic(
        "update_l2_norm", "param", "l2_norm", "last", "l2",
        "||dw|| of the step just made, without weight decay's part", is_logarithmic=True,
        formula="update.norm()",
    ),
    Statistic(
        "zero_fraction", "param", "fraction", "last", "mean",
        f"share of exact zeros in g, {_SAMPLED}",
        formula="(grad == 0).double().mean()",
    ),
    Statistic(
        "nonfinite_count", "param", "count", "last", "sum", "elements of g that are NaN or Inf",
        formula="(~grad.isfinite()).sum()",
    ),
    Statistic(
        "step_grad_l2_norm", "param", "l2_norm", "last", "l2",
        "||g|| as the optimizer gets it: clipped, unscaled, or put there by hand",
        scales_with_loss=True, is_logarithmic=True,
        formula="grad.norm()",
    ),
    Statistic(
        "loss_change", "param", "", "last", "sum",
        "g . dw: first-order change of the loss by this parameter's own update, signed",
        scales_with_loss=True,
        source="Lan, Liu, Zhou & Yosinski (2019), LCA: Loss Change Allocation, section 2",
        formula="(grad * update).sum()",
    ),
    Statistic(
        "past_loss_change", "param", "", "last", "sum",
        "g . (w - w at the sampled step before): where the loss is convex in between, it has come "
        "down on this batch by no less, signed",
        scales_with_loss=True,
        source="Boyd & Vandenberghe (2004), Convex Optimization, section 3.1.3",
    ),
    Statistic(
        "learning_rate", "param", "", "last", "mean", "of its group; NaN when unknown"
    ),
    Statistic(
        "weight_decay", "param", "", "last", "mean", "of its group; NaN when unknown"
    ),
    Statistic(
        "stale_grad_l2_norm", "param", "l2_norm", "last", "l2",
        "||g|| of the step before, to which the last pass was added; NaN where it was cleared",
        is_logarithmic=True,
    ),
    Statistic(
        "rank_grad_spread", "param", "", "last", "mean",
        "(largest - smallest) / largest ||g|| over the ranks that hold it whole",
    ),
    Statistic(
        "rank_step_grad_spread", "param", "", "last", "mean",
        "the same of ||g|| as the optimizer gets it",
    ),
    Statistic(
        "rank_weight_spread", "param", "", "last", "mean", "the same of ||w|| before the step"
    ),
    Statistic(
        "passes", "step", "", "last", "mean",
        "backward passes that were merged into this record (accumulation)",
    ),
    Statistic(
        "loss_scale", "step", "", "last", "mean",
        "factor of a GradScaler that was divided out; 1 without",
    ),
    Statistic(
        "nonfinite_passes", "step", "", "last", "sum",
        "passes with a NaN or Inf in an activation's gradient",
    ),
    Statistic(
        "raising_passes", "step", "", "last", "mean",
        "passes that began at the negative of a loss whose last layer is trained here",
    ),
    Statistic(
        "learning_rate", "step", "", "last", "mean",
        "largest learning rate in the optimizers' groups; NaN when unknown",
    ),
    Statistic(
        "interval", "step", "", "last", "mean", "sampling interval in force, in optimizer steps"
    ),
    Statistic(
        "loss", "step", "", "last", "mean",
        "value that backward was called on, summed over the step's passes; NaN when unknown",
        scales_with_loss=True,
    ),
):  # fmt: skip
    register_statistic(_row)
