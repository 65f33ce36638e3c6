"""Why a gradient vanishes: the cause, with the sentence that says it and the layers to blame."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from gradwatch.evidence.attribution import Attribution, attribute, attribute_by_slopes
from gradwatch.evidence.ends import find_mute
from gradwatch.evidence.erasure import measure_left
from gradwatch.evidence.gradient_flow import Reading
from gradwatch.evidence.history import History
from gradwatch.evidence.since_start import (
    have_steps_taken,
    have_steps_taken_time,
    measure_first_gradient,
)
from gradwatch.evidence.time_steps import TimeProfile, find_forgetful
from gradwatch.evidence.topology import is_flat
from gradwatch.evidence.zero_gradients import find_factor_owner, find_zero_factors
from gradwatch.schema.activations import find_activation
from gradwatch.schema.layer_set import HIDDEN_WAYS
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.advice import suggest_remedy
from gradwatch.verdict.faults import advise_on_factor, find_closed, find_faults
from gradwatch.verdict.rule import Explanation
from gradwatch.verdict.vanishing_ends import explain_by_ends, explain_cut_calls, explain_mute
from gradwatch.verdict.vanishing_words import describe_lack
from gradwatch.wording.module_names import join_phrases
from gradwatch.wording.phrases import name_lack, name_percent, name_region, say_name

_BY_INITIALISATION = ("weight_scale", "depth", "activation_derivative")
"""Causes that are there at the first step, or never."""

_ALL_ZERO = (
    "Initialise {} randomly (Kaiming or a small normal), and what stands behind them where it is "
    "zero too: no gradient comes through a weight of 0, so that one of them alone does not do."
)
_SHRUNK = (
    "Look for what shrinks the weights between the optimizer's steps, such as a mul_, a clamp or "
    "an initialisation that is called again: they have lost most of their size, and neither a step "
    "nor weight decay accounts for it."
)


def explain(
    history: History,
    reading: Reading,
    layers: tuple[str, ...],
    unreached: Sequence[int],
    thresholds: Thresholds,
) -> Explanation:
    """Cause, message and fault, seen from the parameter that gets the least.

    Args:
        history: of the run so far.
        reading: of the record that is judged.
        layers: names of the layers that get too little.
        unreached: indices of their parameters, the one with the least gradient first.
        thresholds: of the run.
    """
    zeros = find_zero_factors(reading.record, unreached)
    if zeros:
        return _explain_zeros(reading, layers, zeros)
    mute = find_mute(reading, unreached)
    if mute >= 0:
        return explain_mute(reading, layers, mute)
    cut = explain_cut_calls(reading, layers, unreached[0])
    if cut is not None:
        return cut
    forgetful = find_forgetful(reading, unreached, thresholds)
    if forgetful is not None:
        return _explain_time(history, layers, unreached[0], forgetful, thresholds)
    split = _attribute_to(reading, unreached, thresholds)
    cause = _find_lasting_cause(history, reading, split, unreached, thresholds)
    part = float(history.loss_change.peak_share[unreached[0]])
    message = describe_lack(reading, layers, unreached[0], split, part, thresholds)
    at_ends = explain_by_ends(reading, unreached, split, cause, message, thresholds)
    if at_ends is not None:
        return at_ends
    remedy = _advise(history, reading, split, cause, thresholds)
    if (
        cause in _BY_INITIALISATION
        and (history.has_replaced_weights or not remedy)
        and have_steps_taken(history, unreached, thresholds)
    ):  # a factor that was open and that no step has broken is closed for a reason of its own
        cause, message, remedy = "learning_rate", _tell_first(history, message, unreached), ""
    if cause == "weight_decay":
        left = float(measure_left(history)[unreached[0]])
        fqn = reading.topology.params[unreached[0]].fqn
        message = f"{message[:-1]}; {fqn} has {left:.1g} of its first size."
    faults = find_faults(reading, split, cause, unreached, thresholds)
    return Explanation(cause, message, faults, remedy)


def _advise(
    history: History,
    reading: Reading,
    split: Attribution | None,
    cause: str,
    thresholds: Thresholds,
) -> str:
    """What to do where the scale is not that of weights as they began; empty elsewhere."""
    if cause == "weight_scale" and _have_shrunk(history, reading, thresholds):
        return _SHRUNK
    if cause == "weight_scale" and split is not None:
        return advise_on_factor(reading, split, thresholds)
    return ""


def _find_lasting_cause(
    history: History,
    reading: Reading,
    split: Attribution | None,
    unreached: Sequence[int],
    thresholds: Thresholds,
) -> str:
    """The cause, as the run so far shows how it came to be."""
    cause = find_cause(reading, split, thresholds)
    if not reading.param_gradient[unreached[0]] < thresholds.profile and _gets_nothing(
        reading, unreached[0]
    ):
        cause = "dead_units"  # the gradient arrives, but it meets an input of zeros
    layers = reading.topology.layers
    closed = [layers[i] for i in find_closed(reading, split, thresholds)] if split else []
    if cause in ("dead_units", "saturation") and history.broke_layers(closed, thresholds):
        return "learning_rate"
    if cause in ("weight_scale", "depth") and _have_shrunk(history, reading, thresholds):
        return "weight_decay" if _were_decayed(history, reading, thresholds) else "weight_scale"
    return cause


def _have_shrunk(history: History, reading: Reading, thresholds: Thresholds) -> bool:
    """Whether the weights have lost most of their size since the first record."""
    judged = np.flatnonzero(reading.topology.is_judged)
    with np.errstate(invalid="ignore", divide="ignore"):
        left = reading.record.param("weight_l2_norm") / history.params.first_l2_norm
    known = left[judged][np.isfinite(left[judged])]
    return bool(known.size) and float(np.median(known)) < thresholds.shrunk_weight


def _were_decayed(history: History, reading: Reading, thresholds: Thresholds) -> bool:
    """Whether weight decay took them, or a penalty in the loss, and nobody between the steps."""
    params, judged = history.params, reading.topology.is_judged
    shrunk = thresholds.explained_share * np.sum(params.shrunk[judged])
    by_penalty = np.sum(params.explained[judged]) >= shrunk
    return bool(np.any(params.is_decayed[judged])) or bool(by_penalty)


def _explain_zeros(reading: Reading, layers: tuple[str, ...], zeros: list[int]) -> Explanation:
    params = reading.topology.params
    owner = find_factor_owner(params[zeros[0]].fqn)
    pair = [params[i].fqn for i in zeros if find_factor_owner(params[i].fqn) == owner]
    names = join_phrases(pair)
    kinds = list(dict.fromkeys(name.removeprefix(f"{owner}.") for name in pair))
    message = (
        f"{name_region(layers)} get no gradient at all: {names} are zero and multiply each other, "
        "so that none of them can move."
    )
    ends = [call for i in zeros for call in reading.topology.calls[i]][-1:]
    if ends and not reading.grad[ends[0]] > 0:
        remedy = _ALL_ZERO.format(names)
        return Explanation("weight_scale", message, tuple(pair), remedy)
    remedy = (
        f"Initialise {kinds[0]} randomly (Kaiming or a small normal) and leave "
        f"{join_phrases(kinds[1:])} at zero, in each such module: {names} first."
    )
    return Explanation("weight_scale", message, tuple(pair), remedy)


def _tell_first(history: History, message: str, unreached: Sequence[int]) -> str:
    """What the least reached parameter got before the steps took it, where that is known."""
    share = measure_first_gradient(history, unreached)
    if math.isnan(share):
        return message
    return (
        f"{message[:-1]}; at step {history.first_step} still {name_percent(share)} arrived there."
    )


def _explain_time(
    history: History,
    layers: tuple[str, ...],
    worst: int,
    profile: TimeProfile,
    thresholds: Thresholds,
) -> Explanation:
    reading = history.latest
    lack = name_lack(profile.share, "the last ones")
    message = describe_lack(reading, layers, worst, None, math.nan, thresholds)
    message = f"{message[:-1]}; the first time steps of {say_name(profile.fqn)} get {lack}."
    recurrent = profile.list_layers(reading)
    has_broken = have_steps_taken_time(history, profile, thresholds)
    cause = "learning_rate" if has_broken else "through_time"
    remedy = suggest_remedy("vanishing", cause, recurrent, reading.topology)
    return Explanation(cause, message, remedy=remedy)


def _gets_nothing(reading: Reading, index: int) -> bool:
    """Whether every input of a parameter's module comes from a rectifier that gives only zeros."""
    layers, zeros = reading.topology.layers, reading.record.layer("zero_fraction")
    sources = {source for call in reading.topology.calls[index] for source in layers[call].inputs}
    return bool(sources) and all(zeros[source] >= 1 for source in sources)


