"""Norms and samples of parameters and of their gradients.

Gradients are read at the end of a backward pass: after accumulation and any all-reduce, before
clipping.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

import numpy as np
import torch
from torch import Tensor

from gradwatch.capture.device_values import REST, Ledger, RawValue
from gradwatch.capture.parameters import Watched, localise
from gradwatch.capture.row_sums import count_nonzeros
from gradwatch.capture.sample_rows import Gatherer, Samples, StackedRows
from gradwatch.capture.tensor_norms import Norms, measure_each, measure_norms
from gradwatch.capture.weight_samples import WeightSamples, are_dense, take_values

_GRAD, _VERSION = attrgetter("param.grad"), attrgetter("_version")


@dataclass
class GradientReading:
    """What was read of the gradients at one moment.

    Attributes:
        indices: of the parameters with a gradient that can be read.
        norms: of the gradients.
        rows: samples of the gradients, in the weights' order of elements ...
        is_aligned: ... if this is set.
    """

    indices: frozenset[int] = frozenset()
    norms: list[Norms] = field(default_factory=list)
    rows: list[StackedRows] = field(default_factory=list)
    is_aligned: bool = False

    def choose(self, indices: set[int]) -> GradientReading:
        """Of some parameters; samples only where they are of these alone.

        Args:
            indices: of parameters.
        """
        if self.indices <= indices:
            return self
        chosen = (norms.choose(indices) for norms in self.norms)
        norms = [norms for norms in chosen if norms is not None]
        return GradientReading(self.indices & indices, norms)


@torch.no_grad()
def read_gradients(
    watched: Sequence[Watched],
    ledger: Ledger,
    gatherer: Gatherer,
    weights: WeightSamples,
    indices: Collection[int] | None = None,
) -> GradientReading:
    """Norm, zeros and non-finite elements of each gradient there is, of all or some parameters.

    Args:
        watched: all parameters.
        ledger: takes ``grad_l2_norm``, ``zero_fraction`` and ``nonfinite_count``.
        gatherer: takes the samples.
        weights: of the parameters.
        indices: of those to be read; ``None``: all.
    """
    samples = gatherer.bind(*list_gradients(watched, indices))
    rows = samples.take()
    norms = measure_norms(samples, rows)
    is_finite = all(map(_is_known_finite, norms))
    for each in norms:
        each.note("param.grad_l2_norm", ledger)
    for stacked in rows:
        _count_elements(stacked, ledger, is_finite)
    read = frozenset(samples.grouping.indices)
    return GradientReading(read, norms, rows, _is_aligned(samples, weights))


def _is_aligned(grads: Samples, weights: WeightSamples) -> bool:
    """Whether each gradient lies in memory as its weight does."""
    looks = weights.looks
    if grads.grouping.indices != weights.indices:
        places = dict(zip(weights.indices, looks, strict=True))
        looks = [places.get(index, ()) for index in grads.grouping.indices]
    return grads.grouping.looks == looks


def note_trainable(watched: Sequence[Watched]) -> None:
    """Some loops freeze parts in turns: what could learn at any time of a step is trainable.

    Args:
        watched: all parameters, which are marked.
    """
    for entry in watched:
        entry.was_trainable |= entry.param.requires_grad


def stamp_gradients(watched: Sequence[Watched]) -> dict[int, tuple[int, int]]:
    """By index, what tells whether somebody has written to a gradient or put another there.

    Args:
        watched: all parameters.

    Returns:
        Identity and version; without the parameters that have no gradient.
    """
    indices, grads = _list_present(watched)
    return dict(zip(indices, zip(map(id, grads), map(_VERSION, grads), strict=True), strict=True))


def _list_present(watched: Sequence[Watched]) -> tuple[list[int], list[Tensor]]:
    grads = list(map(_GRAD, watched))
    indices = [index for index, grad in enumerate(grads) if grad is not None]
    return indices, [grads[index] for index in indices]


def list_gradients(
    watched: Sequence[Watched], indices: Collection[int] | None = None
) -> tuple[list[int], list[Tensor]]:
    """Gradients of which this rank holds anything, and the indices of their parameters.

    Args:
        watched: all parameters.
        indices: of those that are wanted; ``None``: all.

    Returns:
        Of a sparse gradient its values ``(nnz, ...)``.
    """
    numbers, grads = _list_present(watched)
    if indices is not None and not all(map(indices.__contains__, numbers)):
        kept = [place for place, number in enumerate(numbers) if number in indices]
        numbers, grads = [numbers[place] for place in kept], [grads[place] for place in kept]
    if are_dense(grads):
        return numbers, grads
    local = [(number, localise(grad)) for number, grad in zip(numbers, grads, strict=True)]
    there = [(number, take_values(grad)) for number, grad in local if grad.numel()]
    return [number for number, _ in there], [grad for _, grad in there]


def _is_known_finite(norms: Norms) -> bool:
    """Whether no element can be broken; of a GPU's numbers nothing is known without a wait."""
    return norms.values.is_cpu and bool(np.isfinite(norms.values.numpy()).all())


def _count_elements(rows: StackedRows, ledger: Ledger, is_finite: bool) -> None:
    table, zeros = rows.table, count_nonzeros(rows)
    ledger.add_params("param.zero_fraction", table.indices, zeros, table.lengths, REST)
    broken = torch.zeros(len(table.rows))
    if not is_finite:
        broken = count_nonzeros(StackedRows(table, rows.values * 0))
    ledger.add_params("param.nonfinite_count", table.indices, broken, table.shares)


def measure_residue(watched: Sequence[Watched]) -> RawValue:
    """Zero when no gradient is left from an earlier pass, else more than that.

    Args:
        watched: all parameters.

    Returns:
        The sum of all norms, float64, on the gradients' device.
    """
    _, grads = list_gradients(watched)
    with torch.no_grad():
        values = [norm.value.double() for norm in measure_each(grads)]
    return RawValue(torch.stack(values).sum() if values else torch.zeros(()))


@torch.no_grad()
def read_weights(weights: WeightSamples, ledger: Ledger) -> None:
    """Norm of each parameter.

    Args:
        weights: of the step.
        ledger: takes ``weight_l2_norm``.
    """
    rows = weights.take_shown()
    for norms in measure_norms(weights.samples, rows):
        norms.note("param.weight_l2_norm", ledger)
