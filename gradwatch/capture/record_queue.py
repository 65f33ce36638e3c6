"""Sampled steps on their way to records: their values travel, and ranks are merged."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from torch import nn

from gradwatch.capture.assembly import Assembler
from gradwatch.capture.calls import CallKey
from gradwatch.capture.opaque_tensors import describe_opaque
from gradwatch.capture.own_statistics import OwnMeasures
from gradwatch.capture.ranks import RankMerger
from gradwatch.capture.sample import Sample
from gradwatch.capture.shards import count_parts, describe_elsewhere
from gradwatch.records import Layer, StepRecord


class RecordQueue:
    """Makes the records of one session, in the order of their steps.

    Args:
        own: the statistics that are not gradwatch's.
        ranks: merges the records of several ranks.

    Attributes:
        pending: steps whose values travel, oldest first, each with the interval in force.
    """

    def __init__(self, own: OwnMeasures, ranks: RankMerger) -> None:
        self.pending: deque[tuple[Sample, int]] = deque()
        self._own = own
        self._ranks = ranks
        self._assembler = Assembler(own)
        self._modules: dict[int, str] = {}
        self._lost: set[int] = set()

    @property
    def linked(self) -> Mapping[CallKey, Layer]:
        """Calls whose sources are known, as they are described."""
        return self._assembler.linked

    @property
    def used(self) -> set[str]:
        """Fqns of the parameters that forward has used at some step."""
        return self._assembler.used

    def begin(self, modules: dict[int, str]) -> None:
        """A step is about to be sampled.

        Args:
            modules: fqn by ``id`` of each watched module, as they are now.
        """
        self._modules = modules
        self._assembler.begin(modules)

    def start_over(self) -> None:
        """Forget the layers met so far, since the making of a record may have been cut short.

        The modules stay: what still waits to be made is of them, and describes the next step's.
        """
        self._assembler = Assembler(self._own)
        self._assembler.begin(self._modules)

    def lose(self, global_step: int) -> None:
        """Nothing that is measured at a step can be believed.

        Args:
            global_step: of the step, which gives no record.
        """
        self._lost.add(global_step)

    def has_arrived(self, wait: bool = False) -> bool:
        """Whether the oldest pending step can be made into a record.

        Args:
            wait: also where that would wait for its values.
        """
        return bool(self.pending) and (wait or self.pending[0][0].transfer.arrived)

    def make(self, sample: Sample, interval: int, model: nn.Module | None) -> StepRecord | None:
        """The record of a step; those of several ranks are sent off and come when merged.

        Args:
            sample: that was pending.
            interval: that was in force.
            model: that is watched; ``None`` where it is gone.

        Returns:
            ``None`` too where the step was lost, or an optimizer has skipped it.
        """
        is_lost = sample.global_step in self._lost
        self._lost.discard(sample.global_step)
        parts = count_parts(model, [entry.param for entry in sample.watched])
        self._ranks.is_wanted |= any(part > 1 for part in parts)
        sample.notes += self._ranks.describe_alone()
        sample.notes += describe_elsewhere(entry.param for entry in sample.watched)
        sample.notes += describe_opaque(entry.param for entry in sample.watched)
        record = None if is_lost else self._assembler.build(sample, interval)
        if not self._ranks.connect(entry.fqn for entry in sample.watched):
            return record
        self._ranks.put(sample.global_step, record, parts)
        return None
