"""Which layers are to blame for a gradient that vanishes or explodes, and alone need a change."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from gradwatch.evidence.attribution import Attribution
from gradwatch.evidence.gradient_flow import Reading
from gradwatch.records import Layer
from gradwatch.thresholds import Thresholds
from gradwatch.wording.module_names import describe_layers, join_phrases
from gradwatch.wording.phrases import name_number, say_name

SHOWN_GAPS = 2
"""Places of a factor that a sentence names."""


def find_faults(
    reading: Reading,
    split: Attribution | None,
    cause: str,
    unreached: Sequence[int],
    thresholds: Thresholds,
) -> tuple[str, ...]:
    """Keys of the layers to blame; empty where nothing was seen on the way.

    Args:
        reading: of the record that is judged.
        split: who takes how much of the gradient of the layer that gets least.
        cause: a name in ``schema.kinds.CAUSES``.
        unreached: parameters that get too little.
        thresholds: of the run.
    """
    if split is None:
        return ()
    if cause in ("saturation", "dead_units"):
        found = find_closed(reading, split, thresholds) or _find_silent_sources(reading, unreached)
    elif cause == "activation_derivative":
        found = _find_squashing(reading, split, thresholds)
    elif cause == "weight_scale":
        found = _find_weights(reading, split, unreached, thresholds)
    else:
        found = [*split.path, *_list_calls(reading, unreached)]
    layers = reading.topology.layers
    return tuple(layers[index].key for index in found or split.path)


def find_closed(reading: Reading, split: Attribution, thresholds: Thresholds) -> list[int]:
    """Activations of the path that let next to nothing through; the worst ones by what they take
    where none is saturated or dead.

    Args:
        reading: of the record that is judged.
        split: who takes how much of the gradient of the layer that gets least.
        thresholds: of the run.

    Returns:
        Indices of layers.
    """
    is_closed = reading.record.layer("saturated_fraction") >= thresholds.saturated_fraction
    is_closed |= reading.record.layer("dead_fraction") >= thresholds.dead_fraction
    acts = [i for i in split.path if reading.topology.layers[i].role == "activation"]
    closed = [i for i in acts if is_closed[i] or i in (split.blocked_by, split.culprit)]
    return closed or _choose_alike(_take_role(reading, split, "activation"), thresholds)


def _find_silent_sources(reading: Reading, unreached: Sequence[int]) -> list[int]:
    """Rectifiers that give the worst parameter nothing but zeros."""
    layers, zeros = reading.topology.layers, reading.record.layer("zero_fraction")
    sources = {i for call in reading.topology.calls[unreached[0]] for i in layers[call].inputs}
    return sorted(index for index in sources if zeros[index] >= 1)


def _find_squashing(reading: Reading, split: Attribution, thresholds: Thresholds) -> list[int]:
    """Activations that shrink the gradient most, and their like where it is too faint to tell."""
    layers = reading.topology.layers
    found = _choose_alike(_take_role(reading, split, "activation"), thresholds)
    types = {layers[index].type for index in found}
    unknown = [i for i in split.path if i not in split.factors and layers[i].type in types]
    return [*found, *unknown]


def _take_role(reading: Reading, split: Attribution, role: str) -> dict[int, float]:
    layers = reading.topology.layers
    return {index: log for index, log in split.factors.items() if layers[index].role == role}


def _choose_alike(factors: Mapping[int, float], thresholds: Thresholds) -> list[int]:
    """Those that take about as much as the one that takes most."""
    worst = min(factors.values(), default=0.0)
    return [index for index, log in factors.items() if log <= thresholds.alike_share * worst < 0]


def _find_weights(
    reading: Reading, split: Attribution, unreached: Sequence[int], thresholds: Thresholds
) -> list[int]:
    """Weights that shrink the gradient most, and those as small that get too little of it."""
    if split.culprit >= 0:
        return [split.culprit]
    if split.blocked_by >= 0 and reading.topology.layers[split.blocked_by].role != "activation":
        return [split.blocked_by]
    found = _choose_alike(_take_role(reading, split, "weight"), thresholds)
    size = measure_sizes(reading)
    least = min((size[call] for call in found if call in size), default=1.0)
    calls = _list_calls(reading, unreached) if least < 1 else []
    small = [call for call in calls if size.get(call, 1.0) <= least**thresholds.alike_share]
    return list(dict.fromkeys([*found, *small]))


def measure_sizes(reading: Reading) -> dict[int, float]:
    """Norm of the weight behind each layer, against what LeCun's initialisation would give it.

    Args:
        reading: of the record that is judged.

    Returns:
        By index of the layer; 1 is the norm that the initialisation gives.
    """
    size = reading.record.param("weight_l2_norm") / reading.topology.lecun_norm
    calls = reading.topology.calls
    return {
        call: float(size[index])
        for index in np.flatnonzero(reading.topology.is_judged & np.isfinite(size))
        for call in calls[index]
        if reading.topology.layers[call].role == "weight"
    }


def _list_calls(reading: Reading, indices: Iterable[int]) -> list[int]:
    return [call for index in indices for call in reading.topology.calls[index]]


def advise_on_factor(reading: Reading, split: Attribution, thresholds: Thresholds) -> str:
    """What to do about a factor of forward's own; empty where weights that train are to blame.

    Args:
        reading: of the record that is judged.
        split: who takes how much of the gradient of the layer that gets least.
        thresholds: ``dominant_share`` and ``alike_share``.
    """
    layers = reading.topology.layers
    if split.culprit >= 0 and _is_frozen(reading, split.culprit):
        named = describe_layers([layers[split.culprit]])
        times = name_number(math.exp(-split.factors[split.culprit]))
        return (
            f"Multiply what {named} returns by about {times}, in one place: its weight is frozen, "
            "and shrinks the gradient so."
        )
    if split.culprit >= 0 and layers[split.culprit].role not in ("weight", "activation"):
        places, held = [_name_inside(layers[split.culprit])], name_scales(reading, [split.culprit])
    else:
        gaps = find_gaps(reading, split, thresholds)
        if not gaps:
            return ""
        places, held = name_gaps(reading, split, gaps), name_scales(reading, gaps)
    return advise_to_raise(join_phrases(places), held)


def advise_to_raise(where: str, held: str = "") -> str:
    """What to do about a factor that is far too small.

    Args:
        where: as in ``"between fc1 and fc2"``.
        held: scalars that stand there, as a phrase.
    """
    return (
        f"Raise what multiplies the signal {where}{held}: a gate or a scale near 0 (begin it open, "
        "or give it a rate of its own), a temperature far too high, a mean over many, a constant "
        "factor (take it away). The weights themselves are well: another initialisation changes "
        "nothing."
    )


def _name_inside(layer: Layer) -> str:
    return f"in {say_name(layer.fqn)} ({layer.type})"


def name_scales(reading: Reading, indices: Iterable[int]) -> str:
    """Scales that stand there, as a phrase: held by a module at the place, or by the model itself.

    Args:
        reading: of one record.
        indices: of layers at the place.

    Returns:
        Empty where none is.
    """
    topology = reading.topology
    owners = {"", *(topology.layers[index].fqn for index in indices)}
    held = [
        f"`{param.fqn}`"
        for param, is_bare in zip(topology.params, topology.is_bare, strict=True)
        if param.module in owners
        and (param.role == "scalar" or (is_bare and len(param.shape) == 1))
    ]
    return f", such as {join_phrases(held[:SHOWN_GAPS])}" if held else ""


def _is_frozen(reading: Reading, index: int) -> bool:
    """Whether a layer owns a weight that nothing trains."""
    own = [
        param
        for param in reading.topology.params
        if param.module == reading.topology.layers[index].fqn and param.role == "weight"
    ]
    return bool(own) and not any(param.trainable and param.optimized for param in own)


def find_gaps(reading: Reading, split: Attribution, thresholds: Thresholds) -> list[int]:
    """Layers before which something that no layer accounts for takes most of the gradient.

    Where matrices belong to no layer of their own, it may be theirs.

    Args:
        reading: of the record that is judged.
        split: who takes how much of the gradient of the layer that gets least.
        thresholds: ``dominant_share`` of all that is lost, and ``alike_share``.

    Returns:
        Indices of layers.
    """
    topology = reading.topology
    is_by_hand = bool(np.any(topology.is_bare & topology.is_judged))
    if is_by_hand or sum(split.gaps.values()) > thresholds.dominant_share * split.total:
        return []
    return _choose_alike(split.gaps, thresholds)


def name_gaps(reading: Reading, split: Attribution, gaps: Sequence[int]) -> list[str]:
    """``"between fc1 and fc2"``, the layers on both sides of each; a factor's own module alone.

    Args:
        reading: of the record that is judged.
        split: who takes how much of the gradient of the layer that gets least.
        gaps: as ``find_gaps`` gives them.
    """
    layers = reading.topology.layers
    before = dict(zip(split.path[1:], split.path[:-1], strict=True))
    places = []
    for index in gaps[:SHOWN_GAPS]:
        if layers[index].role == "other" and not np.isfinite(reading.gains[index]):
            places.append(_name_inside(layers[index]))
            continue
        sources = [before[index]] if index in before else list(layers[index].inputs[:1])
        names = [say_name(layers[i].fqn) for i in (*sources, index)]
        places.append(f"between {join_phrases(names)}")
    more = len(gaps) - len(places)
    return [*places, f"at {more} more places"] if more else places


def find_large_weights(reading: Reading, thresholds: Thresholds) -> tuple[str, ...]:
    """Weights that multiply the gradient about as much as the one that does so most.

    So are those whose size against LeCun's is about as large as the largest, since the first
    layer's gain is not known; and all of them once values have overflowed.

    Args:
        reading: of the record that is judged.
        thresholds: ``alike_share``, in logarithms.

    Returns:
        Keys of layers.
    """
    layers = reading.topology.layers
    weights = [index for index, layer in enumerate(layers) if layer.role == "weight"]
    logs = {i: math.log(reading.gains[i]) for i in weights if 1 < reading.gains[i] < math.inf}
    size = measure_sizes(reading)
    sizes = {i: math.log(size[i]) for i in weights if size.get(i, 0.0) > 1}
    norms = reading.record.param("weight_l2_norm")[reading.topology.is_judged]
    if np.isinf(reading.gains[weights]).any() or not np.isfinite(norms).all():
        return tuple(layers[index].key for index in weights)
    chosen = {*_choose_large(logs, thresholds), *_choose_large(sizes, thresholds)}
    return tuple(layers[index].key for index in sorted(chosen))


def _choose_large(logs: dict[int, float], thresholds: Thresholds) -> list[int]:
    largest = max(logs.values(), default=0.0)
    return [index for index, log in logs.items() if log >= thresholds.alike_share * largest]
