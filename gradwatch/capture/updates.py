"""What an optimizer makes of a gradient: each parameter's update, and the loss's change by it.

Gradients are sampled as the optimizer gets them, weights before and after its step; all three at
the same places of each parameter.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from gradwatch.capture.device_values import Ledger
from gradwatch.capture.param_values import GradientReading, list_gradients, measure_norms
from gradwatch.capture.parameters import Watched, localise
from gradwatch.capture.sample_rows import Gatherer, Group, StackedRows


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
        gatherer: Gatherer,
    ) -> None:
        """Copy the samples of some parameters, and note the norms.

        Args:
            watched: all parameters.
            indices: which of them, where they have a gradient.
            ledger: takes ``step_grad_l2_norm``.
            known: what was read before, of gradients that nobody has touched since.
            gatherer: takes the samples.
        """
        present = [(i, entry.param) for i, entry in enumerate(watched) if i in indices]
        read, norms = known.indices, list(known.norms)
        fresh = {i for i, param in present if i not in read and param.grad is not None}
        if fresh or not known.is_aligned:
            aligned = [(i, align_gradient(param)) for i, param in present]
            dense = {i: grad for i, grad in aligned if grad is not None}
            self.rows += gatherer.gather(list(dense), list(dense.values())).rows
            touched, grads = list_gradients(watched, fresh)
            norms += measure_norms(gatherer.gather(touched, grads), grads)
        else:
            self.rows += known.rows
        for each in norms:
            each.note("param.step_grad_l2_norm", ledger)

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
    def begin(cls, watched: Sequence[Watched], gatherer: Gatherer) -> Updates:
        """Copy the samples.

        Args:
            watched: all parameters.
            gatherer: takes the samples.
        """
        return cls(_gather_weights(watched, range(len(watched)), gatherer))

    @torch.no_grad()
    def finish(
        self, watched: Sequence[Watched], stepped: Container[int], gatherer: Gatherer
    ) -> list[Update]:
        """Take the samples again.

        Args:
            watched: the same parameters in the same order.
            stepped: indices of those whose optimizer has stepped; of others nothing is known.
            gatherer: takes the samples.

        Returns:
            Without the parameters that have changed their shape.
        """
        indices = [index for index in range(len(watched)) if index in stepped]
        after = _gather_weights(watched, indices, gatherer)
        if [new.group for new in after] == [old.group for old in self.before]:
            pairs = zip(self.before, after, strict=True)
            return [Update(old.group, old.values, new.values) for old, new in pairs]
        rows = {
            index: row
            for old in self.before
            for index, row in zip(old.indices, old.values, strict=True)
        }
        return [update for new in after for update in _match(rows, new)]


@dataclass
class Update:
    """Samples of some parameters before and after a step.

    Attributes:
        group: the parameters.
        before, after: ``(n, length)``.
    """

    group: Group
    before: Tensor
    after: Tensor


def _match(before: dict[int, Tensor], new: StackedRows) -> list[Update]:
    """One by one, where not all parameters have stepped."""
    facts = zip(new.indices, new.group.positions, new.group.shares, new.values, strict=True)
    single = (
        (Group([index], [position], *new.group[2:-1], [share]), before[index], row)
        for index, position, share, row in facts
        if index in before
    )
    return [
        Update(group, old.unsqueeze(0), row.unsqueeze(0))
        for group, old, row in single
        if old.shape == row.shape
    ]


def _gather_weights(
    watched: Sequence[Watched], indices: Iterable[int], gatherer: Gatherer
) -> list[StackedRows]:
    chosen = list(indices)
    return gatherer.gather(chosen, [localise(watched[index].param) for index in chosen]).rows


@torch.no_grad()
def note_updates(
    updates: Iterable[Update],
    watched: Sequence[Watched],
    decay: dict[int, float],
    gradients: StepGradients,
    ledger: Ledger,
) -> None:
    """Norm of each update and its share of the loss's change, scaled from sample to parameter.

    Args:
        updates: samples of which nobody has use any more.
        watched: all parameters.
        decay: by ``id`` of a parameter, learning rate times decoupled weight decay: the part of the
            update that is decay and not learning is taken out.
        gradients: samples of what the optimizer got.
        ledger: takes ``update_l2_norm`` and ``loss_change``.
    """
    for update in updates:
        indices, shares = update.group.indices, update.group.shares
        decays = [decay.get(id(watched[index].param), 0.0) for index in indices]
        change = update.after.sub_(update.before)
        norms = torch.linalg.vector_norm(change, dim=1)
        if any(decays):
            _add_decay(change, update.before, norms, decays)
            norms = torch.linalg.vector_norm(change, dim=1)
        scales = [share**0.5 for share in shares]
        ledger.add_params("param.update_l2_norm", indices, norms, scales)
        _note_loss_change(indices, shares, change, gradients, ledger)


def _note_loss_change(
    indices: list[int],
    shares: list[float],
    change: Tensor,
    gradients: StepGradients,
    ledger: Ledger,
) -> None:
    found, grads = gradients.find(indices)
    if grads is None or grads.shape[1] != change.shape[1]:
        return
    if len(found) < len(indices):
        change = torch.stack([change[number] for number in found])
        indices = [indices[number] for number in found]
        shares = [shares[number] for number in found]
    values = measure_loss_change(change, grads)
    ledger.add_params("param.loss_change", indices, values, shares)


def _add_decay(change: Tensor, before: Tensor, norms: Tensor, decays: Sequence[float]) -> None:
    """What has no gradient does not decay either."""
    moved = norms.sign().to(change.dtype).unsqueeze(1)
    if len(set(decays)) == 1:
        change.addcmul_(before, moved, value=decays[0])
        return
    for row, old, has_moved, share in zip(change, before, moved, decays, strict=True):
        row.addcmul_(old, has_moved, value=share)
