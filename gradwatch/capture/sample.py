"""What a sampled step hands over to be made into a record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gradwatch.capture.calls import Call
from gradwatch.capture.device_values import Transfer
from gradwatch.capture.found_cuts import FoundCut
from gradwatch.capture.optimizer_groups import GroupSettings
from gradwatch.capture.parameters import Watched

CLAIM = -1
"""Among the events of a step: an optimizer took what the passes before it had left."""


@dataclass
class Sample:
    """A sampled step whose numbers are on their way to the host.

    Attributes:
        global_step: of the step.
        learning_rate: the largest of those on the host; NaN without one.
        events: numbers of the passes in their order, and ``CLAIM`` between them.
        raising: numbers of the passes that began at the negative of a loss.
        root_passes: by number of an outermost call, the pass in which it ran.
        reached_roots: outermost calls that a training pass went back through.
        calls: all that have an entry, in the order of forward.
        gates: indices of those whose output multiplies something.
        used_modules: fqns of the modules whose forward has run.
        operands: data pointers of what forward's operations have read.
        notes: what could not be seen, in words.
        cuts: calls in forward that let no gradient through, where they were looked for.
        watched: all parameters.
        emptied: indices of those whose gradient a closure has cleared after its backward.
        settings: what the optimizers say of each parameter.
        transfer: the values.
    """

    global_step: int
    learning_rate: float
    events: list[int]
    raising: set[int]
    root_passes: list[int]
    reached_roots: set[int]
    calls: list[Call]
    gates: set[int]
    used_modules: set[str]
    operands: set[int]
    notes: tuple[str, ...]
    cuts: list[FoundCut]
    watched: Sequence[Watched]
    emptied: set[int]
    settings: GroupSettings
    transfer: Transfer
