"""Samples of all weights at several moments of one step, through views that are made once."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter, is_

import torch
from torch import Tensor

from gradwatch.capture.opaque_tensors import PLAIN_TYPES, is_opaque
from gradwatch.capture.parameters import Watched, localise
from gradwatch.capture.sample_rows import Gatherer, Samples, StackedRows
from gradwatch.capture.sample_tables import Looks
from gradwatch.capture.shards import is_elsewhere

_VERSION = attrgetter("_version")
_KIND = attrgetter("layout", "is_meta", "is_nested")


def are_dense(tensors: Sequence[Tensor]) -> bool:
    """Whether each one is of torch's own class, dense, can be read, and has elements.

    Args:
        tensors: parameters or gradients.
    """
    if not PLAIN_TYPES.issuperset(map(type, tensors)):
        return False
    is_dense = {(torch.strided, False, False)}.issuperset(map(_KIND, tensors))
    return is_dense and all(map(Tensor.numel, tensors))


def take_values(tensor: Tensor) -> Tensor:
    """The values ``(nnz, ...)`` of a sparse tensor, else the tensor itself.

    Args:
        tensor: of this rank.
    """
    return tensor.detach().coalesce().values() if tensor.is_sparse else tensor


class WeightSamples:
    """The weights of one step; views are made again where a weight was put elsewhere in memory.

    Args:
        watched: all parameters.
        gatherer: remembers which of them are alike.

    Attributes:
        samples: of those that can be read.
        is_fixed: each parameter can be read, and is a tensor of torch's own.
    """

    samples: Samples
    is_fixed: bool

    def __init__(self, watched: Sequence[Watched], gatherer: Gatherer) -> None:
        self._params: list[Tensor] = [entry.param for entry in watched]
        self._gatherer = gatherer
        self._latest: list[StackedRows] | None = None
        self._versions: list[int] = []
        self._bind()

    @property
    def looks(self) -> Looks:
        """Of the weights that can be read, as of ``sample_rows.look_at``."""
        return self.samples.grouping.looks

    @property
    def indices(self) -> list[int]:
        """Of the weights that can be read."""
        return self.samples.grouping.indices

    def belong_to(self, watched: Sequence[Watched]) -> bool:
        """Whether these are still all parameters.

        Args:
            watched: all parameters.
        """
        params = [entry.param for entry in watched]
        return len(params) == len(self._params) and all(map(is_, params, self._params))

    @torch.no_grad()
    def take(self) -> list[StackedRows]:
        """Copy the samples."""
        self._refresh()
        rows = self.samples.take()
        self._versions = list(map(_VERSION, self._params))
        self._latest = rows
        return rows

    def renew(self, rows: list[StackedRows]) -> list[StackedRows]:
        """The rows that were taken last, or new ones where somebody has written to a weight since.

        Args:
            rows: that were taken last; they stay where a weight is elsewhere in memory, as those
                that are sharded but for the time of forward and backward.
        """
        return self.take() if self._is_current() and self._are_written() else rows

    def take_again(self) -> list[StackedRows]:
        """As ``take``, right after it: nobody but us has run since, or their changes count up."""
        latest, self._latest = self._latest, None
        if latest is None or not self._is_current() or self._are_written():
            return self.take()
        return latest

    def _are_written(self) -> bool:
        """Whether somebody has written to a weight since the samples were taken last."""
        return self._versions != list(map(_VERSION, self._params))

    @torch.no_grad()
    def take_shown(self) -> list[StackedRows]:
        """Copy the samples that show norms."""
        self._refresh()
        return self.samples.take_shown()

    def _refresh(self) -> None:
        if not self._is_current():
            self._bind()

    def _is_current(self) -> bool:
        """Memory that we hold by a view is nobody else's: what has moved is at another address."""
        if not self.is_fixed or self._pointers != list(map(Tensor.data_ptr, self._params)):
            return False
        return self._sizes == list(map(Tensor.numel, self._params))

    @torch.no_grad()
    def _bind(self) -> None:
        params = self._params
        self.is_fixed = are_dense(params)
        indices, values = list(range(len(params))), params
        if self.is_fixed:
            self._pointers = list(map(Tensor.data_ptr, params))
            self._sizes = list(map(Tensor.numel, params))
        else:
            indices, values = _list_readable(params)
        self.samples = self._gatherer.bind(indices, values)


def _list_readable(params: Sequence[Tensor]) -> tuple[list[int], list[Tensor]]:
    """Indices and values of this rank's parts; of an empty one only where nobody else has it."""
    indices: list[int] = []
    values: list[Tensor] = []
    for index, param in enumerate(params):
        value = localise(param)
        if value.numel() or not (is_opaque(param) or is_elsewhere(param)):
            indices.append(index)
            values.append(take_values(value))
    return indices, values
