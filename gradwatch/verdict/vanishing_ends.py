"""Why a gradient vanishes where no layer on the way takes it: at the ends of that way."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from gradwatch.evidence.attribution import Attribution
from gradwatch.evidence.cuts import find_cuts
from gradwatch.evidence.ends import find_closed_end, find_exit, takes_in_little
from gradwatch.evidence.gradient_flow import Reading
from gradwatch.schema.layer_set import HIDDEN_WAYS
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.rule import Explanation
from gradwatch.verdict.vanishing_words import LITTLE
from gradwatch.wording.cuts import advise_cut, describe_cuts
from gradwatch.wording.phrases import name_lack, name_region, say_name


def explain_mute(reading: Reading, layers: tuple[str, ...], mute: int) -> Explanation:
    """A layer that returns zeros for every sample, and is flat there.

    Args:
        reading: of the record that is judged.
        layers: fully qualified names of the region.
        mute: index of the layer.
    """
    layer = reading.topology.layers[mute]
    name = say_name(layer.fqn)
    verb = "gets" if len(layers) == 1 else "get"
    message = (
        f"{name_region(layers)} {verb} no gradient at all: what {name} ({layer.type}) returns is 0 "
        "for every sample, and its slope with it."
    )
    remedy = (
        f"Scale down what {name} feeds to its exponential or bounded function, such as wider "
        "kernels (a smaller factor on the distances), until it returns numbers that differ from "
        "sample to sample; normalised inputs help."
    )
    return Explanation("saturation", message, (layer.key,), remedy)


def explain_cut_calls(reading: Reading, layers: tuple[str, ...], worst: int) -> Explanation | None:
    """A module of which some calls are cut off, as a cell's in a loop over time by a ``detach()``.

    Args:
        reading: of the record that is judged.
        layers: fully qualified names of the region.
        worst: index of the parameter with the least gradient.

    Returns:
        ``None`` where a gradient arrives at each of its calls, or no line is known to end one.
    """
    calls = list(reading.topology.calls[worst])
    silent = np.isnan(reading.grad[calls])
    if not (silent.any() and not silent.all()):
        return None
    owner = reading.topology.params[worst].module
    cuts = [cut for cut in find_cuts(reading, [worst]) if owner in cut.layers]
    if not cuts:
        return None
    verb = "gets" if len(layers) == 1 else "get"
    message = (
        f"{name_region(layers)} {verb} a gradient for {np.count_nonzero(~silent)} of {len(calls)} "
        f"calls of {say_name(owner)} only; that of the others ends at {describe_cuts(cuts)}."
    )
    remedy = advise_cut(cuts[0], f"`{owner}`")
    return Explanation("disconnected", message, remedy=remedy, source=cuts[0].source)


def explain_by_ends(
    reading: Reading,
    unreached: Sequence[int],
    split: Attribution | None,
    cause: str,
    message: str,
    thresholds: Thresholds,
) -> Explanation | None:
    """What the loss sends or the layer takes in, where that is less than its way accounts for.

    Args:
        reading: of the record that is judged.
        unreached: indices of the region's parameters, the one with the least gradient first.
        split: who takes how much of the gradient of the layer that gets least.
        cause: as the way alone shows it.
        message: likewise.
        thresholds: ``profile`` of a gradient that is next to nothing.

    Returns:
        ``None`` where the way accounts for most.
    """
    passed = math.exp(split.total) if split is not None and split.path else 1.0
    if cause not in ("weight_scale", "depth", "activation_derivative"):
        return None
    if HIDDEN_WAYS in reading.topology.layer_set.notes:
        return None  # where a way seems to end there, it goes on
    if split is not None and _returns_zeros(reading, split.blocked_by):
        return _explain_zeros(reading, unreached, split.blocked_by)
    head = message.partition(";")[0].rstrip(".")
    shut = find_closed_end(reading, unreached[0], thresholds)
    if shut >= 0 and not (split is not None and split.path):
        layer = reading.topology.layers[shut]
        message = f"{head}; {say_name(layer.fqn)} lets next to nothing of it through."
        return Explanation("saturation", message, (layer.key,))
    end = find_exit(reading, unreached[0])
    if end is not None and end.share < min(thresholds.profile, passed):
        names = [say_name(reading.topology.layers[i].fqn) for i in (end.layer, end.strongest)]
        lack = name_lack(end.share, names[1])
        message = f"{head}; from the loss {names[0] or 'its output'} gets {lack}."
        return Explanation("weight_scale", message, remedy=_FAINT.format(names[0]))
    faint = [i for i in unreached if takes_in_little(reading, i, thresholds)]
    return (
        _explain_inputs(reading, faint[0], unreached, head) if faint and passed > LITTLE else None
    )


def _returns_zeros(reading: Reading, index: int) -> bool:
    """Whether a layer without weights or a slope of its own makes zeros of what it is given."""
    is_plain = index >= 0 and reading.topology.layers[index].role == "other"
    return is_plain and bool(reading.record.layer("output_l2_norm")[index] == 0)


def _explain_zeros(reading: Reading, unreached: Sequence[int], index: int) -> Explanation:
    """Nothing comes through on the way back, and nothing to learn from reaches what follows."""
    names, layer = reading.topology.param_layers, reading.topology.layers[index]
    layers = tuple(dict.fromkeys(names[i] for i in unreached))
    verb = "gets" if len(layers) == 1 else "get"
    message = (
        f"{name_region(layers)} {verb} no gradient at all: what {say_name(layer.fqn)} "
        f"({layer.type}) returns is 0 for every value."
    )
    remedy = _ZEROS.format(say_name(layer.fqn))
    return Explanation("disconnected", message, (layer.key,), remedy)


def _explain_inputs(
    reading: Reading, index: int, unreached: Sequence[int], head: str
) -> Explanation:
    """The gradient is there; what the weight multiplies is next to nothing.

    Where parameters of no layer's own are shut out with it, that is what a function of theirs
    returns where it is flat.
    """
    fqn = reading.topology.params[index].fqn
    message = f"{head}; the gradient is there, and what {fqn} multiplies is next to nothing."
    if any(reading.topology.is_bare[i] for i in unreached):
        return Explanation("saturation", message, remedy=_FLAT.format(fqn))
    return Explanation("weight_scale", message, remedy=_SMALL.format(fqn))


_ZEROS = (
    "Look at what {} does: a dropout of probability 1 (it takes the share to drop, not to keep), a "
    "mask or a factor of zeros. The weights themselves are well: another initialisation changes "
    "nothing."
)
_FAINT = (
    "Look at what stands between {} and the loss: the weight of its term in the loss, a gate or a "
    "routing weight near 0 (begin it open), a factor far below 1. The weights themselves are well: "
    "another initialisation changes nothing."
)
_FLAT = (
    "Look at the function whose values {} takes in: they are next to nothing for every sample, and "
    "its slope with them, such as exp(-x) of large distances; widen its kernels or scale down its "
    "inputs until the values differ from sample to sample."
)
_SMALL = (
    "Scale the inputs that {} takes in to mean 0 and a size of about 1 (they may have been divided "
    "twice). The weights themselves are well: another initialisation changes nothing."
)
