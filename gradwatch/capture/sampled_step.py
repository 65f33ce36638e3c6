"""One sampled step: from arming, before its first forward, to the optimizers' steps."""

from __future__ import annotations

import threading
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from gradwatch.capture.backward_passes import PassTracker, is_in_backward
from gradwatch.capture.calls import CallKey
from gradwatch.capture.compilation import UNSEEN
from gradwatch.capture.device_values import WHOLE_STEP, RawValue
from gradwatch.capture.firing_history import FiringHistory
from gradwatch.capture.frames import Protect
from gradwatch.capture.inventory import Inventory
from gradwatch.capture.layers import LayerRecorder
from gradwatch.capture.loss import find_pass_root
from gradwatch.capture.negated_loss import raises_own_loss
from gradwatch.capture.optimizer_groups import find_held_ids
from gradwatch.capture.optimizer_state import note_scaling, read_rates
from gradwatch.capture.own_statistics import OwnMeasures
from gradwatch.capture.param_readings import ParamReadings
from gradwatch.capture.plan import Plan
from gradwatch.capture.planning import Planner
from gradwatch.capture.sample import CLAIM, Sample
from gradwatch.capture.step_hooks import remove_hook
from gradwatch.records import Layer

MAX_PASSES = 256
"""A sampled step whose optimizer does not step after this many passes is given up."""


