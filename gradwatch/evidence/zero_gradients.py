"""Where a gradient ends that is exactly zero: operations without a slope, paths without a loss."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

from gradwatch.evidence.gradient_flow import Reading
from gradwatch.evidence.paths import find_block, reach
from gradwatch.records import StepRecord


def find_walled(reading: Reading, indices: Iterable[int]) -> set[int]:
    """Parameters whose gradient is exactly zero because of something that has no slope at all.

    Neither an activation that can be saturated or dead nor a weight that can be zero blocks it, but
    an operation such as ``round``: these parameters are as good as disconnected.

    Args:
        reading: of one record.
        indices: of parameters.

    Example:
        >>> from gradwatch.evidence.worked_example import make_reading
        >>> rows = {"grad_output_l2_norm": (0.0, 0.0, 1.0), "grad_zero_fraction": (1.0, 1.0, 0.0)}
        >>> find_walled(make_reading(layer=rows), [0])  # fc1 hands on what act never gets
        {0}
    """
    found: set[int] = set()
    if not _has_wall(reading):
        return found
    for index in indices:
        calls = reading.topology.calls[index]
        if len(calls) == 0 or any(reading.grad[call] != 0 for call in calls):
            continue
        if _is_wall(reading, find_block(reading, calls[-1])):
            found.add(index)
    return found


def _has_wall(reading: Reading) -> bool:
    """Whether a gradient of zero meets one above zero at a layer that is no culprit by itself."""
    return any(
        reading.grad[consumer] > 0 and _is_wall(reading, consumer)
        for index in np.flatnonzero(reading.grad == 0)
        for consumer in reading.topology.consumers[index]
    )


def _is_wall(reading: Reading, layer: int) -> bool:
    """Whether the gradient ends inside this layer, or between it and the one before.

    One that takes in several others may well want nothing of one of them, as a gate that is shut.
    """
    if layer < 0 or len(reading.topology.layers[layer].inputs) > 1:
        return False
    lets_through = reading.record.layer("grad_input_l2_norm")[layer] > 0
    return bool(lets_through) or reading.topology.layers[layer].role in ("other", "container")


def find_shut(reading: Reading, indices: Iterable[int]) -> set[int]:
    """Parameters of one of several experts, of which the layer behind them wants nothing now.

    A router's choice leaves an expert out, and may choose it another time.

    Args:
        reading: of one record.
        indices: of parameters.

    Example:
        >>> from gradwatch.evidence.worked_example import make_reading
        >>> from gradwatch.records import Layer, LayerSet, Param
        >>> experts = Layer("experts.0", role="weight"), Layer("experts.1", role="weight")
        >>> weights = Param("experts.0.weight", "experts.0"), Param("experts.1.weight", "experts.1")
        >>> layer_set = LayerSet((*experts, Layer("mix", inputs=(0, 1))), weights)
        >>> rows = {"grad_output_l2_norm": (0.0, 1.0, 1.0), "grad_zero_fraction": (1.0, 0.0, 0.0)}
        >>> find_shut(make_reading(rows, layer_set=layer_set), [0, 1])
        {0}
    """
    zero = np.flatnonzero(reading.grad == 0)
    consumers = {consumer for index in zero for consumer in reading.topology.consumers[index]}
    if not any(_is_left_out(reading, consumer) for consumer in consumers):
        return set()
    return {
        index
        for index in indices
        if (calls := reading.topology.calls[index])
        and _is_left_out(reading, find_block(reading, calls[-1]))
    }


def _is_left_out(reading: Reading, layer: int) -> bool:
    """Whether a layer wants something of one item of a list of modules and nothing of another."""
    inputs = reading.topology.layers[layer].inputs if layer >= 0 else ()
    fed = {_name_list(reading, source) for source in inputs if reading.grad[source] > 0}
    return any(
        reading.grad[source] == 0 and _name_list(reading, source) in fed for source in inputs
    )


def _name_list(reading: Reading, layer: int) -> str:
    """``"experts.#.2"`` for ``"experts.3.2"``."""
    return re.sub(r"\d+", "#", reading.topology.layers[layer].fqn)


def find_unasked(reading: Reading, indices: Iterable[int]) -> set[int]:
    """Parameters whose output nothing wants: the gradient is zero all the way from the loss.

    Args:
        reading: of one record.
        indices: of parameters.

    Example:
        >>> from gradwatch.evidence.worked_example import make_reading
        >>> rows = {"grad_output_l2_norm": 0.0, "grad_zero_fraction": 1.0}
        >>> find_unasked(make_reading(layer=rows), [0, 1])
        {0, 1}
    """
    return {
        index
        for index in indices
        if len(calls := list(reading.topology.calls[index]))
        and np.all(reading.grad[calls] == 0)
        and np.all(np.isnan(reading.reference[calls]))
        and not any(_is_left_out(reading, user) for user in _look_ahead(reading, calls))
    }


def _look_ahead(reading: Reading, calls: Iterable[int]) -> set[int]:
    """All layers on the way from these to the loss."""
    return reach(calls, lambda index: reading.topology.consumers[index]) - set(calls)


def find_shut_activations(reading: Reading, saturated_fraction: float) -> list[int]:
    """Activations that get a gradient and let nothing of it through, because they are saturated.

    Args:
        reading: of one record.
        saturated_fraction: share of their elements from which they are.

    Returns:
        Indices of layers.

    Example:
        >>> from gradwatch.evidence.worked_example import make_reading
        >>> shut = {"saturated_fraction": (np.nan, 1.0, np.nan), "grad_input_l2_norm": 0.0}
        >>> find_shut_activations(make_reading(layer=shut), 0.8)
        [1]
    """
    is_shut = reading.record.layer("saturated_fraction") >= saturated_fraction
    is_shut &= (reading.grad > 0) & (reading.gains == 0)
    roles = [layer.role == "activation" for layer in reading.topology.layers]
    found: list[int] = np.flatnonzero(is_shut & np.array(roles, dtype=bool)).tolist()
    return found


def find_zero_bare(reading: Reading) -> list[int]:
    """Parameters of no module's own, such as prompts and gates, whose gradient is exactly zero.

    Where they enter is not known: any layer behind may have stopped it.

    Args:
        reading: of one record.

    Returns:
        Indices of parameters.

    Example:
        >>> from gradwatch.evidence.worked_example import make_reading
        >>> from gradwatch.records import LayerSet, Param
        >>> gates = LayerSet(params=(Param("prompt"), Param("gate")))
        >>> find_zero_bare(make_reading(param={"grad_l2_norm": (1.0, 0.0)}, layer_set=gates))
        [1]
    """
    is_zero = reading.record.param("grad_l2_norm") == 0
    found: list[int] = np.flatnonzero(reading.topology.is_bare & is_zero).tolist()
    return found


def find_zero_factors(record: StepRecord, indices: Iterable[int]) -> list[int]:
    """Weights that are zero and multiply each other, so that none of them ever gets a gradient.

    In a product ``A @ B`` the gradient of one factor is proportional to the other. One may begin
    at zero; both together never leave it.

    Args:
        record: of one step.
        indices: of parameters.

    Example:
        >>> from gradwatch.evidence.worked_example import make_record
        >>> from gradwatch.records import LayerSet, Param
        >>> pair = LayerSet(params=(Param("q.lora_A.weight"), Param("q.lora_B.weight")))
        >>> zeros = {"weight_l2_norm": 0.0, "grad_l2_norm": 0.0}
        >>> find_zero_factors(make_record(param=zeros, layer_set=pair), [0, 1])
        [0, 1]
    """
    weight, grad = (record.param(name) for name in ("weight_l2_norm", "grad_l2_norm"))
    params = record.layer_set.params
    zero = [i for i in indices if weight[i] == 0 and grad[i] == 0]
    owners = [find_factor_owner(params[i].fqn) for i in zero]
    return [i for i, owner in zip(zero, owners, strict=True) if owners.count(owner) > 1]


def find_factor_owner(fqn: str) -> str:
    """The module around a factor of a product.

    Args:
        fqn: of a weight, or of a module that holds it.

    Example:
        >>> find_factor_owner("q.lora_A.weight"), find_factor_owner("q.lora_A")
        ('q', 'q')
    """
    name = fqn.removesuffix(".weight")
    return name.rpartition(".")[0]
