"""A lack of gradient in one sentence: how much arrives, and what takes the rest on its way."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from gradwatch.evidence.attribution import LIKE_FACTOR, Attribution
from gradwatch.evidence.gradient_flow import Reading
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.faults import find_gaps, name_gaps
from gradwatch.wording.module_names import join_phrases
from gradwatch.wording.phrases import name_lack, name_region, say_name

LITTLE = 0.1
"""A layer with this share of the gradient does not lack it, as far as the layers can tell; it
decides nothing but words."""

LEAST_NUMBER = float(np.finfo(np.float32).tiny)
"""Products below it were measured by nobody."""

_ROLES = {"activation": "activation", "weight": "weight", "normalisation": "norm"}
"""What takes a gradient, by the word for it."""


def describe_lack(
    reading: Reading,
    layers: tuple[str, ...],
    worst: int,
    split: Attribution | None,
    part: float,
    thresholds: Thresholds,
) -> str:
    """One sentence, with the region, the lack and what is known of the way there.

    Args:
        reading: of the record that is judged.
        layers: fully qualified names of the region.
        worst: index of its worst parameter.
        split: who takes how much of the gradient of the layer that gets least, where that is known.
        part: the region's share of the loss change.
        thresholds: see ``find_gaps``; ``plain_factor`` of normalisations that are not worth a word.
    """
    share = float(np.fmin(reading.param_gradient[worst], reading.sensitivity[worst]))
    lack = _describe_part(part, len(layers)) if share > LITTLE and part < share else ""
    if not lack:
        path = split.path if split else ()
        against = reading.topology.layers[path[-1]].fqn if path else "the rest"
        verb = "gets" if len(layers) == 1 else "get"
        lack = f"{verb} {name_lack(share, against or 'the output')}"
    change = _describe_change(reading, worst)
    return f"{name_region(layers)} {lack}: {change}{_name_gains(reading, split, thresholds)}."


def _describe_part(part: float, count: int) -> str:
    verb = "brings" if count == 1 else "bring"
    if not part > 0:
        return f"{verb} nothing to the loss"
    if part > LITTLE:  # of next to nothing, where the whole network is at rest
        return f"hardly {'moves' if count == 1 else 'move'}, and the loss stays where it is"
    return f"{verb} about {part:.0e} of what the loss falls by"


def _describe_change(reading: Reading, worst: int) -> str:
    fqn, update = reading.topology.params[worst].fqn, float(reading.update_ratio[worst])
    if reading.record.param("update_l2_norm")[worst] == 0:
        return f"{fqn} does not change at all"
    if not math.isfinite(update):
        return f"{fqn} is zero and hardly changes"
    return f"{fqn} changes by {update:.1e} of its size per step"


def _name_gains(reading: Reading, split: Attribution | None, thresholds: Thresholds) -> str:
    """What the layers on the way multiply the gradient by, as measured."""
    if split is None or not split.path:
        return ""
    layers = reading.topology.layers
    if split.blocked_by >= 0:
        return f"; {say_name(layers[split.blocked_by].fqn)} lets none of it through"
    if split.culprit >= 0:
        gain = math.exp(split.factors[split.culprit])
        name = say_name(layers[split.culprit].fqn)
        return f"; {name} alone multiplies the gradient by {gain:.2g}"
    gains = {word: split.list_gains(layers, role) for word, role in _ROLES.items()}
    if math.prod(gains["normalisation"]) * thresholds.plain_factor > 1:
        gains["normalisation"] = []
    found = [_name_factor(word, factors) for word, factors in gains.items()]
    parts = [part for part in (*found, _name_gap(reading, split, thresholds)) if part]
    until = ", until it is below what float32 holds," if split.n_rounded else ""
    return f"; on the way back{until} {join_phrases(parts)}" if parts else ""


def _name_gap(reading: Reading, split: Attribution, thresholds: Thresholds) -> str:
    """What no layer accounts for, where that is most."""
    gaps = find_gaps(reading, split, thresholds)
    if not gaps:
        return ""
    gain = math.exp(sum(split.gaps[index] for index in gaps) / len(gaps))
    each = "" if len(gaps) == 1 else " each"
    places = join_phrases(name_gaps(reading, split, gaps))
    return f"what stands {places} multiplies by {gain:.2g}{each}"


def _name_factor(word: str, gains: Sequence[float]) -> str:
    """``"each activation multiplies by about 0.22"``; where they differ, all together."""
    if not gains:
        return ""
    logs = np.log(gains)
    whole = float(np.add.reduce(logs))
    middle = whole / len(gains)
    mean = math.exp(middle)
    if len(gains) == 1:
        return f"the {word} multiplies by {mean:.2g}"
    if np.max(np.abs(logs - middle)) < LIKE_FACTOR:
        return f"each {word} multiplies by about {mean:.2g}"
    total = math.exp(whole)
    if total < LEAST_NUMBER:
        return f"the {len(gains)} {word}s together multiply by less than float32 holds"
    return f"the {len(gains)} {word}s together multiply by {total:.2g}"
