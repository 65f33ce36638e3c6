"""What an optimizer makes of a gradient: each parameter's update, and the loss's change by it.

Gradients are sampled as the optimizer gets them, weights before and after its step; all three at
the same places of each parameter.
"""

from __future__ import annotations

import itertools
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from operator import itemgetter

import torch
from torch import Tensor, nn

from gradwatch.capture.device_values import Ledger
from gradwatch.capture.param_values import GradientReading, list_gradients
from gradwatch.capture.parameters import Watched, localise
from gradwatch.capture.row_sums import measure_sample_norms, sum_rows
from gradwatch.capture.sample_rows import Gatherer, StackedRows, match_rows
from gradwatch.capture.tensor_norms import measure_norms


@dataclass
class StepGradients:
    """Samples of the gradients as an optimizer gets them, of the same elements as the weights'.

    Attributes:
        rows: of the parameters that have a gradient.
    """

    rows: list[StackedRows] = field(default_factory=list)

    @torch.no_grad()
    def take(
        self,
        watched: Sequence[Watched],
        indices: set[int],
        ledger: Ledger,
        known: GradientReading,
        gatherer: Gatherer,
    ) -> None:
        """Copy the samples of some parameters, and note the norms.

        Args:
            watched: all parameters.
            indices: of those that have a gradient.
            ledger: takes ``step_grad_l2_norm``.
            known: what was read before, of gradients that nobody has touched since.
            gatherer: takes the samples.
        """
        fresh, norms = indices - known.indices, list(known.norms)
        if fresh or not known.is_aligned:
            aligned = [(i, align_gradient(watched[i].param)) for i in sorted(indices)]
            dense = {i: grad for i, grad in aligned if grad is not None}
            self.rows += gatherer.bind(list(dense), list(dense.values())).take()
            touched = gatherer.bind(*list_gradients(watched, fresh))
            norms += measure_norms(touched, touched.take_shown())
        else:
            self.rows += known.rows
        for each in norms:
            each.note("param.step_grad_l2_norm", ledger)

    def covers(self, indices: Container[int]) -> bool:
        """Whether any of these parameters has been sampled.

        Args:
            indices: of parameters.
        """
        return any(index in indices for rows in self.rows for index in rows.table.indices)


def align_gradient(param: nn.Parameter) -> Tensor | None:
    """The gradient with the weight's layout in memory; ``None`` without a dense one.

    Args:
        param: whose gradient is wanted.

    Returns:
        The gradient itself where it lies like the weight, else a copy; of this rank's shard.
    """
    if param.grad is None:
        return None
    grad, weight = localise(param.grad), localise(param)
    if grad.layout != torch.strided or grad.shape != weight.shape or not grad.numel():
        return None
    if grad.stride() == weight.stride():
        return grad
    return torch.empty_like(weight, dtype=grad.dtype, requires_grad=False).copy_(grad.detach())


@torch.no_grad()
def note_updates(
    before: Sequence[StackedRows],
    after: Sequence[StackedRows],
    decays: Sequence[float],
    gradients: StepGradients,
    ledger: Ledger,
) -> None:
    """Norm of each update and its share of the loss's change, scaled from sample to parameter.

    Nothing is said of a parameter that has changed its shape.

    Args:
        before: samples of the weights before the step, of which nobody has use any more.
        after: those after it.
        decays: of each parameter, learning rate times decoupled weight decay: the part of the
            update that is decay and not learning is taken out.
        gradients: samples of what the optimizer got.
        ledger: takes ``update_l2_norm`` and ``loss_change``.
    """
    for new, old in itertools.product(after, before):
        places, others = match_rows(new, old)
        if places and new.values.dtype == old.values.dtype:
            _note_update(old.choose(others), new.choose(places), decays, gradients, ledger)


def _note_update(
    old: StackedRows,
    new: StackedRows,
    decays: Sequence[float],
    gradients: StepGradients,
    ledger: Ledger,
) -> None:
    """The old samples' memory takes the update: memory that was just read is in the cache."""
    table = new.table
    change = StackedRows(table, torch.sub(new.values, old.values, out=old.values))
    norms = measure_sample_norms(change)
    has_moved = norms.sign()
    rates = [decays[index] for index in table.indices]
    if any(rates):  # what has no gradient does not decay either
        _add_decay(change, new.values, rates)
        norms = measure_sample_norms(change) * has_moved
    scales = [share**0.5 for share in table.shares]
    ledger.add_params("param.update_l2_norm", table.indices, norms, scales)
    note_loss_changes("loss_change", change, gradients, ledger, has_moved)


def note_loss_changes(
    statistic: str,
    change: StackedRows,
    gradients: StepGradients,
    ledger: Ledger,
    weights: Tensor | None = None,
) -> None:
    """``g . dw`` of each parameter that has a gradient, scaled from sample to parameter.

    Args:
        statistic: of parameters, to which the values belong.
        change: of the weights, samples.
        gradients: samples of what the optimizer got.
        ledger: takes them.
        weights: ``(len(change.table.rows),)``, by which they are multiplied.
    """
    for grads in gradients.rows:
        places, others = match_rows(change, grads)
        if not places:
            continue
        kept = change.choose(places)
        values = measure_loss_change(kept, grads.choose(others))
        if weights is not None:
            values *= weights if kept is change else torch.stack([weights[i] for i in places])
        ledger.add_params(f"param.{statistic}", kept.table.indices, values, kept.table.shares)


def measure_loss_change(change: StackedRows, grads: StackedRows) -> Tensor:
    """``g . dw`` of each row: what an update changes of the loss, to first order.

    Args:
        change: samples of the updates.
        grads: of the gradients, likewise.

    Returns:
        Real, of each row; negative where the loss falls.

    Source: Lan, Liu, Zhou & Yosinski (2019), "LCA: Loss Change Allocation for Neural Network
    Training", equation 2, to first order.
    """
    values = grads.values
    total = sum_rows(
        change.values * (values.conj() if values.is_complex() else values), change.table
    )
    return total.real if total.is_complex() else total


def _add_decay(change: StackedRows, after: Tensor, rates: Sequence[float]) -> None:
    """Rate times the weight before the step, which is ``after - change``; at once of rows in turn
    with one rate."""
    start = 0
    pairs = zip(rates, change.table.lengths, strict=True)
    for rate, run in itertools.groupby(pairs, key=itemgetter(0)):
        end = start + sum(length for _, length in run)
        if rate:
            change.values[start:end].lerp_(after[start:end], rate)
        start = end
