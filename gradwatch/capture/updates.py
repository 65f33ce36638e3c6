"""What an optimizer makes of a gradient: each parameter's update, and the loss's change by it.

Gradients are sampled as the optimizer gets them, weights before and after its step; all three at
the same places of each parameter.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from gradwatch.capture.device_values import WHOLE_STEP, Ledger
from gradwatch.capture.param_values import (
    GradientReading,
    StackedRows,
    gather_rows,
    list_gradients,
    measure_norms,
)
from gradwatch.capture.parameters import Watched, localise


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
        indices: Container[int],
        ledger: Ledger,
        known: GradientReading,
    ) -> None:
        """Copy the samples of some parameters, and note the norms.

        Args:
            watched: all parameters.
            indices: which of them, where they have a gradient.
            ledger: takes ``step_grad_l2_norm``.
            known: what was read before, of gradients that nobody has touched since.
        """
        present = [(i, entry.param) for i, entry in enumerate(watched) if i in indices]
        fresh = [i for i, param in present if i not in known.norms and param.grad is not None]
        norms = dict(known.norms)
        if fresh or not known.is_aligned:
            aligned = ((i, align_gradient(param)) for i, param in present)
            self.rows += gather_rows((i, grad) for i, grad in aligned if grad is not None)
            touched = list_gradients(watched, set(fresh))
            measured = measure_norms([grad for _, grad in touched])
            norms |= {i: norm for (i, _), norm in zip(touched, measured, strict=True)}
        else:
            self.rows += known.rows
        for index, norm in norms.items():
            ledger.add("param.step_grad_l2_norm", index, WHOLE_STEP, norm)

    def covers(self, indices: Container[int]) -> bool:
        """Whether any of these parameters has been sampled.

        Args:
            indices: of parameters.
        """
        return any(index in indices for rows in self.rows for index in rows.indices)

    def find(self, indices: Sequence[int]) -> tuple[list[int], Tensor | None]:
        """Which of these there are, and their samples ``(n, length)``; ``None`` without any.

        Args:
            indices: of parameters, of one shape.

        Returns:
            Positions in ``indices`` of those that there are, and their samples in that order.
        """
        for rows in self.rows:
            if rows.indices == indices:
                return list(range(len(indices))), rows.values
        found = {
            i: row for rows in self.rows for i, row in zip(rows.indices, rows.values, strict=True)
        }
        numbers = [number for number, index in enumerate(indices) if index in found]
        chosen = [found[indices[number]] for number in numbers]
        return numbers, torch.stack(chosen) if chosen else None


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


def measure_loss_change(change: Tensor, grads: Tensor) -> Tensor:
    """``g . dw`` of each row: what an update changes of the loss, to first order.

    Args:
        change: samples of the updates ``(n, length)``.
        grads: of the gradients, likewise.

    Returns:
        Real ``(n,)``; negative where the loss falls.

    Example:
        >>> import torch
        >>> measure_loss_change(torch.tensor([[-0.1, 0.0]]), torch.tensor([[2.0, 5.0]])).tolist()
        [-0.20000000298023224]

    Source: Lan, Liu, Zhou & Yosinski (2019), "LCA: Loss Change Allocation for Neural Network
    Training", equation 2, to first order.
    """
    product = change * (grads.conj() if grads.is_complex() else grads)
    total = product.sum(1)
    return total.real if total.is_complex() else total


@dataclass
class Updates:
    """Samples of the parameters before a step, to be compared with those after it."""

    before: list[StackedRows]

    @classmethod
    @torch.no_grad()
    def begin(cls, watched: Sequence[Watched]) -> Updates:
        """Copy the samples.

        Args:
            watched: all parameters.
        """
        return cls(_gather_weights(watched, range(len(watched))))

    @torch.no_grad()
    def finish(
        self,
        watched: Sequence[Watched],
        waiting: Container[int],
        decay: dict[int, float],
        gradients: StepGradients,
        ledger: Ledger,
    ) -> None:
        """Norm of each update and its share of the loss's change, scaled from sample to parameter.

        Args:
            watched: the same parameters in the same order.
            waiting: indices of those whose optimizer has not stepped: nothing is known of them.
            decay: by ``id`` of a parameter, learning rate times decoupled weight decay: the part
                of the update that is decay and not learning is taken out.
            gradients: samples of what the optimizer got.
            ledger: takes ``update_l2_norm`` and ``loss_change``.
        """
        for old in self.before:
            decays = [decay.get(id(watched[index].param), 0.0) for index in old.indices]
            stepped = [index for index in old.indices if index not in waiting]
            for new in _gather_weights(watched, stepped):
                _add_updates(watched, old, new, decays, gradients, ledger)


def _gather_weights(watched: Sequence[Watched], indices: Iterable[int]) -> list[StackedRows]:
    return gather_rows((i, localise(watched[i].param)) for i in indices)


def _add_updates(
    watched: Sequence[Watched],
    old: StackedRows,
    new: StackedRows,
    decays: Sequence[float],
    gradients: StepGradients,
    ledger: Ledger,
) -> None:
    before, length = old.values, new.values.shape[1]
    if length != before.shape[1]:  # it has changed its shape
        return
    if new.indices != old.indices:
        kept = [old.indices.index(index) for index in new.indices]
        before, decays = before[kept], [decays[number] for number in kept]
    change = new.values.sub_(before)
    if any(decays):  # but what has no gradient does not decay either
        _add_decay(change, before * change.any(dim=1, keepdim=True), decays)
    places = [("param.update_l2_norm", index, WHOLE_STEP) for index in new.indices]
    scales = [(length / localise(watched[i].param).numel()) ** 0.5 for i in new.indices]
    ledger.add_row(places, torch.linalg.vector_norm(change, dim=1), scales)
    _add_loss_change(new.indices, change, scales, gradients, ledger)


def _add_loss_change(
    indices: Sequence[int],
    change: Tensor,
    scales: Sequence[float],
    gradients: StepGradients,
    ledger: Ledger,
) -> None:
    found, grads = gradients.find(indices)
    if grads is None or grads.shape[1] != change.shape[1]:
        return
    updates = change if len(found) == len(indices) else change[found]
    places = [("param.loss_change", indices[number], WHOLE_STEP) for number in found]
    shares = [scales[number] ** 2 for number in found]
    ledger.add_row(places, measure_loss_change(updates, grads), shares)


def _add_decay(change: Tensor, before: Tensor, decays: Sequence[float]) -> None:
    if len(set(decays)) == 1:
        change.add_(before, alpha=decays[0])
        return
    for number, share in enumerate(decays):
        change[number].add_(before[number], alpha=share)
