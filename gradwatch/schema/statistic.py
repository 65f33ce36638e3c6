"""What a number of a record is: the declarative row of a statistic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Scope = Literal["layer", "activation", "param", "step"]
"""What there is one number of: a layer, a layer with the role ``"activation"``, a parameter tensor,
or the sampled step."""

Unit = Literal["l2_norm", "fraction", "count", ""]
"""A Euclidean norm, a share from 0 to 1, a number of things, or as ``meaning`` says."""

CallMerge = Literal["l2", "mean", "sum", "max", "last"]
"""How values of one call from several passes (accumulation) become one: root of summed squares,
mean, sum, largest, or the latest."""

RankMerge = Literal["l2", "l2_of_mean_loss", "mean", "sum"]
"""How the values of data-parallel ranks become one: root of summed squares; the same of gradients
whose loss is a mean over one rank's part of the batch, divided by the number of ranks; mean; sum.

Of a parameter this holds where each rank has a part of it; whole copies are equal, and averaged.
"""

_SHAPES = {"layer": "(n_layers,)", "activation": "(n_layers,)", "param": "(n_params,)", "step": ""}


@dataclass(frozen=True)
class Statistic:
    """One number of a record; float64 in a record, float32 in a log.

    Attributes:
        name: as in ``StepRecord.layer(name)``; ends in its unit where it has one.
        scope: what there is one number of.
        unit: of the number.
        over_calls: how values of several passes merge.
        over_ranks: how values of several ranks merge.
        meaning: what is measured, and what NaN means where that is not "not measured".
        scales_with_loss: proportional to the loss; a loss scale is divided out.
        is_logarithmic: pictures and scalars show its logarithm.
        source: of the formula, where there is one.
        formula: the number as a Python expression of tensors: ``output``, ``grad_output`` and
            ``grad_input`` of a call, its ``slope`` (``|phi'|``) and the largest that it can have,
            ``steepest``; ``grad``, ``weight`` (before the step) and ``update`` of a parameter.
            Empty where it is no function of these. A test evaluates it beside a training.

    Example:
        >>> row = Statistic("mean_abs", "param", "", "last", "mean", "mean of |w|")
        >>> row.shape
        '(n_params,)'
    """

    name: str
    scope: Scope
    unit: Unit
    over_calls: CallMerge
    over_ranks: RankMerge
    meaning: str
    scales_with_loss: bool = False
    is_logarithmic: bool = False
    source: str = ""
    formula: str = ""

    @property
    def shape(self) -> str:
        """Of a record's numbers: one per layer, NaN but for activations; one per parameter; or one
        number."""
        return _SHAPES[self.scope] or "()"