@dataclass
class SampledStep:
    """Everything that exists only while a step is sampled.

    Args:
        model: that is watched; not held, since an abandoned watch must not keep it.
        inventory: of the model, kept from step to step.
        optimizers: whose steps end it, each one's once.
        guard: calls a function of ours so that its exceptions never reach the training.
        firing: which units fired lately, kept from step to step.
        linked: calls that an earlier step has described, whose sources are known.
        notice: is shown the modules outside the watched ones; as in ``LayerRecorder``.
        foresee: which optimizer steps next after this one's step; ``None``: not known.
        on_finish: called with ``True`` when the step is complete, ``False`` when it is given up.
        global_step: of the step.
        draws_units: count pre-activations by bin.
        finds_cuts: look for calls that let no gradient through, and where they stand in the code.
        counts_grad: the training takes its gradients by ``autograd.grad``, as a step before showed.
        own: measures the statistics that are not gradwatch's.
        planner: knows what forward is expected to do; ``None``: each call is followed.
        passes: training passes that have ended.
    """

    model: InitVar[nn.Module]
    inventory: Inventory
    optimizers: Sequence[Optimizer]
    guard: Protect
    firing: FiringHistory
    linked: Mapping[CallKey, Layer]
    notice: Callable[[nn.Module, bool], str]
    foresee: Callable[[int], int | None]
    on_finish: Callable[[bool], None]
    global_step: int
    draws_units: bool = False
    finds_cuts: bool = False
    counts_grad: bool = False
    own: OwnMeasures = field(default_factory=OwnMeasures)
    planner: Planner | None = None
    passes: int = 0
    _events: list[int] = field(default_factory=list)
    _raising: set[int] = field(default_factory=set)
    _stepped: set[int] = field(default_factory=set)
    _thread: int = field(default_factory=threading.get_ident)
    _stepping: Optimizer | None = None
    _entered: set[Optimizer] = field(default_factory=set)
    _ends_after_backward: bool = False

    def __post_init__(self, model: nn.Module) -> None:
        self.watched = self.inventory.list_watched(model)
        self.modules = self.inventory.modules
        tracker = PassTracker(model, self._begin_backward, self._end_backward, self.counts_grad)
        self.recorder = LayerRecorder(
            self.modules,
            self.guard,
            tracker,
            self.firing,
            self.linked,
            self.notice,
            self.draws_units,
            self.finds_cuts,
            self.own,
            self._choose_plan(),
            None if self.planner is None else self.planner.memory,
        )
        self._ledger = self.recorder.table.ledger
        weights = self.inventory.find_weights(self.watched)
        kept = self.inventory.gatherer, weights, self.inventory.past
        self._params = ParamReadings(self.watched, self._ledger, self.own, *kept)

    def arm(self, used: Container[str], sees_layers: bool) -> None:
        """Begin to see; nobody looks for what forward uses where all of that is known.

        Args:
            used: fqns of the parameters that forward is known to use.
            sees_layers: modules may be hooked; without, parameters are read alone.
        """
        if all(entry.fqn in used for entry in self.watched):
            self.recorder.operands = None
        if sees_layers:
            self.recorder.arm(entry.param for entry in self.watched)
        else:
            self.recorder.table.notes[UNSEEN] = None
        for optimizer in self.optimizers:
            optimizer.register_step_pre_hook(self._before_step)

    def _choose_plan(self) -> Plan | None:
        """Cuts are found and pictures drawn by following each call."""
        if self.planner is None or self.finds_cuts or self.draws_units:
            return None
        return self.planner.choose(self.linked)

    @property
    def was_given_gradients(self) -> bool:
        """Whether the optimizer got gradients that no backward pass has brought."""
        return not self._events_of_passes and self._params.has_step_gradients

    @property
    def _events_of_passes(self) -> list[int]:
        return [event for event in self._events if event != CLAIM]

    @property
    def has_begun(self) -> bool:
        """Whether a forward or a backward that counts was seen."""
        return self.recorder.has_begun or bool(self._events)

    @property
    def is_disarmed(self) -> bool:
        """Whether nothing is left in torch, as there is while a forward that was armed runs on."""
        return self.recorder.forward.has_left

    def disarm(self) -> None:
        """Leave nothing behind."""
        for optimizer in self.optimizers:
            remove_hook(optimizer._optimizer_step_pre_hooks, self._before_step)
        self.recorder.close()

    # Backward -------------------------------------------------------------------------------

    def _begin_backward(self) -> None:
        """With no gradient left from earlier passes, those do not count towards this step."""
        if self._events and not self._is_repeated:
            residue = self._params.measure_residue()
            self._ledger.add("pass.residue", self.recorder.table.pass_number, WHOLE_STEP, residue)
        if self._is_repeated:
            return
        if not self.counts_grad:  # which adds to nothing
            self._params.begin_backward()
        root = find_pass_root(self._thread)
        if root is not None:
            number = self.recorder.table.pass_number
            loss = root.detach().reshape(()).clone()
            self._ledger.add("pass.loss", number, WHOLE_STEP, RawValue(loss))
            if raises_own_loss(root, self.optimizers, self.watched):
                self._raising.add(number)

    def _end_backward(self) -> None:
        self.guard(self._read_backward)

    def _read_backward(self) -> None:
        if not self.recorder.forward.is_armed:
            return
        self.recorder.end_pass()
        if self._is_repeated:
            return
        self.passes += 1
        self._events.append(self.recorder.table.pass_number)
        if self.counts_grad:  # what autograd.grad answers is in no parameter yet
            return
        self._params.read_backward()
        if self._stepping is not None or not self.optimizers:
            self._read_step_gradients(self._stepping)
        if self._ends_after_backward:
            self._events.append(CLAIM)
            self.on_finish(True)
        elif self.passes >= MAX_PASSES:
            self.on_finish(False)

    @property
    def _is_repeated(self) -> bool:
        """A closure's second and further evaluation within one step, as LBFGS makes them."""
        return self._stepping is not None and self._params.has_backward

    # Optimizers -----------------------------------------------------------------------------

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self.recorder.forward.leave_after_forward()
        has_closure = any(callable(value) for value in (*args, *kwargs.values()))
        if has_closure:
            self._stepping = optimizer
            self._params.forget_backward()
        elif optimizer not in self._entered:
            self._entered.add(optimizer)
            self.guard(self._read_step_gradients, optimizer)

    def _read_step_gradients(self, optimizer: Optimizer | None) -> None:
        self._params.read_step_gradients(self._find_indices(optimizer), optimizer)

    def take_step(self, number: int, optimizer: Optimizer | None) -> None:
        """An optimizer has stepped, or the step was marked by hand.

        Args:
            number: of the optimizer, in the order in which they were handed over; 0 by hand.
            optimizer: that has stepped.
        """
        self._stepping = None
        again = number in self._stepped
        if not again:
            self._stepped.add(number)
            self._params.take(self._find_indices(optimizer), optimizer)
            note_scaling(optimizer, self._ledger)
            if not is_in_backward():
                self._events.append(CLAIM)
        is_last = again or len(self._stepped) == max(len(self.optimizers), 1)
        if is_last or self.foresee(number) in self._stepped:
            if is_in_backward():
                self._ends_after_backward = True
            else:
                self.on_finish(True)

    def skip_step(self) -> None:
        """An optimizer has stepped before the step's first forward: that was the step before."""
        self._params.restart()
        self._entered.clear()

    def _find_indices(self, optimizer: Optimizer | None) -> set[int]:
        if optimizer is None or len(self.optimizers) == 1:
            return set(range(len(self.watched)))
        ids = find_held_ids([optimizer])
        return {i for i, entry in enumerate(self.watched) if id(entry.param) in ids}

    def _find_waiting(self) -> set[int]:
        """Parameters of optimizers that have not stepped, as where two of them take turns."""
        held: set[int] = set()
        return held.union(*map(self._find_indices, self.optimizers)) - self._params.taken

    # Closing --------------------------------------------------------------------------------

    def collect(self) -> Sample:
        """Send everything off to the host."""
        params = [entry.param for entry in self.watched]
        settings = self.inventory.groups.read(self.optimizers, params)
        self._params.finish(self._find_waiting(), settings.decoupled.tolist())
        self._note_silent_units()
        self.recorder.flush()
        self.inventory.weights = self._params.weights
        table = self.recorder.table
        return Sample(
            global_step=self.global_step,
            learning_rate=read_rates(self.optimizers, self._ledger),
            events=self._events,
            raising=self._raising,
            root_passes=table.root_passes,
            reached_roots=self.recorder.gradients.reached_roots,
            calls=list(table.calls.values()),
            gates=table.gates,
            used_modules=self.recorder.forward.used_modules,
            operands=self.recorder.operands or set(),
            notes=tuple(table.notes),
            cuts=self.recorder.list_cuts(),
            watched=self.watched,
            emptied=self._params.emptied,
            settings=settings,
            transfer=self._ledger.send(),
        )

    def _note_silent_units(self) -> None:
        calls, counts = self.recorder.table.calls, self.firing.close_step()
        found = {calls[key].index: summary for key, summary in counts.items() if key in calls}
        for index, (share, _) in found.items():
            self._ledger.add("dead_fraction", index, WHOLE_STEP, share)
        if found:
            places = [("unit_samples", index, WHOLE_STEP) for index in found]
            samples = torch.tensor([float(count) for _, count in found.values()])
            self._ledger.add_row(places, samples, [1.0] * len(places))
