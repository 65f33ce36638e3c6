"""Small tensors of many calls, reduced together as rows of few matrices."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from gradwatch.capture.device_values import PLAIN, REST, Ledger
from gradwatch.capture.saturation import count_saturated
from gradwatch.capture.statistics import SAMPLE_SIZE, count_nonzero, measure_norms_of_rows, widen
from gradwatch.schema.activations import Activation
from gradwatch.schema.derivatives import Options

MAX_HELD = 2**21
"""Bytes that wait; with more, all are reduced."""

MAX_BEHIND = 2**18
"""Bytes of the memory that a small view of it may keep alive while it waits, or else is copied."""

MAX_ENTRIES = 1024
"""Calls and gradients that wait."""


class Places(NamedTuple):
    """To whom the rows of a matrix belong.

    Attributes:
        indices: of the calls.
        roots: numbers of the outermost calls around them.
    """

    indices: list[int]
    roots: list[int]

    def note_norms(self, statistic: str, rows: Tensor, ledger: Ledger) -> None:
        """Hand over the norm of each row.

        Args:
            statistic: a key under which values wait.
            rows: ``(n, length)``, of which nobody has use any more.
            ledger: of the step.
        """
        norms = measure_norms_of_rows(rows, in_place=True)
        self.note(statistic, norms.value, ledger, kind=norms.kind)

    def note(
        self, statistic: str, values: Tensor, ledger: Ledger, size: float = 1.0, kind: int = PLAIN
    ) -> None:
        """Hand over one value of each row.

        Args:
            statistic: a key under which values wait.
            values: ``(n,)``, raw, on their device.
            ledger: of the step.
            size: divisor of all of them.
            kind: as in ``device_values.RawValue``.
        """
        divisors = [size] * len(self.indices)
        ledger.add_column(statistic, self.indices, self.roots, values, divisors, kind)


class Reduction(Protocol):
    """What becomes of rows; two are the same where they are one object."""

    def reduce(self, places: Places, ledger: Ledger, *matrices: Tensor) -> None:
        """Make values of rows.

        Args:
            places: of the rows.
            ledger: takes the values.
            *matrices: ``(n, ...)``, one for each tensor of a row.
        """


def fits(tensor: Tensor) -> bool:
    """Whether all elements are read, and reals: others are read one by one.

    Args:
        tensor: of which something is measured.
    """
    return 0 < tensor.numel() <= SAMPLE_SIZE and not tensor.is_complex()


def flatten_rows(matrix: Tensor) -> Tensor:
    """Each row's elements in one dimension, also of numbers without any.

    Args:
        matrix: ``(n, ...)``.
    """
    return matrix.reshape(len(matrix), -1)


@dataclass(eq=False)
class NormRows:
    """L2 norm of each row."""

    statistic: str

    def reduce(self, places: Places, ledger: Ledger, *matrices: Tensor) -> None:
        """As of ``Reduction``.

        Args:
            places, ledger, *matrices: as there.
        """
        places.note_norms(self.statistic, flatten_rows(matrices[0]), ledger)


@dataclass(eq=False)
class ZeroRows:
    """Share of zeros in each row, and its norm where one is wanted."""

    statistic: str
    norm: str = ""

    def reduce(self, places: Places, ledger: Ledger, *matrices: Tensor) -> None:
        """As of ``Reduction``.

        Args:
            places, ledger, *matrices: as there.
        """
        rows = flatten_rows(matrices[0])
        places.note(self.statistic, count_nonzero(rows), ledger, rows.shape[1], REST)
        if self.norm:
            places.note_norms(self.norm, rows, ledger)


@dataclass(eq=False)
class ActivationRows:
    """Saturation of activations with the same arguments, from samples of outputs and inputs.

    Args:
        activation: that was called.
        options: the calls' arguments by name.
        is_whole: rows hold every element, and are not reduced in any dimension before.
    """

    activation: Activation
    options: Options
    is_whole: bool

    def reduce(self, places: Places, ledger: Ledger, *matrices: Tensor) -> None:
        """As of ``Reduction``.

        Args:
            places, ledger, *matrices: as there.
        """
        outputs, *inputs = (flatten_rows(matrix) for matrix in matrices)
        size = outputs.shape[1]
        if self.activation.can_die:
            places.note("zero_fraction", count_nonzero(outputs), ledger, size, REST)
        found = count_saturated(self.activation, [*inputs, outputs][0], outputs, self.options)
        for name, values in zip(("saturated_fraction", "derivative_mean"), found, strict=True):
            places.note(name, values, ledger, size)
        if self.is_whole:
            places.note_norms("output_l2_norm", outputs, ledger)


@lru_cache(maxsize=256)
def find_activation_rows(
    activation: Activation, settings: tuple[tuple[str, Any], ...], is_whole: bool
) -> ActivationRows:
    """The same for equal arguments, so that their rows wait together.

    Args:
        activation: that was called.
        settings: names and values of the call's arguments.
        is_whole: as of ``ActivationRows``.
    """
    return ActivationRows(activation, dict(settings), is_whole)


OUTPUTS = NormRows("output_l2_norm")
INPUT_GRADIENTS = NormRows("grad_input_l2_norm")
OUTPUT_GRADIENTS = ZeroRows("grad_zero_fraction", "grad_output_l2_norm")
ZEROS_OF_GRADIENTS = ZeroRows("grad_zero_fraction")


@dataclass
class RowMemory:
    """What is known of the rows of steps before.

    Attributes:
        moving: calls whose tensors somebody changes in place before they are reduced; ``None``
            among them stands for all gradients.
    """

    moving: set[Any] = field(default_factory=set)


class CallRows:
    """Rows of one sampled step.

    Tensors wait as they are, since to hold them costs less than to copy them. One that somebody has
    changed in place meanwhile is lost, and copied at once from the next step on.

    Args:
        ledger: takes the values.
        memory: kept from step to step.
        is_trial: nothing is measured, but it is seen what is changed in place.

    Attributes:
        has_lost: something was changed in place.
    """

    def __init__(self, ledger: Ledger, memory: RowMemory, is_trial: bool = False) -> None:
        self.is_trial = is_trial
        self.has_lost = False
        self._memory = memory
        self._ledger = ledger
        self._held = 0
        self._entries: list[tuple[Any, ...]] = []

    def put(
        self,
        reduction: Reduction,
        index: int,
        root: int,
        owner: Any,
        tensor: Tensor,
        second: Tensor | None = None,
    ) -> None:
        """Take what belongs to one call.

        Args:
            reduction: of the rows; those of one reduction and shape wait together.
            index: of the call.
            root: number of the outermost call around it.
            owner: stands for the call from step to step; ``None`` for a gradient.
            tensor: not empty.
            second: of the same call, with no graph; of each call of a reduction or of none.
        """
        is_small_view = tensor._is_view() and tensor.untyped_storage().nbytes() > MAX_BEHIND
        if owner in self._memory.moving or is_small_view:
            tensor, second = _copy(tensor), None if second is None else _copy(second)
        elif tensor.requires_grad:
            tensor = tensor.detach()  # its graph is not to wait
        version = tensor._version if second is None else tensor._version + second._version
        self._entries.append((reduction, index, root, owner, version, tensor, second))
        self._held += _count_bytes(tensor) + (0 if second is None else _count_bytes(second))
        if self._held > MAX_HELD or len(self._entries) >= MAX_ENTRIES:
            self.flush()

    @torch.no_grad()
    def flush(self) -> None:
        """Reduce all that waits."""
        entries, self._entries, self._held = self._entries, [], 0
        groups: dict[Any, list[tuple[Any, ...]]] = defaultdict(list)
        for entry in entries:
            reduction, _, _, owner, version, tensor, second = entry
            current = tensor._version if second is None else tensor._version + second._version
            if current != version:
                self.has_lost = True
                self._memory.moving.add(owner)
            groups[reduction, tensor.shape, tensor.device].append(entry)
        if not (self.is_trial or self.has_lost):
            for (reduction, *_), group in groups.items():
                self._reduce(reduction, group)

    def _reduce(self, reduction: Reduction, group: list[tuple[Any, ...]]) -> None:
        _, indices, roots, _, _, *tensors = zip(*group, strict=True)
        matrices = [widen(torch.stack(each)) for each in tensors if each[0] is not None]
        reduction.reduce(Places(list(indices), list(roots)), self._ledger, *matrices)


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().clone()


def _count_bytes(tensor: Tensor) -> int:
    """Also of one without memory of its own, such as a sparse one."""
    return tensor.numel() * tensor.element_size()
