"""Records of one layer set as arrays, so that a fact of all of them takes one computation.

numpy takes a microsecond for each operation on whatever small array: what follows from a record
alone is worked out for some hundred records together, and only when somebody asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from gradwatch.evidence.topology import map_topology
from gradwatch.records import Array, StepRecord

Fact = TypeVar("Fact", bound=npt.NDArray[Any] | list[Any])
"""A row, or a number, for each record of a table."""


class RecordTable:
    """Records in order, of one layer set; read as a ``StepRecord`` is, with one row per record.

    Args:
        records: one or more, of the same layer set.
        before: the record before the first of them; ``None`` where there is none, or of another
            layer set.

    Attributes:
        topology: of the layer set.
        layer_values: float64 ``(n_records, n_rows, n_layers)``; ``param_values`` and
            ``step_values`` likewise.
        facts: what has been asked for so far, by the question, see ``ask``.

    Example:
        >>> from gradwatch.evidence.worked_example import make_record
        >>> table = RecordTable([make_record(step) for step in range(3)])
        >>> table.param("grad_l2_norm").tolist()
        [[0.0625, 2.0], [0.0625, 2.0], [0.0625, 2.0]]
        >>> table.spans.tolist()
        [0.0, 1.0, 1.0]
    """

    def __init__(self, records: Sequence[StepRecord], before: StepRecord | None = None) -> None:
        self.records = tuple(records)
        self.layer_set = records[0].layer_set
        self.topology = map_topology(self.layer_set)
        self.layer_values = _stack([record.layer_values for record in records])
        self.param_values = _stack([record.param_values for record in records])
        self.step_values = _stack([record.step_values for record in records])
        self._before = records[0] if before is None else before
        self.facts: dict[Hashable, Any] = {}

    def __len__(self) -> int:
        return len(self.records)

    def layer(self, statistic: str) -> Array:
        """One statistic of all layers, ``(n_records, n_layers)``; else as ``StepRecord.layer``.

        Args:
            statistic: its name.
        """
        return self._read("layer", statistic, self.layer_values)

    def param(self, statistic: str) -> Array:
        """One statistic of all parameters, ``(n_records, n_params)``; otherwise as ``layer``.

        Args:
            statistic: its name.
        """
        return self._read("param", statistic, self.param_values)

    def step(self, statistic: str) -> Array:
        """One number of each step, ``(n_records,)``; otherwise as ``layer``.

        Args:
            statistic: its name.
        """
        return self._read("step", statistic, self.step_values)

    def earlier(self, statistic: str) -> Array:
        """One statistic of all parameters at the record before each, ``(n_records, n_params)``.

        Where none of the same layer set comes before, it is the record's own.

        Args:
            statistic: its name.
        """
        first = self._before.param(statistic)[None]
        return first if len(self) == 1 else np.concatenate([first, self.param(statistic)[:-1]])

    @cached_property
    def spans(self) -> Array:
        """Optimizer steps since the record before, ``(n_records,)``; 0 where there is none."""
        steps = [self._before.global_step, *(record.global_step for record in self.records)]
        return np.array([after - before for before, after in pairwise(steps)], dtype=np.float64)

    def ask(self, find: Callable[..., Fact], *settings: Hashable) -> Fact:
        """A fact of every record, worked out when it is asked for first.

        Args:
            find: of a table, and what of the thresholds it needs, its rows.
            settings: these thresholds.

        Returns:
            The rows themselves, which are kept: do not write to them.
        """
        key = (find, *settings) if settings else find
        found: Fact | None = self.facts.get(key)
        if found is None:
            found = self.facts[key] = find(self, *settings)
        return found

    def _read(self, scope: Any, statistic: str, values: Array) -> Array:
        row = self.layer_set.rows.places[scope].get(statistic)
        if row is not None:
            found: Array = values[:, row]
            return found
        alone = getattr(self.records[0], scope)(statistic)  # NaN, where it is known at all
        return np.full((len(self), *np.shape(alone)), np.nan)


def _stack(arrays: Sequence[Array]) -> Array:
    """One record's numbers are not copied: what is kept of each step would be twice as much."""
    return arrays[0][None] if len(arrays) == 1 else np.stack(arrays)
