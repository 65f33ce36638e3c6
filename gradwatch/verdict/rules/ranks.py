"""GW803: data-parallel ranks whose gradients or weights are not the same."""

from __future__ import annotations

from functools import partial

import numpy as np

from gradwatch.evidence.history import History
from gradwatch.evidence.rank_spread import find_apart, have_parted
from gradwatch.evidence.topology import Mask
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.ignored import find_ignored_params
from gradwatch.verdict.rule import Explanation, Rule, Sign
from gradwatch.wording.module_names import name_owners
from gradwatch.wording.phrases import name_percent, name_region

_STATISTICS = {
    "not_reduced": "grad",
    "clipped_apart": "step_grad",
    "weights_apart": "weight",
}
"""By cause, what differs; the first that does says why the others do."""

_MESSAGES = {
    "not_reduced": "The gradients of {region} are not averaged over the ranks: their norms differ "
    "by {spread} ({fqn}).",
    "clipped_apart": "The gradients of {region} are the same on every rank when backward ends, and "
    "differ by {spread} when the optimizers step ({fqn}).",
    "weights_apart": "The weights of {region} differ from rank to rank by {spread} ({fqn}), "
    "although their gradients are the same.",
}

_REMEDIES = {
    "not_reduced": "Call the DistributedDataParallel module and not the one inside it, and wrap "
    "the model after its parameters are in place: what is moved or replaced later is not reduced.",
    "clipped_apart": "Clip, scale and mask gradients by the same rule on every rank, by numbers "
    "that all of them have.",
    "weights_apart": "Start all ranks from the same weights (DistributedDataParallel sends rank "
    "0's), and let no rank skip a step or change weights by itself.",
}


def examine(history: History, thresholds: Thresholds) -> list[Sign]:
    """Parameters of which ranks have different gradients or weights.

    Args:
        history: of the run so far, records merged over ranks.
        thresholds: ``rank_spread`` from which norms are apart.

    Example:
        >>> from gradwatch.evidence.worked_example import make_history, make_record
        >>> record = make_record(param={"rank_grad_spread": (0.0, 0.25)})
        >>> [sign.cause for sign in examine(make_history([record]), Thresholds())]
        ['not_reduced']
    """
    reading = history.latest
    limits = thresholds.rank_spread, thresholds.rounding_share
    if history.ranks.have_met:  # they train on their own and are averaged now and then
        return []
    if not reading.ask(have_parted, *limits):
        return []
    ignored = find_ignored_params(reading.topology, thresholds.ignore_layers)
    for cause, statistic in _STATISTICS.items():
        apart = reading.ask(find_apart, statistic, *limits) & ~ignored
        if apart.any():
            spread = reading.record.param(f"rank_{statistic}_spread")
            return [_describe(history, apart, cause, spread, thresholds)]
    return []


def _describe(
    history: History, apart: Mask, cause: str, spread: np.ndarray, thresholds: Thresholds
) -> Sign:
    params = history.latest.topology.params
    indices = np.flatnonzero(apart)
    ordered = indices[np.argsort(-spread[indices], kind="stable")].tolist()
    layers = name_owners(params[i] for i in ordered)
    worst = float(spread[ordered[0]])
    say = partial(_explain, cause, layers, worst, params[ordered[0]].fqn)
    return Sign(layers, cause, worst, thresholds.rank_spread, "", explain=say)


def _explain(cause: str, layers: tuple[str, ...], worst: float, fqn: str) -> Explanation:
    said = name_percent(worst) if worst >= 0.01 else f"{worst:.1g} of their size"
    facts = {"region": name_region(layers), "spread": said, "fqn": fqn}
    return Explanation(cause, _MESSAGES[cause].format(**facts), remedy=_REMEDIES[cause])


RANKS = Rule(
    code="GW803",
    kind="ranks",
    title="Ranks that differ",
    examine=examine,
    doc="""\
## What it does
Finds parameters that the ranks of a `DistributedDataParallel` job should hold alike and do not:
gradients that are not averaged, gradients that are changed on some ranks only, weights that differ.

## Why it matters
Every rank goes on and looks healthy: each trains a model of its own on a part of the data, and only
rank 0's is saved. That costs accuracy and says nothing. Modules that are replaced or moved behind
the wrapper, calls of `model.module` in place of the wrapper, and messages that get lost do this.

## How it is measured
At each sampled step every rank leaves its record with the store through which the ranks have found
each other; none waits for another. Rank 0 compares three norms of each parameter: of the gradient
when backward ends, of the gradient when the optimizer steps, of the weight before the step. They
are equal to the bit where ranks are; above `rank_spread` they are apart. Source: Jiang et al.
(2025), "Training with Confidence" (TrainCheck), for errors of this kind.

Not compared: parameters of which each rank holds a part (FSDP, tensor parallelism), those that the
wrapper has to ignore, steps under `no_sync`, groups of ranks smaller than the job, and ranks
whose weights meet again, as local SGD averages them now and then. A job whose model is in no
wrapper gets a note.

## Example
`ddp = DistributedDataParallel(model)`, and then `model.head = nn.Linear(512, 10)`.

## Known limits
A norm does not see everything: tensors that differ can have the same one. Buffers are not compared.

## Configure or silence
`Thresholds(rank_spread=...)`; `ignore_kinds=("ranks",)`; `ignore_layers=(...)`.
""",
)
