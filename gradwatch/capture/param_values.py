"""Norms and samples of parameters and of their gradients, through the multi-tensor kernels.

Gradients are read at the end of a backward pass: after accumulation and any all-reduce, before
clipping.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gradwatch.capture.device_values import REST, WHOLE_STEP, Ledger, RawValue
from gradwatch.capture.opaque_tensors import is_opaque
from gradwatch.capture.parameters import Watched, localise
from gradwatch.capture.shards import is_elsewhere
from gradwatch.capture.statistics import measure_l2_norm, view_sample, widen

FOREACH_SIZE = 2**14
"""Elements up to which the sum of squares of a CPU's multi-tensor kernel is right to 2e-7."""


@dataclass
class StackedRows:
    """Samples of equal length, one row for each tensor.

    Attributes:
        indices: of the tensors.
        values: ``(len(indices), length)``, a copy.
    """

    indices: list[int]
    values: Tensor


@dataclass
class GradientReading:
    """What was read of the gradients at one moment.

    Attributes:
        norms: by index of a parameter.
        rows: samples of the gradients, in the weights' order of elements ...
        is_aligned: ... if this is set.
    """

    norms: dict[int, RawValue] = field(default_factory=dict)
    rows: list[StackedRows] = field(default_factory=list)
    is_aligned: bool = False

    def choose(self, indices: Container[int]) -> GradientReading:
        """Of some parameters; samples only where they are of these alone.

        Args:
            indices: of parameters.
        """
        norms = {index: norm for index, norm in self.norms.items() if index in indices}
        if len(norms) < len(self.norms):
            return GradientReading(norms)
        return self


def read_gradients(
    watched: Sequence[Watched], ledger: Ledger, indices: Container[int] | None = None
) -> GradientReading:
    """Norm, zeros and non-finite elements of each gradient there is, of all or some parameters.

    Args:
        watched: all parameters.
        ledger: takes ``grad_l2_norm``, ``zero_fraction`` and ``nonfinite_count``.
        indices: of those to be read; ``None``: all.
    """
    for entry in watched:
        entry.note_trainable()
    with torch.no_grad():
        present = list_gradients(watched, indices)
        norms = measure_norms([grad for _, grad in present])
        known = {index: norm for (index, _), norm in zip(present, norms, strict=True)}
        for index, norm in known.items():
            ledger.add("param.grad_l2_norm", index, WHOLE_STEP, norm)
        sizes = {index: grad.numel() for index, grad in present}
        samples = gather_rows(present)
        for rows in samples:
            _count_elements(rows, sizes, ledger)
    return GradientReading(known, samples, _is_aligned(watched, present))


def _is_aligned(watched: Sequence[Watched], grads: Sequence[tuple[int, Tensor]]) -> bool:
    """Whether each gradient lies in memory as its weight does."""
    pairs = ((grad, localise(watched[index].param)) for index, grad in grads)
    return all(
        grad.stride() == weight.stride() and grad.shape == weight.shape for grad, weight in pairs
    )


def stamp_gradients(watched: Sequence[Watched]) -> dict[int, tuple[int, int]]:
    """By index, what tells whether somebody has written to a gradient or put another there.

    Args:
        watched: all parameters.

    Returns:
        Identity and version; without the parameters that have no gradient.
    """
    grads = ((i, entry.param.grad) for i, entry in enumerate(watched))
    return {i: (id(grad), grad._version) for i, grad in grads if grad is not None}


def list_gradients(
    watched: Sequence[Watched], indices: Container[int] | None = None
) -> list[tuple[int, Tensor]]:
    """Gradients of which this rank holds anything, with the index of their parameter.

    Args:
        watched: all parameters.
        indices: of those that are wanted; ``None``: all.

    Returns:
        Of a sparse gradient its values ``(nnz, ...)``.
    """
    grads = (
        (i, entry.param.grad) for i, entry in enumerate(watched) if indices is None or i in indices
    )
    local = ((i, localise(grad)) for i, grad in grads if grad is not None)
    return [(i, _take_values(grad)) for i, grad in local if grad.numel()]


