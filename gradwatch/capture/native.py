"""CPU tensors read in compiled code, where ``gradwatch-native`` is installed.

A tensor is read at once, whatever its size; what cannot be read there is refused, and read in
Python. Both give the same record.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from gradwatch.capture.device_values import REST, ROOT, Ledger
from gradwatch.capture.frames import raise_again
from gradwatch.capture.opaque_tensors import PLAIN_TYPES
from gradwatch.capture.statistics import RUN_LENGTH, SAMPLE_SIZE, choose_stride

INTERFACE = 1
"""Of the package that is used; one with another number is passed over."""

OUTPUT, GRAD_OUTPUT, GRAD_INPUT = range(3)
"""What a row holds: norms of a call's output and of its gradients, of the first with zeros."""

NORMS = ("output_l2_norm", "grad_output_l2_norm", "grad_input_l2_norm")
"""The statistics of their norms."""

_DTYPES = (torch.float32, torch.float64, torch.bfloat16)


def find_package() -> Any:
    """The package, or ``None`` without one that fits."""
    try:
        found = importlib.import_module("gradwatch_native")
    except ImportError:
        return None
    return found if found.INTERFACE == INTERFACE else None


PACKAGE = find_package()
"""The package that is used; ``None``: everything is read in Python."""


class NativeTable:
    """What compiled code has read of one sampled step.

    Args:
        package: that is used.
        begin_pass: called as a backward pass begins; whether it is a training pass.
        on_error: called with what was raised where compiled code calls Python.
        reached: takes the numbers of the outermost calls that a training pass reaches.
    """

    def __init__(
        self,
        package: Any,
        begin_pass: Callable[[], bool],
        on_error: Callable[[BaseException], None],
        reached: set[int],
    ) -> None:
        self._table = package.Table(
            tuple(PLAIN_TYPES),
            _DTYPES,
            torch._C._current_graph_task_id,
            (torch._C._len_torch_dispatch_stack, torch._C._len_torch_function_stack),
            begin_pass,
            on_error,
            choose_stride,
            reached,
            SAMPLE_SIZE,
            RUN_LENGTH,
            GRAD_OUTPUT,
            GRAD_INPUT,
        )
        self.read: Callable[[int, int, int, Tensor, bool], bool] = self._table.read
        self.watch: Callable[..., bool] = self._table.watch
        self.measure: Callable[[list[Tensor]], list[float] | None] = self._table.measure

    def flush(self, ledger: Ledger) -> None:
        """Hand over what was read since the last time.

        Args:
            ledger: of the step.
        """
        for column, statistic in enumerate(NORMS):
            indices, roots, samples, sums, nonzeros = self._table.take(column)
            if not indices:
                continue
            _note(statistic, (indices, roots), sums, [1.0] * len(sums), ROOT, ledger)
            if column == GRAD_OUTPUT:
                _note("grad_zero_fraction", (indices, roots), nonzeros, samples, REST, ledger)

    def close(self) -> None:
        """Read no more; hooks that are still on a graph die with it."""
        self._table.close()


def measure_sums(tensors: list[Tensor]) -> Tensor | None:
    """Sums of the squares of many tensors.

    Args:
        tensors: of any shapes.

    Returns:
        Float64 ``(len(tensors),)``; ``None`` without the package, or where it cannot read one.
    """
    if PACKAGE is None or not tensors:
        return None
    sums = NativeTable(PACKAGE, bool, raise_again, set()).measure(tensors)
    return None if sums is None else torch.tensor(sums, dtype=torch.float64, device="cpu")


def _note(
    statistic: str,
    places: tuple[list[int], list[int]],
    values: list[float],
    divisors: Sequence[float],
    kind: int,
    ledger: Ledger,
) -> None:
    column = torch.tensor(values, dtype=torch.float64, device="cpu")
    ledger.add_column(statistic, *places, column, divisors, kind)


def make_table(
    begin_pass: Callable[[], bool], on_error: Callable[[BaseException], None], reached: set[int]
) -> NativeTable | None:
    """A table of a step that begins; ``None`` where the package is not there.

    Args:
        begin_pass, on_error, reached: as of ``NativeTable``.
    """
    return None if PACKAGE is None else NativeTable(PACKAGE, begin_pass, on_error, reached)
