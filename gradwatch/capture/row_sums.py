"""Sums over each row of samples that stand in one vector."""

from __future__ import annotations

import torch
from torch import Tensor

from gradwatch.capture.sample_rows import StackedRows
from gradwatch.capture.sample_tables import Table


def sum_rows(values: Tensor, table: Table) -> Tensor:
    """Sum of each row.

    Args:
        values: ``(table.size,)``.
        table: the rows.

    Returns:
        ``(len(table.rows),)``, on the device.
    """
    return torch.cat([rows.sum(1) for rows in table.split(values)])


def sum_squares(rows: StackedRows) -> Tensor:
    """Sum of each row's squares, to 1e-7 on a CPU, where ``vector_norm`` is right to 6e-7.

    The square of a single element has room in float64; of more of them float32 would have to keep
    the sum.

    Args:
        rows: of any dtype.

    Returns:
        ``(len(rows.table.rows),)``, on the device; float64 where a row has a single element.
    """
    values, n_single = rows.values, rows.table.n_single
    sums = sum_rows(values * values, rows.table)
    if n_single:
        sums = sums.double()
        sums[:n_single] = values[:n_single].double().square()
    return sums


def measure_sample_norms(rows: StackedRows) -> Tensor:
    """Euclidean norm of each row.

    Args:
        rows: of any dtype.

    Returns:
        Real ``(len(rows.table.rows),)``, on the device.
    """
    runs = rows.table.split(rows.values)
    return torch.cat([torch.linalg.vector_norm(run, dim=1) for run in runs])


def count_nonzeros(rows: StackedRows) -> Tensor:
    """Of each row, the elements that are not zero; NaN is none.

    Args:
        rows: of any dtype, with lengths that float32 can count.

    Returns:
        Float32 ``(len(rows.table.rows),)``, on the device.
    """
    values = rows.values
    if values.is_complex():
        flags = (values != 0).float()
    else:
        flags = torch.empty(values.shape, dtype=torch.float32, device=values.device)
        torch.ne(values, 0, out=flags)
    return sum_rows(flags, rows.table)
