"""Weight decay that takes so much at each step that nothing which is learned can last."""

from __future__ import annotations

import numpy as np

from gradwatch.evidence.erasure import measure_decay
from gradwatch.evidence.history import History
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.ignored import find_ignored_params
from gradwatch.verdict.rule import Sign
from gradwatch.wording.module_names import name_owners
from gradwatch.wording.phrases import name_percent


def find_excessive_decay(history: History, thresholds: Thresholds) -> list[Sign]:
    """A sign where decay takes a part of each weight per step, and the loss gets nowhere.

    Of what loses a tenth at each step a third is left after ten of them: the weights then follow
    the last few batches.

    Args:
        history: of the run so far.
        thresholds: ``shaking_update`` of a weight's size, ``patience`` in steps, and ``progress``
            of the loss.
    """
    reading, made = history.latest, history.last_step - history.first_step
    remaining = history.losses.remaining
    if made < thresholds.patience or not remaining > thresholds.progress:
        return []
    taken = measure_decay(history)
    if not np.count_nonzero(taken >= thresholds.shaking_update):
        return []
    ignored = find_ignored_params(reading.topology, thresholds.ignore_layers)
    taken = np.where(ignored, 0.0, taken)
    decayed = np.flatnonzero(reading.judged & (taken >= thresholds.shaking_update))
    if 2 * decayed.size <= np.count_nonzero(reading.judged):
        return []
    params = [reading.topology.params[index] for index in decayed]
    most = name_percent(float(np.max(taken)))
    message = (
        f"Weight decay takes {most} of each weight at each step (rate times decay), and after "
        f"{made + 1:,} steps the loss is {name_percent(remaining)} of its first values."
    )
    return [Sign(name_owners(params), "weight_decay", remaining, thresholds.progress, message)]
