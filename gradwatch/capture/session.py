"""A watch's life around the optimizer's steps: arms the recorders, disarms them, hands on records.

Between sampled steps nothing of ours exists in the process but one step hook per optimizer,
which compares a counter.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn
from torch._compile import _disable_dynamo
from torch.optim import Optimizer

from gradwatch.capture.arming import Arming
from gradwatch.capture.backward_passes import is_in_backward, run_after_backward
from gradwatch.capture.firing_history import FiringHistory
from gradwatch.capture.inventory import Inventory
from gradwatch.capture.own_statistics import OwnMeasures, OwnStatistic
from gradwatch.capture.planning import Planner
from gradwatch.capture.ranks import RankMerger
from gradwatch.capture.record_queue import RecordQueue
from gradwatch.capture.sample import Sample
from gradwatch.capture.sampled_step import SampledStep
from gradwatch.capture.sampling_budget import Pace
from gradwatch.capture.schedule import Schedule
from gradwatch.capture.step_counts import StepCounts
from gradwatch.capture.step_hooks import is_inner_step
from gradwatch.capture.unregistered import describe_unregistered
from gradwatch.capture.user_modes import call_unseen
from gradwatch.capture.wrappers import list_parallel_parts, unwrap
from gradwatch.interruption import forget_frames, is_foreign, warn_of_failure
from gradwatch.records import StepRecord

FIRST_CUTS = 3
"""Calls that let no gradient through are looked for at so many sampled steps, and at every tenth:
the first one may be skipped by a loss scaler, and a part of forward may begin later."""

HISTOGRAM_EVERY = 10
"""Pre-activations are counted by bin at the first sampled step and every tenth one after it."""


class Session:
    """Captures sampled steps of one model and hands each on as a ``StepRecord``.

    Args:
        model: whose modules and parameters are watched; held weakly.
        optimizers: whose steps are the boundaries; none means that ``mark_step`` marks them.
        schedule: which steps are sampled.
        on_record: receives each record, on the training's thread; answers how many of the next
            steps are to be sampled one by one. Of several ranks the first one decides.
        global_step: number of the first step.
        budget: largest share of the training's time; ``None`` for the schedule as it is.
        statistics: that are measured besides gradwatch's own.
        reads_in_graph: planned steps of a compiled model run a second compilation of it.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: Sequence[Optimizer],
        schedule: Schedule,
        on_record: Callable[[StepRecord], int | None],
        global_step: int = 0,
        budget: float | None = None,
        statistics: Sequence[OwnStatistic] = (),
        reads_in_graph: bool = False,
    ) -> None:
        inner, is_parallel = unwrap(model)
        self._model = weakref.ref(inner)
        self.optimizers = tuple(optimizers)
        self.schedule, self.on_record = schedule, on_record
        self.failure: BaseException | None = None
        self._counts = StepCounts(len(self.optimizers), global_step)
        self._pace = Pace(schedule, budget, global_step)
        self._inventory = Inventory()
        self._firing = FiringHistory()
        self._own = OwnMeasures(statistics)
        self._ranks = RankMerger()
        self._records = RecordQueue(self._own, self._ranks)
        parts = list_parallel_parts(inner)
        self._ranks.is_wanted = is_parallel or bool(parts)
        self._arming = Arming(model, self._records.lose, reads_in_graph)
        for wrapper in (model, *parts) if is_parallel else parts:
            self._ranks.wrappers.meet(wrapper)
        self._handles: list[Any] = []
        self._planner = Planner(self._inventory)
        self._armed = 0
        self._counts_grad = self._running = self._had_trial = False
        self._is_trial: Callable[[], bool] = bool  # never, until somebody says when

    @property
    def model(self) -> nn.Module | None:
        """What is watched, while it lives."""
        return self._model()

    @property
    def global_step(self) -> int:
        """Optimizer steps made so far."""
        return self._counts.global_step

    # Life -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Attach to the optimizers; arm when the first step is sampled."""
        self._running = True
        for number, optimizer in enumerate(self.optimizers):
            hook = self._make_step_hook(number)
            self._handles.append(optimizer.register_step_post_hook(hook))
        self._arm_if_due()

    def stop(self) -> None:
        """Detach from everything; records under way are still delivered."""
        self._running = False
        self._arming.close()
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.deliver(wait=True)
        self.guard(self._hand_on_merged, True)

    def count_unstepped(self) -> int:
        """Steps' worth of backward passes since an optimizer has stepped last."""
        return (self.guard(self._arming.count_unstepped) if self.optimizers else 0) or 0

    def abandon(self) -> None:
        """Nobody is left who could wait: ``stop`` will not."""
        self._ranks.abandon()

    def guard(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function of ours; its exception ends the watching, never the training.

        What a signal raises while it runs is the training's: it goes on, and the step is given up.

        Args:
            function: of ours.
            *args: for it.

        Returns:
            What it answers; ``None`` after an exception, and from then on without calling it.
        """
        if self.failure is not None:
            return None
        try:
            return call_unseen(function, args)
        except BaseException as error:
            if is_foreign(error):
                self._arming.disarm()
                self._records.start_over()
                raise
            self.fail(error)
            return None

    def fail(self, error: BaseException) -> None:
        """Say once what went wrong, and switch off.

        Args:
            error: of ours.
        """
        self.failure = forget_frames(error)
        self._arming.disarm()
        warn_of_failure(error, self.global_step)

    # Steps ----------------------------------------------------------------------------------

    def _make_step_hook(self, number: int) -> Callable[..., None]:
        def after_step(optimizer: Optimizer, *_: Any) -> None:
            if not is_inner_step(optimizer):
                self.after_step(number, optimizer)

        return _disable_dynamo(after_step)  # a compiled step must not compile the arming

    def after_step(self, number: int, optimizer: Optimizer | None) -> None:
        """An optimizer has stepped (``None``: the step was marked by hand).

        Args:
            number: of the optimizer, in the order in which they were handed over; 0 by hand.
            optimizer: that has stepped.
        """
        self.guard(self._arming.clock.tick)
        step = self._arming.end_step()
        if self._is_trial():
            self._had_trial = True
            self._arming.disarm()
            return
        if step is not None:
            if not step.has_begun and self._counts.is_late(number):
                self.guard(step.skip_step)
            else:
                self.guard(step.take_step, number, optimizer)
        self._counts.count(number)
        self._arm_if_due()
        self._inventory.weights = None  # they may change from here on

    def leave_out(self, is_trial: Callable[[], bool]) -> None:
        """Pass over the steps during which this holds: they are no part of the training.

        Args:
            is_trial: asked after each optimizer step.
        """
        self._is_trial = is_trial

    def resume(self) -> None:
        """Steps of a trial are over, if there were any; called between two steps."""
        if self._had_trial:
            self._had_trial = False
            self._arming.finish()
            self._arm_if_due()

    def _arm_if_due(self) -> None:
        if self._arming.step is not None or not self._running or self.global_step < self._pace.wake:
            return
        if self._counts.is_between:
            return
        if is_in_backward():  # an optimizer that steps while gradients arrive
            run_after_backward(self._arm_after_backward)
        else:
            self._arm_after_backward()

    def _arm_after_backward(self) -> None:
        if self._arming.step is None and self._running and self._pace.is_due(self.global_step):
            self.guard(self._arm)

    def _arm(self) -> None:
        if (model := self.model) is None:
            return
        self._pace.begin(self.global_step)
        began = self._pace.read_clock()
        self.deliver()
        step = SampledStep(
            model=model,
            inventory=self._inventory,
            optimizers=self.optimizers,
            guard=self.guard,
            firing=self._firing,
            linked=self._records.linked,
            notice=self._notice,
            foresee=self._counts.foresee,
            on_finish=self._finish,
            global_step=self.global_step,
            draws_units=self._armed % HISTOGRAM_EVERY == 0,
            finds_cuts=self._armed < FIRST_CUTS or self._armed % HISTOGRAM_EVERY == 0,
            counts_grad=self._counts_grad,
            own=self._own,
            planner=self._planner if self._counts.is_even else None,
        )
        self._armed += 1
        self._records.begin(step.modules)
        self._arming.arm(step, self._records.used)
        self._pace.spend(began)

    def _notice(self, module: nn.Module, is_inside: bool) -> str:
        self._ranks.notice(module, self.model)
        return describe_unregistered(module, self.model, self.optimizers) if is_inside else ""

    def _finish(self, is_complete: bool) -> None:
        step = self._arming.step
        assert step is not None
        began = self._pace.read_clock()
        if is_complete:
            is_known = self._planner.learn(step.recorder)
            self._counts_grad |= is_known and step.was_given_gradients
            if not is_known:
                self._records.lose(step.global_step)
                self._pace.look_closely(1)
            self._records.pending.append((step.collect(), self._pace.interval))
        self._arming.note_end(is_complete)
        self._arming.disarm()
        self.deliver()
        wait = self._ranks.agree_on_wait(step.global_step, self._pace.propose())  # that of rank 0
        self._pace.settle(step.global_step, wait)
        self._pace.spend(began)
        if is_in_backward():
            self._arm_after_backward()
            self._inventory.weights = None

    def deliver(self, wait: bool = False) -> None:
        """Hand on the records whose numbers have arrived; all of them when ``wait`` is set.

        Those of several ranks are handed on when they are merged: nobody waits for a rank here.

        Args:
            wait: for numbers that are still on their way from the device.
        """
        while self._records.has_arrived(wait):
            self.guard(self._make_record, *self._records.pending.popleft())
        self.guard(self._hand_on_merged)

    def _hand_on_merged(self, is_last: bool = False) -> None:
        for record in self._ranks.collect(is_last):
            self._hand_on(record)

    def _make_record(self, sample: Sample, interval: int) -> None:
        if (record := self._records.make(sample, interval, self.model)) is not None:
            self._hand_on(record)

    def _hand_on(self, record: StepRecord) -> None:
        self._pace.look_closely(self.on_record(record) or 0)