def _attribute_to(
    reading: Reading, unreached: Sequence[int], thresholds: Thresholds
) -> Attribution | None:
    """Attenuation on the way to the faintest call of these modules; ``None``: none was seen."""
    topology = reading.topology
    if HIDDEN_WAYS in topology.layer_set.notes:
        return attribute_by_slopes(reading, thresholds)
    calls = [
        call
        for index in unreached
        for call in topology.calls[index] or topology.inner_layers.get(index, ())
    ]
    fed = [call for call in calls if np.isfinite(reading.relative_gradient[call])]
    start = min(fed, key=lambda call: float(reading.relative_gradient[call]), default=None)
    split = None if start is None else attribute(reading, start, thresholds)
    if split is not None and not split.path and not any(topology.consumers):
        return attribute_by_slopes(reading, thresholds)
    return split


def find_cause(reading: Reading, split: Attribution | None, thresholds: Thresholds) -> str:
    """The culprit with the largest part in what is lost.

    Args:
        reading: of the record that is judged.
        split: who takes how much; ``None`` or an empty path: nothing could be seen.
        thresholds: of the run.

    Returns:
        A name in ``schema.kinds.CAUSES``.
    """
    if split is None or not split.path:
        return "weight_scale"
    if split.blocked_by >= 0:
        return _find_blocker(reading, split)
    if split.culprit >= 0:
        cause = _find_cause_at(reading, split.culprit, thresholds)
        if cause:
            return cause
    return _share_blame(split, thresholds)


