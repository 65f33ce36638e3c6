"""Where half precision flushes gradients to zero."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gradwatch.evidence.gradient_flow import Reading
from gradwatch.evidence.history import History
from gradwatch.evidence.record_table import RecordTable
from gradwatch.evidence.topology import is_flat
from gradwatch.records import Array
from gradwatch.thresholds import Thresholds


def find_flushed(reading: Reading, thresholds: Thresholds, from_start: bool) -> list[int]:
    """Layers in float16 most of whose output gradient was rounded to zero.

    Args:
        reading: of one record.
        thresholds: ``underflow_zero_fraction`` of zeros, ``underflow_rms`` of what is left.
        from_start: the error signal has been zero since the first record: there is no loss that
            is exactly zero before any training, so that zeros everywhere are flushed ones.

    Returns:
        Indices of layers, in the order of forward.

    Source:
        Micikevicius et al. (2018), "Mixed precision training", section 3.2.

    Example:
        >>> from gradwatch.evidence.worked_example import make_reading
        >>> from gradwatch.records import Layer, LayerSet
        >>> layers = Layer("fc", dtype="float16", output_numel=1000), Layer("out", inputs=(0,))
        >>> rows = {"grad_output_l2_norm": (1e-6, 1.0), "grad_zero_fraction": (0.95, 0.0)}
        >>> reading = make_reading(rows, layer_set=LayerSet(layers))
        >>> find_flushed(reading, Thresholds(), from_start=False)
        [0]
    """
    if not reading.topology.float16 or not reading.ask(
        _has_zeros, thresholds.underflow_zero_fraction
    ):
        return []
    suspects = np.flatnonzero(reading.ask(_find_suspects, *_get_limits(thresholds))).tolist()
    grad = reading.record.layer("grad_output_l2_norm")
    return [i for i in suspects if grad[i] > 0 or from_start or _is_fed(reading, i)]


def _get_limits(thresholds: Thresholds) -> tuple[float, float]:
    return thresholds.underflow_zero_fraction, thresholds.underflow_rms


@np.errstate(all="ignore")
def _find_suspects(table: RecordTable, fraction: float, rms: float) -> npt.NDArray[np.bool_]:
    """Layers in float16 with so many zeros more than a rectifier behind them makes by itself, and
    a gradient, as the backward pass computed it, of float16's smallest size."""
    zeros = table.layer("grad_zero_fraction")
    excess = zeros - _expect_zeros(table)
    norm = table.layer("grad_output_l2_norm") * table.step("loss_scale")[:, None]
    is_faint = norm / table.topology.output_numel**0.5 < rms
    in_half = np.zeros(zeros.shape[1], dtype=bool)
    in_half[list(table.topology.float16)] = True
    found: npt.NDArray[np.bool_] = in_half & ~np.isnan(zeros) & ~(excess < fraction) & is_faint
    return found


def _has_zeros(table: RecordTable, fraction: float) -> npt.NDArray[np.bool_]:
    """Records in which some layer in float16 has so many zeros, whoever makes them."""
    zeros = table.layer("grad_zero_fraction")[:, list(table.topology.float16)]
    return np.logical_or.reduce(zeros >= fraction, axis=1)  # type: ignore[no-any-return]


def _expect_zeros(table: RecordTable) -> Array:
    """Zeros that a rectifier behind each layer makes by itself, ``(n_records, n_layers)``."""
    layers, made = table.topology.layers, table.layer("zero_fraction")
    expected = np.zeros((len(table), len(layers)))
    for index in table.topology.float16:
        consumers = table.topology.consumers[index]
        if len(consumers) == 1 and is_flat(layers[consumers[0]], "zero"):
            expected[:, index] = np.nan_to_num(made[:, consumers[0]], posinf=np.inf, neginf=-np.inf)
    return expected


def _is_fed(reading: Reading, index: int) -> bool:
    """Whether some gradient reached a layer further down that is no dead end itself."""
    layers = reading.topology.layers
    ahead, seen = [index], {index}
    while ahead:
        for consumer in reading.topology.consumers[ahead.pop()]:
            if consumer in seen:
                continue
            seen.add(consumer)
            grad = reading.record.layer("grad_output_l2_norm")[consumer]
            blocked = is_flat(layers[consumer], "zero")
            if grad > 0 and not blocked:
                return True
            ahead.append(consumer)
    return False


def find_behind(reading: Reading, flushed: list[int]) -> npt.NDArray[np.bool_]:
    """Parameters whose gradient had to pass a flushed layer and lost most of its elements.

    Args:
        reading: of one record.
        flushed: layers, as ``find_flushed`` found them.

    Returns:
        bool ``(n_params,)``.

    Example:
        >>> from gradwatch.evidence.worked_example import make_reading
        >>> find_behind(make_reading(param={"zero_fraction": 0.9}), [1]).tolist()  # act was flushed
        [True, False]
    """
    lost: set[int] = set(flushed)
    for index in range(len(reading.topology.layers) - 1, -1, -1):
        if index in lost:
            lost.update(reading.topology.layers[index].inputs)
    zeros = reading.record.param("zero_fraction")
    return np.array(
        [
            bool(calls) and all(call in lost for call in calls) and zeros[index] > 0
            for index, calls in enumerate(reading.topology.calls)
        ],
        dtype=bool,
    )


def find_rounded_away(history: History, thresholds: Thresholds) -> list[int]:
    """Weights in half precision whose updates have all been smaller than can be added to them.

    Args:
        history: of the run so far.
        thresholds: ``lost_records``.

    Returns:
        Indices of parameters.

    Example:
        >>> from gradwatch.evidence.worked_example import make_history, make_record
        >>> find_rounded_away(make_history(map(make_record, range(9))), Thresholds())
        []
    """
    found = find_still_halves(history, thresholds)
    return [index for index in found if history.latest.topology.is_judged[index]]


def find_still_halves(history: History, thresholds: Thresholds) -> list[int]:
    """Parameters in half precision of any role, norms' scales among them, likewise.

    Args:
        history: of the run so far.
        thresholds: ``lost_records``.

    Returns:
        Indices of parameters.
    """
    topology = history.latest.topology
    if not topology.has_half:
        return []
    is_lost = history.params.unmoved >= thresholds.lost_records
    params = topology.params
    found = np.flatnonzero(is_lost & (topology.half_ulps > 0)).tolist()
    return [index for index in found if params[index].trainable and params[index].optimized]
