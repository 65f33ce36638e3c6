"""What is measured of a tensor: raw values that stay on its device.

Nothing here waits for the device. How the values of several passes (accumulation) merge is declared
in ``schema.statistics``; norms merge through their squares.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from gradwatch.capture.device_values import REST, ROOT, RawValue
from gradwatch.records import HISTOGRAM_EDGES
from gradwatch.schema.statistics import find_statistic

_norm: Callable[..., Tensor] = torch.linalg.vector_norm

SAMPLE_SIZE = 8192
"""Fractions of a tensor with more elements come from a sample of half as many."""

RUNS = 977
"""A sample consists of about this many runs, evenly spread. A prime, so that they do not march in
step with the rows of a tensor."""

RUN_LENGTH = 4
"""Elements of a run. Neighbours come from memory together: four of them cost as much as one.

The standard error of a fraction is 0.01 where elements know nothing of each other, and 0.02 where
those of a run are all alike.
"""

BLOCK_SIZE = 2**17
"""Squares of larger tensors are summed in blocks, to keep the float32 error below 1e-6."""

_DOT_DTYPES = frozenset((torch.float32, torch.float64))
_HALF_DTYPES = frozenset((torch.float16, torch.bfloat16))

HISTOGRAM_BINS = len(HISTOGRAM_EDGES) - 1

BIN_PREFIX = "units."
PARAM_PREFIX = "param."
SCALED_SUFFIX = ".scaled"
"""Of keys under which values wait for their transfer: counts by bin of a histogram; statistics of
parameters; those that were read before the loss scale was divided out."""


def find_merge(key: str) -> str:
    """How values of one key from several passes become one: see ``schema.statistics.CallMerge``.

    Args:
        key: a statistic's name, with the prefix and suffix under which it waits.

    Returns:
        ``"sum"``, ``"l2"``, ``"mean"``, ``"max"`` or ``"last"``.
    """
    if key.startswith(BIN_PREFIX):
        return "sum"
    name = key.removeprefix(PARAM_PREFIX).removesuffix(SCALED_SUFFIX)
    row = find_statistic("layer" if name == key else "param", name)
    return "last" if row is None else row.over_calls


def flatten_dense(tensor: Tensor) -> Tensor:
    """All elements, flat, in memory order: a view wherever the memory has no gaps.

    Args:
        tensor: of any shape; it is copied only where its memory has gaps.

    Returns:
        ``(numel,)``, detached.
    """
    values = tensor.detach() if tensor.requires_grad else tensor
    if not values.is_contiguous():
        strides = values.stride()
        values = values.permute(sorted(range(values.dim()), key=lambda dim: -strides[dim]))
    return values if values.dim() == 1 else values.reshape(-1)


def take_sample(tensor: Tensor) -> Tensor:
    """All elements, flat, of a small tensor; of a large one about ``(RUNS, RUN_LENGTH)`` of them.

    Always the same elements of tensors that lie in memory alike.

    Args:
        tensor: of any shape.

    Returns:
        ``(numel,)`` up to ``SAMPLE_SIZE`` elements, else ``(runs, RUN_LENGTH)``; a view of them.

    Example:
        >>> import torch
        >>> take_sample(torch.zeros(10, 10)).shape, take_sample(torch.zeros(1000, 1000)).shape
        (torch.Size([100]), torch.Size([974, 4]))
    """
    flat = flatten_dense(tensor)
    size = flat.numel()
    return flat if size <= SAMPLE_SIZE else flat.unfold(0, RUN_LENGTH, choose_stride(size))


def choose_stride(size: int) -> int:
    """Distance of a sample's runs: it shares no factor with the usual lengths of rows and kernels.

    With 9 the runs would meet the same four places of every 3 x 3 kernel.

    Args:
        size: elements of the tensor, above ``SAMPLE_SIZE``.

    Example:
        >>> choose_stride(960 * 9)
        13
    """
    stride = size // RUNS
    while math.gcd(stride, _USUAL_FACTORS) > 1:
        stride += 1
    return stride


_USUAL_FACTORS = 2 * 3 * 5 * 7 * 11


def measure_l2_norm(tensor: Tensor) -> RawValue:
    """Euclidean norm over all elements.

    float64 stays float64; half precision and float32 are summed in float32, which on a CPU is a
    dot product. Complex numbers count by their modulus. Elements below about 1e-23 underflow in
    float32: see ``grad_zero_fraction``.

    Args:
        tensor: of any shape and dtype; an empty one has the norm 0.

    Example:
        >>> import torch
        >>> reading = measure_l2_norm(torch.tensor([3.0, 4.0]))
        >>> reading.value.item(), reading.kind == ROOT  # the host takes the square root
        (25.0, True)
    """
    flat = flatten_dense(tensor)
    if flat.is_cpu and flat.dtype in _HALF_DTYPES:
        flat = flat.float()
    if flat.is_cpu and flat.dtype in _DOT_DTYPES:
        return measure_flat_norm(flat)
    return RawValue(_norm(flat, dtype=torch.float32 if flat.dtype in _HALF_DTYPES else None))


def measure_flat_norm(flat: Tensor) -> RawValue:
    """As ``measure_l2_norm``, of what needs no care; to be called where gradients are switched off.

    Args:
        flat: float32 or float64 ``(n,)``, on a CPU.
    """
    if flat.numel() == 1:  # whose square may overflow
        return RawValue(_norm(flat))
    return RawValue(_sum_squares(flat), ROOT)


def _sum_squares(flat: Tensor) -> Tensor:
    if flat.numel() <= BLOCK_SIZE:
        return torch.dot(flat, flat)
    return torch.stack([torch.dot(block, block) for block in flat.split(BLOCK_SIZE)]).sum()


def measure_norms_of_rows(rows: Tensor, in_place: bool = False) -> RawValue:
    """Euclidean norm of each row; on a CPU to 1e-7, where ``vector_norm`` is right to 6e-7.

    Args:
        rows: real ``(n, length)``, float32 or float64, with at most ``SAMPLE_SIZE`` elements each.
        in_place: the rows may be written to.

    Returns:
        With a value ``(n,)``.
    """
    if rows.is_cpu and rows.shape[1] > 1:  # the square of a single one may overflow
        squares = rows.mul_(rows) if in_place else rows * rows
        return RawValue(squares.sum(1), ROOT)
    return RawValue(_norm(rows, dim=1))


def measure_zero_fraction(tensor: Tensor) -> RawValue:
    """Share of elements that are exactly zero, of a sample.

    Args:
        tensor: of any shape and dtype.

    Example:
        >>> import torch
        >>> reading = measure_zero_fraction(torch.tensor([0.0, 0.0, 0.0, 2.0]))
        >>> 1 - reading.value.item() / reading.divisor  # as the host does
        0.75
    """
    sample = take_sample(tensor)
    return RawValue(torch.count_nonzero(sample), REST, max(sample.numel(), 1))


def count_nonzero(rows: Tensor) -> Tensor:
    """Of each row, the elements that are not zero; NaN is none.

    Args:
        rows: ``(n, length)`` of any dtype, with a length that float32 can count.

    Returns:
        Float32 ``(n,)``, on the device.

    Example:
        >>> count_nonzero(torch.tensor([[0.0, 2.0], [float("nan"), 0.0]])).tolist()
        [1.0, 1.0]
    """
    if rows.is_complex():
        count: Tensor = torch.linalg.vector_norm(rows, 0, dim=1)
        return count
    flags = torch.empty(rows.shape, dtype=torch.float32, device=rows.device)
    return torch.ne(rows, 0, out=flags).sum(1)


def widen(values: Tensor) -> Tensor:
    """Half precision as float32.

    Args:
        values: of any dtype; others stay as they are.
    """
    return values.float() if values.dtype in _HALF_DTYPES else values


def count_histogram(x: Tensor) -> Tensor:
    """Elements of a sample of pre-activations by bin of ``HISTOGRAM_EDGES``: ``(64,)``.

    Args:
        x: of any shape; what lies outside of the edges counts to the last bin on its side.

    Example:
        >>> import torch
        >>> counts = count_histogram(torch.tensor([-20.0, 0.1, 0.2, 8.0]))
        >>> counts[0].item(), counts[32].item(), counts[-1].item()
        (1.0, 2.0, 1.0)
    """
    low, high = HISTOGRAM_EDGES[0], HISTOGRAM_EDGES[-1]
    values = take_sample(x).float().clamp(low, high)
    return torch.histc(values, HISTOGRAM_BINS, low, high)


def find_fired_units(y: Tensor, axis: int) -> Tensor:
    """Which units of a rectifier fired for any sample: bool ``(units,)``.

    Args:
        y: its output.
        axis: dimension that counts units; negative where all of it belongs to one.

    Example:
        >>> import torch
        >>> find_fired_units(torch.tensor([[0.0, 1.0], [0.0, 0.0]]), axis=1).tolist()
        [False, True]
    """
    values = y.detach()
    if axis < 0:
        return values.amax().reshape(1) > 0
    if axis > 0:  # the batch by itself: its reduction runs along the memory
        values, axis = values.amax(0), axis - 1
    rest = [dim for dim in range(values.dim()) if dim != axis]
    return (values.amax(rest) if rest else values) > 0
