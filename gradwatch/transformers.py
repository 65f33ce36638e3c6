"""GradWatchCallback for the Trainer of Hugging Face transformers."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

from transformers import TrainerCallback

from gradwatch.alerts import Alerts
from gradwatch.capture.own_statistics import OwnStatistic
from gradwatch.configuration import find_configuration
from gradwatch.errors import NothingToJudge
from gradwatch.fail_on import Alarms, begin_watch, borrow_watch, find_own_optimizers
from gradwatch.live_watch import Watch
from gradwatch.log.shared_writer import find_directory
from gradwatch.report import Report
from gradwatch.reporters import Reporters
from gradwatch.setting_values import check_compiled
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.episodes import Change
from gradwatch.verdict.rule import Rule

_LOGDIR_VARIABLE = "TENSORBOARD_LOGGING_DIR"
_RUN = "gradwatch"

_log = logging.getLogger("gradwatch")


class GradWatchCallback(TrainerCallback):
    """Watches the model while ``Trainer.train`` trains it: ``callbacks=[GradWatchCallback()]``.

    Gradients are read after accumulation and before the trainer's clipping. With ``"tensorboard"``
    in ``report_to``, records go to a run ``gradwatch`` beside the trainer's own, since its callback
    does not share the writer; to have both in one run, make one ``SummaryWriter`` and pass it both
    here and to ``TensorBoardCallback(tb_writer=...)``. Other trackers in ``report_to`` get the
    scalars. A finding that begins is also said through the logger ``"gradwatch"`` of Python's
    ``logging``, and as an alert of Weights & Biases or Comet where one of those is reported to.

    Args:
        every_n_steps: longest wait between two sampled steps (see ``Schedule``).
        fail_on: kinds of finding that stop the training, such as ``("vanishing",)``. A training
            without any record then fails as well, since no data is no pass.
        thresholds: of the rules; those of ``[tool.gradwatch]`` in pyproject.toml when omitted.
        per_layer_scalars: also log a scalar per layer and statistic (many charts).
        logdir: directory for event files, whatever ``report_to`` says.
        writer: a ``SummaryWriter`` to share instead.
        budget: largest share of the training's time that watching may take, as for ``watch``.
        rules, statistics: besides gradwatch's own, as for ``watch``.
        compiled: how a compiled model's layers are seen, as for ``watch``.

    Raises:
        InvalidInput: an unknown kind, or a setting that ``watch`` refuses.
        UnhealthyGradients: from ``train``, for a finding among ``fail_on``.
        NothingToJudge: from ``train`` with ``fail_on``, when no step could be judged.
    """

    def __init__(
        self,
        every_n_steps: int = 50,
        fail_on: Sequence[str] = (),
        thresholds: Thresholds | None = None,
        per_layer_scalars: bool = False,
        logdir: str | os.PathLike[str] | None = None,
        writer: object = None,
        budget: float | None = None,
        rules: Sequence[Rule] = (),
        statistics: Sequence[OwnStatistic] = (),
        compiled: str = "eager",
    ) -> None:
        super().__init__()
        self.every_n_steps = every_n_steps
        self.fail_on = fail_on
        self.thresholds = find_configuration().choose_thresholds(thresholds)
        self.per_layer_scalars = per_layer_scalars
        self.logdir = logdir
        self.writer = writer
        self.budget = budget
        self.rules = rules
        self.statistics = statistics
        self.compiled = check_compiled(compiled)
        self._alarms = Alarms(fail_on, every_n_steps, budget)
        self._reporters = Reporters()
        self._alerts = Alerts(list)
        self._scalars: list[tuple[dict[str, float], int]] = []
        self._watch: Watch | None = None
        self._is_owner = False
        self._marks_steps = False

    def report(self) -> Report:
        """The verdict so far, or on the whole of the last training.

        Raises:
            NothingToJudge: no training has begun.
        """
        if self._watch is None:
            raise NothingToJudge(
                "Expected a training that this callback has seen, got none. "
                "Call trainer.train() with it first."
            )
        return self._watch.report()

    def detach(self) -> None:
        """Leave no trace. The trainer tells its callbacks nothing of an exception: after one, call
        this, unless the same callback is used for another training, which does."""
        self._detach()

    def _detach(self, error: BaseException | None = None) -> None:
        if self._watch is not None and self._is_owner:
            self._watch.detach(error)

    # Hooks of the trainer -------------------------------------------------------------------

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin; a checkpoint's step is restored."""
        self.detach()
        self._watch, self._is_owner = borrow_watch(kwargs["model"]), False
        self._alarms.begin(state.global_step, self._find_directory(args))
        self._scalars.clear()
        self._reporters = Reporters.find()
        self._alerts = Alerts(self._reporters.list_experiments)
        if self._watch is not None:
            return
        self._is_owner = True
        optimizers = find_own_optimizers([kwargs["optimizer"]], kwargs["model"])
        self._marks_steps = not optimizers
        self._watch = begin_watch(
            self,
            kwargs["model"],
            optimizers,
            global_step=state.global_step,
            batch_size=args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
            on_change=self._hear,
            log=self._keep_scalars,
            logdir=None if self.writer is not None else self._choose_logdir(args),
            writer=self.writer,
        )

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Report what has been measured, and stop what is to fail."""
        if self._watch is not None and self._is_owner and self._marks_steps:
            self._watch.step()
        if self._watch is not None and control.should_training_stop:
            self._watch.report()  # waits for the last figures: trackers may close after this
        self._report_scalars(args, state, control=control, model=kwargs["model"])
        if self._watch is not None and self._alarms.is_to_stop(self._watch):
            error = self._alarms.make_error()
            self._detach(error)
            raise error

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the last verdict, and fail if that is what it asks for."""
        self.detach()
        if not self._alarms.fail_on:
            return
        error = self._alarms.judge(self.report())
        if self._alarms.fails_anywhere(error is not None):
            raise error or self._alarms.make_error()

    def _hear(self, change: Change) -> None:
        self._alarms.hear(change)
        self._alerts.hear(change)

    def _keep_scalars(self, scalars: dict[str, float], global_step: int) -> None:
        self._scalars.append((scalars, global_step))

    def _report_scalars(self, args: Any, state: Any, **given: Any) -> None:
        rows, self._scalars = self._scalars, []
        try:
            for scalars, step in rows:
                self._reporters.report(scalars, step, args, state, **given)
        except Exception:  # no reason to stop a training
            _log.exception(
                "A tracker took no scalars of step %d; the training goes on.", rows[0][1]
            )

    def _find_directory(self, args: Any) -> str | None:
        """Of the event files; ``None`` where there are none."""
        if self.writer is not None:
            return find_directory(self.writer)
        logdir = self._choose_logdir(args)
        return None if logdir is None else os.fspath(logdir)

    def _choose_logdir(self, args: Any) -> str | os.PathLike[str] | None:
        """A directory in which nobody else writes, beside the trainer's own."""
        if self.logdir is not None:
            return self.logdir
        if not {"tensorboard", "all"} & set(args.report_to):
            return None
        base = os.environ.get(_LOGDIR_VARIABLE) or getattr(args, "logging_dir", None)
        return os.path.join(base or os.path.join(args.output_dir, "runs"), _RUN)  # noqa: PTH118
