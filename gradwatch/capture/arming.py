"""What stands in torch while a step is sampled, and how it is taken out again."""

from __future__ import annotations

from collections.abc import Callable, Container

from torch import nn

from gradwatch.capture.compiled_variant import CompiledVariant
from gradwatch.capture.eager_stance import EagerStance
from gradwatch.capture.graph_clock import GraphClock
from gradwatch.capture.sampled_step import SampledStep
from gradwatch.capture.spaced_collections import SpacedCollections


class Arming:
    """The step that is being sampled, and those whose forward or backward still runs.

    Args:
        model: that may be compiled.
        lose: called with the number of a step of which nothing can be believed.
        reads_in_graph: planned steps may run a second compilation of the model.

    Attributes:
        step: that is being sampled; ``None`` between sampled steps.
        clock: tells steps that are skipped for good.
    """

    def __init__(
        self,
        model: nn.Module,
        lose: Callable[[int], None],
        reads_in_graph: bool = False,
    ) -> None:
        self.step: SampledStep | None = None
        self._lose = lose
        self._variant = CompiledVariant() if reads_in_graph else None
        self._stance = EagerStance(model, self._make_way, self._variant)
        self._retired: list[SampledStep] = []
        self._collections = SpacedCollections()
        self.clock = GraphClock()

    def arm(self, step: SampledStep, used: Container[str]) -> None:
        """Begin to sample a step.

        Args:
            step: that is about to begin.
            used: fqns of the parameters that forward is known to use.
        """
        self.step = step
        self._collections.begin(len(step.modules))
        step.arm(used, sees_layers=self._stance.enter(step))

    def disarm(self) -> None:
        """Leave torch; may be cut short by a signal, and is then called again."""
        step = self.step
        if step is not None:
            step.disarm()
            self._stance.leave()
            if not step.is_disarmed and step not in self._retired:
                self._retired.append(step)
            self.step = None

    def finish(self) -> None:
        """Disarm steps that ended inside a forward or a backward, which has ended since."""
        if self._retired:
            for step in self._retired:
                step.disarm()
            self._retired = [step for step in self._retired if not step.is_disarmed]

    def end_step(self) -> SampledStep | None:
        """An optimizer has stepped.

        Returns:
            The step that was being sampled.
        """
        if self._retired:
            self.finish()
        if self.step is None:  # only now the graph of a step before is gone
            self._collections.end()
        return self.step

    def note_end(self, is_complete: bool) -> None:
        """What is being sampled is over, and still armed.

        Args:
            is_complete: the optimizers have stepped; else it is given up.
        """
        assert self.step is not None
        if is_complete:
            params = [entry.param for entry in self.step.watched]
            self.clock.follow(params)
        else:
            self.clock.note_passes(self.step.passes)

    def count_unstepped(self) -> int:
        """Steps' worth of backward passes since an optimizer has stepped last."""
        return self.clock.count_steps(0 if self.step is None else self.step.passes)

    def close(self) -> None:
        """Leave torch, and keep nothing alive."""
        self._collections.end()
        self.disarm()
        self.finish()
        if self._variant is not None:
            self._variant.clear()
        self.clock.stop()

    def _make_way(self) -> None:
        """Take our hooks away for an export; what the step would tell of its layers is lost."""
        if self.step is not None:
            self._lose(self.step.global_step)
            self.step.recorder.forward.retire()
            self._stance.leave()
