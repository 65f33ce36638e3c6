"""Norms and samples of parameters and of their gradients, through the multi-tensor kernels.

Gradients are read at the end of a backward pass: after accumulation and any all-reduce, before
clipping.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from gradwatch.capture.device_values import PLAIN, REST, Ledger, RawValue
from gradwatch.capture.opaque_tensors import is_opaque
from gradwatch.capture.parameters import Watched, localise
from gradwatch.capture.sample_rows import Gathered, Gatherer, StackedRows
from gradwatch.capture.shards import is_elsewhere
from gradwatch.capture.statistics import (
    count_nonzero,
    measure_flat_norm,
    measure_l2_norm,
    measure_norms_of_rows,
)

_ROW_DTYPES = frozenset((torch.float32, torch.float64))


@dataclass
class Norms:
    """L2 norms of some tensors.

    Attributes:
        indices: of the tensors.
        values: ``(len(indices),)``, raw, on their device.
        kind: what the host makes of them, as in ``device_values.RawValue``.
    """

    indices: list[int]
    values: Tensor
    kind: int = PLAIN

    def choose(self, indices: Container[int]) -> Norms | None:
        """Of some tensors; ``None`` where there is none of them.

        Args:
            indices: of tensors.
        """
        kept = [number for number, index in enumerate(self.indices) if index in indices]
        if len(kept) == len(self.indices):
            return self
        if not kept:
            return None
        values = torch.stack([self.values[number] for number in kept])
        return Norms([self.indices[number] for number in kept], values, self.kind)

    def note(self, statistic: str, ledger: Ledger) -> None:
        """Hand them over.

        Args:
            statistic: of which they are values.
            ledger: of the step.
        """
        ones = [1.0] * len(self.indices)
        ledger.add_params(statistic, self.indices, self.values, ones, self.kind)


@dataclass
class GradientReading:
    """What was read of the gradients at one moment.

    Attributes:
        norms: of the gradients.
        rows: samples of the gradients, in the weights' order of elements ...
        is_aligned: ... if this is set.
    """

    norms: list[Norms] = field(default_factory=list)
    rows: list[StackedRows] = field(default_factory=list)
    is_aligned: bool = False

    @property
    def indices(self) -> set[int]:
        """Of the parameters with a norm."""
        return {index for norms in self.norms for index in norms.indices}

    def choose(self, indices: set[int]) -> GradientReading:
        """Of some parameters; samples only where they are of these alone.

        Args:
            indices: of parameters.
        """
        if self.indices <= indices:
            return self
        chosen = (norms.choose(indices) for norms in self.norms)
        return GradientReading([norms for norms in chosen if norms is not None])


def read_gradients(
    watched: Sequence[Watched],
    ledger: Ledger,
    gatherer: Gatherer,
    indices: Container[int] | None = None,
) -> GradientReading:
    """Norm, zeros and non-finite elements of each gradient there is, of all or some parameters.

    Args:
        watched: all parameters.
        ledger: takes ``grad_l2_norm``, ``zero_fraction`` and ``nonfinite_count``.
        gatherer: takes the samples.
        indices: of those to be read; ``None``: all.
    """
    for entry in watched:
        entry.note_trainable()
    with torch.no_grad():
        numbers, grads = list_gradients(watched, indices)
        gathered = gatherer.gather(numbers, grads)
        norms = measure_norms(gathered, grads)
        is_finite = all(map(_is_known_finite, norms))
        for each in norms:
            each.note("param.grad_l2_norm", ledger)
        for rows in gathered.rows:
            _count_elements(rows, ledger, is_finite)
    return GradientReading(norms, gathered.rows, _is_aligned(watched, gathered))


def _is_aligned(watched: Sequence[Watched], grads: Gathered) -> bool:
    """Whether each gradient lies in memory as its weight does."""
    for index, look in zip(grads.indices, grads.looks, strict=True):
        weight = localise(watched[index].param)
        if weight.stride() != look[1] or weight.shape != look[0]:
            return False
    return True


def stamp_gradients(watched: Sequence[Watched]) -> dict[int, tuple[int, int]]:
    """By index, what tells whether somebody has written to a gradient or put another there.

    Args:
        watched: all parameters.

    Returns:
        Identity and version; without the parameters that have no gradient.
    """
    return {
        index: (id(grad), grad._version)
        for index, entry in enumerate(watched)
        if (grad := entry.param.grad) is not None
    }


def list_gradients(
    watched: Sequence[Watched], indices: Container[int] | None = None
) -> tuple[list[int], list[Tensor]]:
    """Gradients of which this rank holds anything, and the indices of their parameters.

    Args:
        watched: all parameters.
        indices: of those that are wanted; ``None``: all.

    Returns:
        Of a sparse gradient its values ``(nnz, ...)``.
    """
    numbers: list[int] = []
    found: list[Tensor] = []
    for number, entry in enumerate(watched):
        grad = entry.param.grad
        if grad is None or not (indices is None or number in indices):
            continue
        local = localise(grad)
        if local.numel():
            numbers.append(number)
            found.append(_take_values(local) if local.is_sparse else local)
    return numbers, found


def _is_known_finite(norms: Norms) -> bool:
    """Whether no element can be broken; of a GPU's numbers nothing is known without a wait."""
    return norms.values.is_cpu and bool(np.isfinite(norms.values.numpy()).all())