def _count_elements(rows: StackedRows, sizes: dict[int, int], ledger: Ledger) -> None:
    length = rows.values.shape[1]
    zeros = [("param.zero_fraction", index, WHOLE_STEP) for index in rows.indices]
    ledger.add_row(zeros, _count_nonzero(rows.values), [length] * len(zeros), REST)
    broken = [("param.nonfinite_count", index, WHOLE_STEP) for index in rows.indices]
    shares = [length / sizes[index] for index in rows.indices]
    ledger.add_row(broken, _count_nonzero(rows.values * 0), shares)  # NaN where it is broken


def _count_nonzero(rows: Tensor) -> Tensor:
    count: Tensor = torch.linalg.vector_norm(rows, 0, dim=1)
    return count


def measure_residue(watched: Sequence[Watched]) -> RawValue:
    """Zero when no gradient is left from an earlier pass, else more than that.

    Args:
        watched: all parameters.

    Returns:
        The sum of all norms, float64, on the gradients' device.
    """
    with torch.no_grad():
        norms = measure_norms([grad for _, grad in list_gradients(watched)])
    values = [norm.value.double() for norm in norms]
    return RawValue(torch.stack(values).sum() if values else torch.zeros(()))


def read_weights(watched: Sequence[Watched], ledger: Ledger) -> None:
    """Norm of each parameter.

    Args:
        watched: all parameters.
        ledger: takes ``weight_l2_norm``.
    """
    params = enumerate(entry.param for entry in watched)
    here = [pair for pair in params if not (is_elsewhere(pair[1]) or is_opaque(pair[1]))]
    with torch.no_grad():
        norms = measure_norms([_take_values(localise(param)) for _, param in here])
    for (index, _), norm in zip(here, norms, strict=True):
        ledger.add("param.weight_l2_norm", index, WHOLE_STEP, norm)


def _take_values(tensor: Tensor) -> Tensor:
    return tensor.detach().coalesce().values() if tensor.is_sparse else tensor


def measure_norms(tensors: Sequence[Tensor]) -> list[RawValue]:
    """L2 norms of many tensors, through the multi-tensor kernels where they are exact enough.

    To be called where gradients are switched off.

    Args:
        tensors: of any shapes, dtypes and devices.

    Returns:
        In their order.
    """
    chosen = [i for i, tensor in enumerate(tensors) if _fits_foreach(tensor)]
    if not chosen:
        return [measure_l2_norm(tensor) for tensor in tensors]
    fused = dict(zip(chosen, torch._foreach_norm([tensors[i] for i in chosen]), strict=True))
    return [
        RawValue(fused[i]) if i in fused else measure_l2_norm(tensor)
        for i, tensor in enumerate(tensors)
    ]


def _fits_foreach(tensor: Tensor) -> bool:
    """On a GPU everything in float32; on a CPU, which sums one after another, small tensors."""
    is_exact = tensor.is_cuda or (tensor.is_cpu and 1 < tensor.numel() <= FOREACH_SIZE)
    return is_exact and tensor.dtype == torch.float32


def gather_rows(tensors: Iterable[tuple[int, Tensor]]) -> list[StackedRows]:
    """Samples of tensors that have an index each; half precision as float32.

    To be called where gradients are switched off.

    Args:
        tensors: with the index of the parameter that each belongs to; an empty one gives no row.

    Returns:
        Those of one device, dtype and shape together.
    """
    groups: dict[Any, list[tuple[int, Tensor]]] = defaultdict(list)
    for index, tensor in tensors:
        sample = view_sample(tensor)
        groups[sample.device, sample.dtype, sample.shape].append((index, sample))
    return [_stack_rows(group) for (_, _, shape), group in groups.items() if shape.numel()]


def _stack_rows(group: list[tuple[int, Tensor]]) -> StackedRows:
    values = widen(torch.stack([sample for _, sample in group]))
    return StackedRows([index for index, _ in group], values.reshape(len(group), -1))