def _share_blame(split: Attribution, thresholds: Thresholds) -> str:
    outside = split.weight + split.other
    by_activation = split.activation < outside + split.norm  # more than half
    is_flat_there = split.derivative < thresholds.saturated_derivative
    if by_activation and (is_flat_there or split.saturated >= thresholds.saturated_fraction):
        return "saturation"
    if by_activation and split.dead >= thresholds.dead_fraction:
        return "dead_units"
    stages = max(split.n_activations, split.n_weights, split.n_norms)
    if stages >= thresholds.long_chain and _is_shared(split, stages, thresholds):
        return "depth"
    takes_most = split.activation < min(outside, split.norm)
    return "activation_derivative" if takes_most else "weight_scale"


def _find_cause_at(reading: Reading, index: int, thresholds: Thresholds) -> str:
    """What is wrong with the one layer that takes most; empty where its role says nothing."""
    layer, record = reading.topology.layers[index], reading.record
    if layer.role != "activation":
        return ""
    row = find_activation(layer.type)
    if row is not None and row.squashes:
        slope = float(record.layer("derivative_mean")[index]) / row.maximum
        is_saturated = record.layer("saturated_fraction")[index] >= thresholds.saturated_fraction
        return "saturation" if is_saturated or slope < thresholds.saturated_derivative else ""
    if record.layer("dead_fraction")[index] >= thresholds.dead_fraction:
        return "dead_units"
    return ""


def _is_shared(split: Attribution, stages: int, thresholds: Thresholds) -> bool:
    """Whether no single factor is to blame: each stage is mild, or both culprits pull alike."""
    if math.exp(split.total / stages) > thresholds.mild_gain:
        return True
    lesser = max(split.measured_activation, split.measured_weight)
    return lesser < thresholds.shared_blame * split.total


def _find_blocker(reading: Reading, split: Attribution) -> str:
    layer = reading.topology.layers[split.blocked_by]
    if layer.role != "activation":
        return "weight_scale" if not split.dead >= 1 else "dead_units"
    if is_flat(layer, "middle"):
        return "activation_derivative"
    return "dead_units" if is_flat(layer, "zero") else "saturation"
