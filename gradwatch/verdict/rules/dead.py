"""GW401: ReLU-family units that never fire."""

from __future__ import annotations

import math

import numpy as np

from gradwatch.evidence.feeders import count_units, name_with_feeders
from gradwatch.evidence.history import History
from gradwatch.evidence.paths import has_way_around
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.ignored import find_ignored_layers
from gradwatch.verdict.rule import Rule, Sign
from gradwatch.wording.phrases import name_percent, name_region, say_name


def examine(history: History, thresholds: Thresholds) -> list[Sign]:
    """Rectifiers most of whose units are silent; a note where that does no harm.

    Args:
        history: of the run so far.
        thresholds: ``dead_*`` decide, and ``solved_loss``.

    Example:
        >>> from gradwatch.evidence.worked_example import make_history, make_layer_set, make_record
        >>> silent = {"dead_fraction": (np.nan, 1.0, np.nan), "unit_samples": 500.0}
        >>> record = make_record(layer=silent, layer_set=make_layer_set("ReLU"))
        >>> examine(make_history([record]), Thresholds())[0].message
        '100 % of the units of act fired for none of the last 500 samples (act).'
    """
    dead = history.latest.record.layer("dead_fraction")
    if not np.count_nonzero(dead >= thresholds.dead_fraction):
        return []
    ignored = find_ignored_layers(history.latest.topology, thresholds.ignore_layers)
    found = [
        i
        for i in np.flatnonzero((dead >= thresholds.dead_fraction) & ~ignored).tolist()
        if not _is_margin(history, i, thresholds)
        and _is_certain(history, i, thresholds)
        and _is_most(history, i, thresholds)
    ]
    is_solved = history.losses.remaining < thresholds.solved_loss
    # the signal has a way around these, and the network has learned its task so
    harmless = [i for i in found if is_solved and has_way_around(history.latest.topology, i)]
    harmful = [i for i in found if i not in harmless]
    groups = (("critical", harmful), ("note", harmless))
    return [_describe(history, own, thresholds, severity) for severity, own in groups if own]


def _is_margin(history: History, index: int, thresholds: Thresholds) -> bool:
    """Whether silence is the aim: a rectifier of the loss is 0 where the margin is met.

    Outside of forward it belongs to the loss, and inside where nearly nothing of the loss is left.
    A network whose outputs are silent although the loss is high is at rest: see GW101.
    """
    topology = history.latest.topology
    if not topology.is_output[index]:
        return False
    is_solved = history.losses.remaining < thresholds.solved_loss
    return bool(topology.is_outside[index] or is_solved)


def _is_most(history: History, index: int, thresholds: Thresholds) -> bool:
    """Whether the share means something, and is not just four of the six of a narrow layer.

    The share that a layer of any width would have, from this one's: Wilson's lower bound.
    """
    reading = history.latest
    share = float(reading.record.layer("dead_fraction")[index])
    units = None if share >= 1 else count_units(reading.topology, index)
    if units is None:  # or nothing passes, however narrow it is
        return True
    least, deviations = thresholds.dead_least, thresholds.dead_quantile
    if _is_constant(history, index, thresholds):
        least, deviations = max(least, 0.5), thresholds.dead_coin_quantile
    return _bound_below(share, units, deviations) >= least


def _is_constant(history: History, index: int, thresholds: Thresholds) -> bool:
    """Whether each unit is on or off for nearly all samples, as it has been from the first record.

    So it is deep in a chain with torch's default initialisation, where biases outweigh the signal:
    the sign of a unit is a coin's there, and training has silenced none of them. One that learns
    soon moves them; what still stands so after ``dead_settling`` steps does not.
    """
    if history.last_step - history.first_step >= thresholds.dead_settling:
        return False
    record = history.latest.record
    zeros = float(record.layer("zero_fraction")[index])
    at_first = history.first_levels.zeros.get(history.latest.topology.layers[index].key, 0.0)
    alive = 1 - float(record.layer("dead_fraction")[index])
    fires_always = 1 - zeros >= thresholds.dead_constant * alive
    return fires_always and zeros - at_first <= thresholds.dead_constant_growth


def _bound_below(share: float, count: int, z: float) -> float:
    """Lower end of Wilson's score interval (1927) for a share of ``count`` trials."""
    middle = share + z * z / (2 * count)
    spread = z * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    return (middle - spread) / (1 + z * z / count)