def _count_elements(rows: StackedRows, ledger: Ledger, is_finite: bool) -> None:
    indices, length = rows.indices, rows.group.length
    sizes = [float(length)] * len(indices)
    zeros = count_nonzero(rows.values)
    ledger.add_params("param.zero_fraction", indices, zeros, sizes, REST)
    broken = torch.zeros(len(indices)) if is_finite else count_nonzero(rows.values * 0)
    ledger.add_params("param.nonfinite_count", indices, broken, rows.group.shares)


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


def read_weights(watched: Sequence[Watched], ledger: Ledger, gatherer: Gatherer) -> None:
    """Norm of each parameter.

    Args:
        watched: all parameters.
        ledger: takes ``weight_l2_norm``.
        gatherer: takes the samples.
    """
    indices: list[int] = []
    values: list[Tensor] = []
    for index, entry in enumerate(watched):
        value = localise(entry.param)
        if value.numel() or not (is_opaque(entry.param) or is_elsewhere(entry.param)):
            indices.append(index)
            values.append(_take_values(value) if value.is_sparse else value)
    with torch.no_grad():
        gathered = gatherer.gather(indices, values, whole_only=True)
        for norms in measure_norms(gathered, values):
            norms.note("param.weight_l2_norm", ledger)


def _take_values(tensor: Tensor) -> Tensor:
    return tensor.detach().coalesce().values()


def measure_norms(gathered: Gathered, tensors: Sequence[Tensor]) -> list[Norms]:
    """L2 norms of many tensors: on a CPU of all small ones of a shape together.

    To be called where gradients are switched off.

    Args:
        gathered: samples of the tensors.
        tensors: of any shapes, dtypes and devices.

    Returns:
        In any order.
    """
    found: list[Norms] = []
    missing = dict(zip(gathered.indices, tensors, strict=True))
    for rows in gathered.rows:
        if _shows_norms(rows):
            norms = measure_norms_of_rows(rows.values)
            found.append(Norms(rows.indices, norms.value, norms.kind))
            for index in rows.indices:
                del missing[index]
    groups: dict[tuple[int, torch.dtype, torch.device], list[tuple[int, Tensor]]]
    groups = defaultdict(list)
    readings = measure_each(list(missing.values()))
    for index, (value, kind, _) in zip(missing, readings, strict=True):
        groups[kind, value.dtype, value.device].append((index, value))
    for (kind, *_), group in groups.items():
        values = torch.stack([value for _, value in group])
        found.append(Norms([index for index, _ in group], values, kind))
    return found


def _shows_norms(rows: StackedRows) -> bool:
    """Whether rows of whole tensors are on a CPU; a GPU takes the tensors all at once."""
    is_exact = rows.values.dtype in _ROW_DTYPES and rows.group.length > 1
    return is_exact and rows.values.is_cpu and rows.group.is_whole


def measure_each(tensors: Sequence[Tensor]) -> list[RawValue]:
    """L2 norms of tensors, one by one; on a GPU through its multi-tensor kernel.

    To be called where gradients are switched off.

    Args:
        tensors: of any shapes, dtypes and devices.

    Returns:
        In their order.
    """
    chosen = [tensor for tensor in tensors if tensor.is_cuda and tensor.dtype is torch.float32]
    fused = dict(zip(map(id, chosen), torch._foreach_norm(chosen) if chosen else (), strict=True))
    found = []
    for tensor in tensors:
        if id(tensor) in fused:
            found.append(RawValue(fused[id(tensor)]))
        elif tensor.is_cpu and tensor.dtype is torch.float32 and tensor.is_contiguous():
            found.append(measure_flat_norm(tensor.view(-1)))
        else:
            found.append(measure_l2_norm(tensor))
    return found
