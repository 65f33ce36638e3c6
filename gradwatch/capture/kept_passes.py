"""The passes of a sampled step whose gradients an optimizer has used, and their outermost calls."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gradwatch.capture.sample import CLAIM, Sample


def find_kept_passes(events: Sequence[int], residues: dict[int, float]) -> list[int]:
    """Passes whose gradients an optimizer has used.

    A pass that begins with no gradient left starts over: what was before it was discarded, as
    after a step that a GradScaler has skipped, or belongs to an optimizer that has taken it.

    Args:
        events: pass numbers in their order, and ``CLAIM`` where an optimizer took their gradients.
        residues: by pass, the norm of the gradients that it found; the first pass has none.

    Returns:
        Pass numbers in their order.

    Example:
        >>> find_kept_passes([0, 1, CLAIM], {1: 0.5}), find_kept_passes([0, 1, CLAIM], {1: 0.0})
        ([0, 1], [1])
    """
    kept: list[int] = []
    waiting: list[int] = []
    for event in events:
        if event == CLAIM:
            kept, waiting = kept + waiting, []
            continue
        if residues.get(event, 1.0) == 0:
            waiting = []
        waiting.append(event)
    return kept


def add_losses(losses: dict[int, float], passes: Sequence[int]) -> float:
    """Loss of a step, summed over its passes; NaN where that of a pass is not known.

    Args:
        losses: by pass, in the units of the training and times its loss scale.
        passes: that the step has used.

    Example:
        >>> add_losses({0: 0.5, 1: 0.25}, [0, 1]), add_losses({0: 0.5}, [0, 1])
        (0.75, nan)
    """
    known = [losses.get(number, np.nan) for number in passes]
    return float(np.sum(known)) if known else float("nan")


def find_kept_roots(sample: Sample, passes: Sequence[int]) -> set[int]:
    """Outermost calls that belong to the step; all of them if no backward was seen.

    Args:
        sample: of the step.
        passes: that the step has used.

    Returns:
        Their numbers.
    """
    if not sample.reached_roots:
        return set(range(len(sample.root_passes)))
    return {root for root in sample.reached_roots if sample.root_passes[root] in passes}