def _is_certain(history: History, index: int, thresholds: Thresholds) -> bool:
    """Whether silence over the window is no chance, given how often the living units fire.

    Units differ: one that fires ``dead_rarity`` times more rarely than the living ones on average
    is rare, not dead, and must be given samples enough to show itself.
    """
    reading = history.latest
    dead = reading.record.layer("dead_fraction")[index]
    if dead >= 1 or _has_collapsed(history, index, thresholds):
        return True
    alive_rate = (1 - reading.record.layer("zero_fraction")[index]) / (1 - dead)
    samples = _count_samples(history, index, thresholds)
    rate = np.fmin(np.fmax(alive_rate, 0.0) / thresholds.dead_rarity, 1.0)
    return bool(np.exp(samples * np.log1p(-rate)) <= thresholds.dead_chance)


def _has_collapsed(history: History, index: int, thresholds: Thresholds) -> bool:
    """Whether a layer that used to fire is now all but silent, its last living units included."""
    key = history.latest.topology.layers[index].key
    zeros = history.latest.record.layer("zero_fraction")[index]
    used_to_fire = history.first_levels.zeros.get(key, 1.0) < thresholds.dead_collapse_from
    return bool(used_to_fire and zeros >= thresholds.dead_collapse)


def _count_samples(history: History, index: int, thresholds: Thresholds) -> float:
    """Samples behind the silence: of this window, and of those before it that showed the same."""
    samples = float(history.latest.record.layer("unit_samples")[index])
    silent = 0
    for reading in reversed(history.window):
        same = reading.topology is history.latest.topology
        if not same or not reading.record.layer("dead_fraction")[index] >= thresholds.dead_fraction:
            break
        silent += 1
    return samples * max(silent / max(thresholds.persistence, 1), 1.0)


def _describe(history: History, indices: list[int], thresholds: Thresholds, severity: str) -> Sign:
    reading = history.latest
    dead = reading.record.layer("dead_fraction")
    indices = sorted(indices, key=lambda index: -dead[index])
    layers = name_with_feeders(reading.topology, indices)
    named = [reading.topology.layers[index] for index in indices]
    acts = tuple(dict.fromkeys(layer.fqn for layer in named))
    worst = float(dead[indices[0]])
    samples = reading.record.layer("unit_samples")[indices[0]]
    harm = ""
    if severity == "note":
        left = name_percent(history.losses.remaining)
        harm = f"; the signal has a way around it, and the loss is at {left} of its first values"
    message = (
        f"{name_percent(worst)} of the units of {say_name(acts[0])} fired for none of the last "
        f"{samples:.0f} samples ({name_region(acts)}){harm}."
    )
    cause = "learning_rate" if history.broke_layers(named, thresholds) else "dead_units"
    faults = tuple(layer.key for layer in named)
    limit = thresholds.dead_fraction
    return Sign(layers, cause, worst, limit, message, severity, faults=faults)


DEAD = Rule(
    code="GW401",
    kind="dead",
    title="Dead units",
    examine=examine,
    doc="""\
## What it does
Finds ReLU-family layers in which `dead_fraction` (60 %) or more of the units never fire over a
window of samples. It is a note where the signal has a way around the layer, as a skip, and the
loss has come below `solved_loss` of its first values.

## Why it matters
A ReLU that never fires has derivative 0 for every input: its weights get no gradient and it never
comes back. A large learning rate or a large negative bias does this to whole layers.

## How it is measured
For each unit gradwatch remembers the sampled step at which it last fired; the window holds at
least two sampled steps and 192 samples. A large share of zeros is not death: units count as dead
only if, firing as often as the living ones, they would have stayed silent over the window with a
probability below `dead_chance`. In a narrow layer, such as the six units of a squeeze, the share is
partly chance: Wilson's lower bound for it must reach `dead_least`. Where the living units fire for
all but every sample, from the first record on, the sign of a unit is a coin's, as deep in a chain
with torch's default initialisation: there the bound must reach a half, at `dead_coin_quantile`
standard deviations, in the first `dead_settling` steps. Sources: Maas et al. (2013); Lu
et al. (2019), "Dying ReLU and initialization"; Wilson (1927).

## Example
A bias of -12 in front of a ReLU; one step with a hundred times the learning rate.

## Known limits
What a unit is, is read from the graph: channels behind a convolution, features behind a matrix
product; where it does not say, nothing is judged. Positions of one picture are samples that are
much alike: `m` of them count as `m / (1 + (m - 1) / 10)`. Leaky variants cannot die and are not
judged.

## Configure or silence
`Thresholds(dead_fraction=..., solved_loss=..., dead_chance=..., dead_least=...)`;
`ignore_kinds=("dead",)`.
""",
)
