"""What one sampled step reads of the parameters: gradients after backward and before the optimizer,
weights, updates."""

from __future__ import annotations

from collections.abc import Sequence

from torch.optim import Optimizer

from gradwatch.capture.device_values import Ledger, RawValue
from gradwatch.capture.leftovers import Leftovers
from gradwatch.capture.optimizer_state import find_scaler, read_scale
from gradwatch.capture.own_statistics import OwnMeasures
from gradwatch.capture.param_values import (
    GradientReading,
    measure_residue,
    note_trainable,
    read_gradients,
    read_weights,
    stamp_gradients,
)
from gradwatch.capture.parameters import Watched
from gradwatch.capture.past_weights import PastWeights
from gradwatch.capture.sample_rows import Gatherer
from gradwatch.capture.statistics import SCALED_SUFFIX
from gradwatch.capture.updates import StepGradients, note_updates
from gradwatch.capture.weight_samples import WeightSamples


class ParamReadings:
    """Reads parameters at the moments that a step offers; values go to the step's ledger.

    Args:
        watched: all parameters.
        ledger: of the step.
        own: measures the statistics that are not gradwatch's.
        gatherer: takes samples, kept from step to step.
        weights: of the parameters, as they are before the step.
        past: their samples at the sampled step before, kept from step to step.

    Attributes:
        taken: indices of those whose optimizer has stepped.
        emptied: those of which a closure's backward has left a gradient that was gone after the
            step.
    """

    def __init__(
        self,
        watched: Sequence[Watched],
        ledger: Ledger,
        own: OwnMeasures,
        gatherer: Gatherer,
        weights: WeightSamples,
        past: PastWeights,
    ) -> None:
        self.taken: set[int] = set()
        self.emptied: set[int] = set()
        self._watched = watched
        self._ledger = ledger
        self._own = own
        self._gatherer = gatherer
        self.weights = weights
        self._past = past
        self._before = weights.take_again()
        self._leftovers = Leftovers(watched)
        self._gradients: Ledger | None = None
        self._reading = GradientReading()
        self._stamps: dict[int, tuple[int, int]] = {}
        self._step_gradients = StepGradients()
        self._has_weights = self._has_closure = False

    @property
    def has_backward(self) -> bool:
        """Whether gradients that a backward pass has left were read."""
        return self._gradients is not None

    @property
    def has_step_gradients(self) -> bool:
        """Whether any gradient was there when an optimizer was about to step."""
        return bool(self._step_gradients.rows)

    def measure_residue(self) -> RawValue:
        """Zero when no gradient is left from an earlier pass, else more than that."""
        return measure_residue(self._watched)

    def begin_backward(self) -> None:
        """A backward pass begins, for the first time in this step or after others.

        Weights that were put back or clipped since the step was armed are no part of its update.
        """
        if self._gradients is None and not (self.taken or self._has_closure):
            self._before = self.weights.renew(self._before)
        self._leftovers.begin_pass()

    def read_backward(self) -> None:
        """A backward pass is over: its gradients take the place of those read before."""
        self._gradients = Ledger()
        self._reading = self._read_gradients(self._gradients)
        self._own.measure_params(self._watched, self._gradients)
        self._stamps = stamp_gradients(self._watched)
        self._leftovers.end_pass(self._stamps)
        self._read_weights()

    def forget_backward(self) -> None:
        """A closure follows that runs backward itself."""
        self._gradients = None
        self._has_closure = True

    def read_step_gradients(self, indices: set[int], optimizer: Optimizer | None) -> None:
        """Gradients as the optimizer gets them; their norms again only where they have changed.

        Args:
            indices: of the parameters that the optimizer holds.
            optimizer: that is about to step; ``None``: the step is marked by hand.
        """
        mine = indices - self.taken
        present = stamp_gradients(self._watched)
        stamps = {} if _has_scale(optimizer) else present
        kept = mine.intersection(stamps)
        if stamps != self._stamps:
            kept = {i for i in kept if stamps[i] == self._stamps.get(i)}
        known = self._reading.choose(kept)
        mine = mine.intersection(present)
        self._step_gradients.take(self._watched, mine, self._ledger, known, self._gatherer)

    def take(self, indices: set[int], optimizer: Optimizer | None) -> None:
        """An optimizer has stepped: keep its parameters' readings before others replace them.

        Args:
            indices: of the parameters that the optimizer holds.
            optimizer: that has stepped; ``None``: the step is marked by hand.
        """
        mine = indices - self.taken
        if not self._step_gradients.covers(mine):  # a closure without a backward of its own
            self.read_step_gradients(mine, optimizer)
        self.taken |= mine
        if self._has_closure and self._gradients is not None:
            self.emptied |= {index for index in mine if self._watched[index].param.grad is None}
        self._leftovers.note(mine, self._ledger)
        reading = self._gradients
        suffix = SCALED_SUFFIX if _has_scale(optimizer) and reading is not None else ""
        if reading is None:
            reading = Ledger()
            self._read_gradients(reading, mine)
            self._own.measure_params(self._watched, reading, mine)
        self._ledger.take(reading, mine, suffix)
        self._read_weights()

    def restart(self) -> None:
        """What the optimizers have done so far belongs to the step before."""
        self._before = self.weights.take()
        self._leftovers = Leftovers(self._watched)
        self._step_gradients = StepGradients()

    def finish(self, waiting: set[int], decays: Sequence[float]) -> None:
        """All optimizers have stepped.

        Args:
            waiting: indices of those whose optimizer has not stepped.
            decays: of each parameter, its decoupled decay in one step.
        """
        self._leftovers.note(waiting, self._ledger)
        after = self.weights.take()
        if waiting:
            after = [stepped for rows in after for stepped in rows.leave_out(waiting)]
        self._past.note_changes(self._before, self._step_gradients, self._ledger)
        note_updates(self._before, after, decays, self._step_gradients, self._ledger)

    def _read_gradients(self, ledger: Ledger, mine: set[int] | None = None) -> GradientReading:
        note_trainable(self._watched)
        return read_gradients(self._watched, ledger, self._gatherer, self.weights, mine)

    def _read_weights(self) -> None:
        if not self._has_weights:
            read_weights(self.weights, self._ledger)
            self._has_weights = True


def _has_scale(optimizer: Optimizer | None) -> bool:
    return optimizer is not None and read_scale(find_scaler(optimizer)) is not None
