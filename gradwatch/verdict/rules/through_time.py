"""GW102: a gradient that vanishes over the time steps of a recurrent layer."""

from __future__ import annotations

import math

from gradwatch.evidence.gradient_flow import Reading
from gradwatch.evidence.history import History
from gradwatch.evidence.since_start import have_steps_taken_time
from gradwatch.evidence.time_steps import TimeProfile, measure_time_share
from gradwatch.schema.cut import Cut
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.ignored import find_ignored_layers
from gradwatch.verdict.rule import Rule, Sign
from gradwatch.wording.cuts import describe_cuts, name_function
from gradwatch.wording.phrases import name_lack, name_region


def examine(history: History, thresholds: Thresholds) -> list[Sign]:
    """Recurrent layers whose first time steps get no gradient while the task does not progress.

    The shared weight learns from the last time steps whatever becomes of the first, and forgetting
    is right where the past does not matter; so it is the lack of progress that shows harm.

    Args:
        history: of the run so far.
        thresholds: ``time_gain`` of the gradient; ``time_patience``, ``least_fall``, ``progress``;
            ``recurrent_calls``.
    """
    reading = history.latest
    profiles = measure_time_share(reading, thresholds)
    # where a step has replaced weights it is why, if it was otherwise at first; without such a step
    # a layer that remembered at first has been taught to forget, and that takes nothing from it
    profiles = [
        row
        for row in profiles
        if have_steps_taken_time(history, row, thresholds) == history.has_replaced_weights
    ]
    if not profiles:
        return []
    lasting = _find_lasting(history, thresholds)
    ignored = find_ignored_layers(reading.topology, thresholds.ignore_layers)
    profiles = [row for row in profiles if row.fqn in lasting and not ignored[row.calls[0]]]
    stalled = has_stalled(history, thresholds) if profiles else False
    if stalled is False:
        return []
    acts = {layer.fqn for layer in reading.topology.layers if layer.role == "activation"}
    profiles.sort(key=lambda profile: (profile.is_read and profile.fqn in acts, profile.share))
    worst = profiles[0]
    names = tuple(dict.fromkeys(n for profile in profiles for n in profile.list_layers(reading)))
    cuts = _find_cuts_of_state(reading, profiles)
    ending = f"; the state is cut off at {describe_cuts(cuts)}" if cuts else ""
    message = (
        f"The first time steps of {worst.fqn} get {name_lack(worst.share, 'the last ones')}{ending}"
        f", and {_describe_progress(history, stalled)}"
    )
    cause, remedy, source = "through_time", "", ""
    if cuts:
        cause, source = "disconnected", cuts[0].source
        remedy = _CARRY.format(name_function(cuts[0]), source)
    elif have_steps_taken_time(history, worst, thresholds):
        cause = "learning_rate"
    elif worst.is_read:
        remedy = _REMEMBER.format(name_region(names))
    return [
        Sign(
            *(names, cause, worst.share, thresholds.time_gain, message),
            severity="critical" if stalled else "note",
            looks_back=True,
            remedy=remedy,
            source=source,
            is_open=stalled is None,
        )
    ]


_CARRY = (
    "Carry the state on with its graph: take {} away at {}, or cut it every so many steps only, as "
    "truncated backpropagation does, and no more often than what must be remembered is old."
)

_REMEMBER = (
    "Let the loop over the output of {} forget more slowly: begin with a decay of the state near "
    "1 per step, such as 1 - 1/T for T time steps, that is with gates of a bias of about log(T) "
    "towards keeping it; or add attention or skips over time."
)


def _find_cuts_of_state(reading: Reading, profiles: list[TimeProfile]) -> list[Cut]:
    """Calls that take the state's graph away from step to step, in a loop that carries it itself.

    Nothing at all arrives at the first steps then.
    """
    names = {profile.fqn for profile in profiles if profile.is_read and profile.share == 0}
    topology = reading.topology
    for index, consumers in enumerate(topology.consumers):
        if topology.layers[index].fqn in names:
            names |= {topology.layers[consumer].fqn for consumer in consumers}
    return [cut for cut in topology.layer_set.cuts if cut.is_end and names & set(cut.layers)]


def _describe_progress(history: History, stalled: bool | None) -> str:
    fall, error = history.losses.fall
    if math.isnan(fall) and history.losses.count:
        return "it is too early to say whether the task needs them."
    if math.isnan(fall):
        return "the gradient at the output has not fallen since the start."
    share = f"{100 * fall:.0f}"  # "-0" where it has risen by less than half a percent
    share = "0" if share == "-0" else share
    fallen = f"the loss has fallen by {share} % ± {100 * error:.0f} % since the start"
    return f"{fallen}." if stalled else f"{fallen}; whether the task needs them is not known yet."


def _find_lasting(history: History, thresholds: Thresholds) -> set[str]:
    """Recurrent layers that were cut off from their first time steps at all the latest records."""
    latest = list(history.window)[-thresholds.persistence :]
    found = [
        {
            profile.fqn
            for profile in measure_time_share(reading, thresholds)
            if profile.share < thresholds.time_gain
        }
        for reading in latest
    ]
    return set.intersection(*found) if len(latest) == thresholds.persistence else set()


def has_stalled(history: History, thresholds: Thresholds) -> bool | None:
    """Whether the task makes no progress; ``None`` while that is not known.

    By the loss, whose scatter from batch to batch is known; where no loss is, by the gradient at
    the output.

    Args:
        history: of the run so far.
        thresholds: ``time_patience`` in steps, ``least_fall`` of the loss, ``progress`` of the
            gradient.
    """
    if history.last_step - history.first_step < thresholds.time_patience:
        return False
    fall, error = history.losses.fall
    if math.isnan(fall) and history.losses.count:
        return None
    if math.isnan(fall):
        return history.errors.now >= thresholds.progress * history.errors.beginning
    if fall + error < thresholds.least_fall:
        return True
    return False if fall - error > thresholds.least_fall else None


THROUGH_TIME = Rule(
    code="GW102",
    kind="vanishing",
    title="Vanishing gradient through time",
    examine=examine,
    withdraws=True,
    doc="""\
## What it does
Finds recurrent layers (`nn.RNN`, `nn.LSTM`, `nn.GRU`, a cell called in a loop, or layers whose
output a loop reads step by step while it carries the state itself, as minGRU, LRU and SSM cells
have it) whose first time steps get no gradient, in a training that does not progress.

## Why it matters
The product of factors runs over time steps. What came early in the sequence cannot be learned,
although the shared weights get a healthy gradient from the last steps.

## How it is measured
The gradient arriving at the hidden state of the first quarter of the time steps is below
`time_gain` of the largest, and after `time_patience` optimizer steps the loss has not fallen by
`least_fall` of its first values, its scatter considered. While that is not known it is a note.
A layer whose first time steps had a gradient at first has learned to forget, and lacks nothing,
unless a step has replaced weights (`replacing_update`) since.
A state that is detached from step to step is named by its line.
Source: Bengio, Simard & Frasconi (1994); Hochreiter & Schmidhuber (1997).

## Example
A plain `nn.RNN` that has to remember the first of 60 inputs.

## Known limits
A task that progresses a little without the early steps is not reported. A scan that is written
without a loop, such as one by `cumsum`, is not seen.

## Configure or silence
`Thresholds(time_gain=..., time_patience=..., least_fall=...)`; `ignore_kinds=("vanishing",)`.
""",
)
