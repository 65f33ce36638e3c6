"""Statistics that are not gradwatch's: what they are, and how they are kept from doing harm."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gradwatch.capture.device_values import WHOLE_STEP, Ledger, RawValue
from gradwatch.capture.parameters import Watched, localise
from gradwatch.capture.statistics import PARAM_PREFIX
from gradwatch.errors import InvalidInput
from gradwatch.interruption import forget_frames, is_foreign
from gradwatch.plugins import STATISTICS_GROUP, load_plugins, warn_once
from gradwatch.schema.statistics import Statistic, adopt

_SCOPES = ("layer", "param")


@dataclass(frozen=True)
class OwnStatistic:
    """A number that is measured besides gradwatch's own.

    Attributes:
        row: what it is; of the scope ``"param"`` or ``"layer"``.
        measure: of a parameter ``measure(param, grad)``, at the end of a backward pass, with the
            gradient before any clipping and times the loss scale; of a layer ``measure(output)``,
            for each output of each call. Answers a tensor of no dimensions on the same device. It
            must neither wait for the device (``.item()``, ``bool(tensor)``, ``.cpu()``), nor write
            to what it is given, nor draw random numbers.

    Example:
        >>> row = Statistic("largest", "param", "", "last", "mean", "largest |g|")
        >>> largest = OwnStatistic(row, lambda param, grad: grad.abs().amax())  # doctest: +SKIP
    """

    row: Statistic
    measure: Callable[..., Tensor]


def list_statistics(further: Sequence[OwnStatistic] = ()) -> tuple[OwnStatistic, ...]:
    """Those of installed packages, then further ones; their rows are known from here on.

    Args:
        further: as in ``gradwatch.watch(statistics=...)``.

    Returns:
        Each row once: what a package and a caller both name is measured once.

    Raises:
        InvalidInput: something among the further ones is no statistic of a layer or a parameter,
            or its name is taken.
    """
    found: dict[Statistic, OwnStatistic] = {}
    for statistic in load_plugins(STATISTICS_GROUP, OwnStatistic):
        try:
            found.setdefault(_adopt(statistic), statistic)
        except InvalidInput as error:
            warn_once(f"gradwatch goes on without the statistic of a package: {error}")
    for statistic in further:
        found.setdefault(_adopt(statistic), statistic)
    return tuple(found.values())


def _adopt(statistic: OwnStatistic) -> Statistic:
    if not isinstance(statistic, OwnStatistic) or statistic.row.scope not in _SCOPES:
        came = (
            repr(statistic.row.scope)
            if isinstance(statistic, OwnStatistic)
            else type(statistic).__name__
        )
        raise InvalidInput(
            "Expected gradwatch.capture.own_statistics.OwnStatistic of the scope 'layer' or "
            f"'param', got {came}. Pass OwnStatistic(Statistic(...), measure)."
        )
    return adopt(statistic.row)


@dataclass
class OwnMeasures:
    """The statistics of one watch; each is silent from its first exception on.

    Args:
        statistics: that are measured.
    """

    statistics: Sequence[OwnStatistic] = ()
    _failed: set[Statistic] = field(default_factory=set)

    def list_rows(self, scope: str) -> tuple[str, ...]:
        """Names of the statistics of a scope.

        Args:
            scope: ``"layer"`` or ``"param"``.
        """
        return tuple(
            statistic.row.name for statistic in self.statistics if statistic.row.scope == scope
        )

    def measure_params(
        self, watched: Sequence[Watched], ledger: Ledger, indices: Collection[int] | None = None
    ) -> None:
        """Of each parameter with a gradient of which this rank holds anything, or of some.

        Args:
            watched: all parameters.
            ledger: takes the values.
            indices: of those to be measured; ``None``: all.
        """
        for statistic in self._list_working("param"):
            for index, seen in enumerate(watched):
                grad = seen.param.grad
                if grad is None or grad.is_sparse or not (indices is None or index in indices):
                    continue
                given = localise(seen.param.detach()), localise(grad.detach())
                value = self._measure(statistic, given) if given[1].numel() else None
                if value is not None:
                    ledger.add(
                        PARAM_PREFIX + statistic.row.name, index, WHOLE_STEP, RawValue(value)
                    )

    def measure_output(self, output: Tensor) -> Iterable[tuple[str, RawValue]]:
        """Names and values of one output of one call of a layer.

        Args:
            output: nothing is measured of an empty one.

        Returns:
            Measured as they are taken out.
        """
        for statistic in self._list_working("layer"):
            value = self._measure(statistic, (output.detach(),)) if output.numel() else None
            if value is not None:
                yield statistic.row.name, RawValue(value)

    def _list_working(self, scope: str) -> list[OwnStatistic]:
        mine = (statistic for statistic in self.statistics if statistic.row.scope == scope)
        return [statistic for statistic in mine if statistic.row not in self._failed]

    def _measure(self, statistic: OwnStatistic, given: tuple[Tensor, ...]) -> Tensor | None:
        if statistic.row in self._failed:
            return None
        versions = [tensor._version for tensor in given]
        try:
            with torch.no_grad(), torch._C.DisableTorchFunction():
                value = statistic.measure(*given).detach()
            if value.dim() or value.is_complex() or value.device != given[0].device:
                raise InvalidInput(
                    f"Expected a real tensor of no dimensions on {given[0].device}, got shape "
                    f"{tuple(value.shape)} of {value.dtype} on {value.device}. Reduce it."
                )
            if versions != [tensor._version for tensor in given]:
                raise InvalidInput(
                    "Expected what is measured to stay as it is, got a function that has written "
                    "to it. Work on a copy."
                )
            return value
        except Exception as error:
            if is_foreign(error):
                raise
            self._failed.add(statistic.row)
            warn_once(
                f"gradwatch goes on without the statistic {statistic.row.name!r}, whose function "
                f"raised {type(error).__name__}: {error}"
            )
            forget_frames(error)
            return None
