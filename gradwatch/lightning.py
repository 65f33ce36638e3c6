"""GradWatchCallback for ``pytorch_lightning.Trainer`` and ``lightning.pytorch.Trainer``."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from gradwatch.alerts import Alerts
from gradwatch.capture.own_statistics import OwnStatistic
from gradwatch.configuration import find_configuration
from gradwatch.errors import GradWatchError, NothingToJudge
from gradwatch.fail_on import Alarms, begin_watch, borrow_watch, count_samples, find_own_optimizers
from gradwatch.live_watch import Watch
from gradwatch.log.shared_writer import find_directory
from gradwatch.report import Report
from gradwatch.setting_values import check_compiled
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.episodes import Change
from gradwatch.verdict.rule import Rule

_PACKAGES = ("lightning.pytorch", "pytorch_lightning")
_CHECKPOINT_KEY = "gradwatch"

_log = logging.getLogger("gradwatch")


def _find_bases() -> tuple[type, ...]:
    """``Callback`` of each Lightning there is: a trainer accepts its own package's only."""
    found: list[type] = []
    failure: Exception | None = None
    for package in _PACKAGES:
        try:
            found.append(import_module(package).Callback)
        except Exception as error:  # a broken one must not hide the other
            failure = error
    if not found:
        raise ImportError(
            f"Expected lightning or pytorch_lightning, got neither ({failure}). "
            'Install one: pip install "gradwatch[lightning]".'
        ) from failure
    return tuple(found)


class GradWatchCallback(*_find_bases()):  # type: ignore[misc]
    """Watches the LightningModule while ``Trainer.fit`` trains it.

    Gradients are read after accumulation and unscaling and before clipping, with automatic and
    manual optimization. Records go through the trainer's ``TensorBoardLogger``, wherever it stands
    among the loggers; every other logger gets the scalars. A finding that begins is also said
    through the logger ``"gradwatch"`` of Python's ``logging``, and as an alert of Weights & Biases
    or Comet where one of those logs.

    Args:
        every_n_steps: longest wait between two sampled steps (see ``Schedule``).
        fail_on: kinds of finding that stop the training, such as ``("vanishing",)``. A training
            without any record then fails as well, since no data is no pass.
        thresholds: of the rules; those of ``[tool.gradwatch]`` in pyproject.toml when omitted.
        per_layer_scalars: also log a scalar per layer and statistic (many charts).
        logdir: directory for event files of our own instead of the ``TensorBoardLogger``'s.
        budget: largest share of the training's time that watching may take, as for ``watch``.
        rules, statistics: besides gradwatch's own, as for ``watch``.
        compiled: how a compiled model's layers are seen, as for ``watch``.

    Raises:
        InvalidInput: an unknown kind, or a setting that ``watch`` refuses.
        UnhealthyGradients: from ``fit``, for a finding among ``fail_on``.
        NothingToJudge: from ``fit`` with ``fail_on``, when no step could be judged.
    """

    def __init__(
        self,
        every_n_steps: int = 50,
        fail_on: Sequence[str] = (),
        thresholds: Thresholds | None = None,
        per_layer_scalars: bool = False,
        logdir: str | os.PathLike[str] | None = None,
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
        self.budget = budget
        self.rules = rules
        self.statistics = statistics
        self.compiled = check_compiled(compiled)
        self._forget()

    def _forget(self) -> None:
        self._watch: Watch | None = None
        self._alarms = Alarms(self.fail_on, self.every_n_steps, self.budget)
        self._alerts = Alerts(list)
        self._scalars: list[tuple[int, dict[str, float]]] = []
        self._last_word: GradWatchError | None = None
        self._restored_step: int | None = None
        self._marks_steps = False
        self._is_owner = False
        self._has_begun = False

    def __getstate__(self) -> dict[str, Any]:
        """A copy, for another process or run, has the settings and nothing of this training."""
        twin = self.__class__.__new__(self.__class__)
        twin.__dict__.update(self.__dict__)
        twin._forget()
        for borrowed in ("log", "log_dict"):  # Lightning puts methods of the module there
            twin.__dict__.pop(borrowed, None)
        return twin.__dict__

    def report(self) -> Report:
        """The verdict so far, or on the whole of the last ``fit``.

        Raises:
            NothingToJudge: no training has begun in this process.
        """
        if self._watch is None:
            raise NothingToJudge(
                "Expected a training that this callback has seen, got none in this process. "
                "Call trainer.fit() with it first; a spawned process keeps its report to itself."
            )
        return self._watch.report()

    # Hooks of the trainer -------------------------------------------------------------------

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """A training is to begin: what a finder saves before it is none of an earlier one."""
        if stage == "fit":
            self._has_begun = False

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """End an earlier training, whose report stays until another one begins."""
        self._detach()
        self._last_word = None
        self._has_begun = False

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin; the sanity check is over, and a checkpoint's counters are restored."""
        begin = self._find_first_step(trainer)
        self._forget()
        self._has_begun = True
        self._watch, self._is_owner = borrow_watch(pl_module), False
        if self._watch is not None:
            return
        optimizers = find_own_optimizers(trainer.optimizers, pl_module)
        self._marks_steps = not optimizers
        self._alarms.begin(begin, self._find_directory(trainer))
        self._alerts = Alerts(partial(_list_experiments, weakref.ref(trainer)))
        self._is_owner = True
        self._watch = begin_watch(
            self,
            pl_module,
            optimizers,
            global_step=begin,
            batch_size=count_samples(
                trainer.train_dataloader, trainer.accumulate_grad_batches * trainer.world_size
            ),
            on_change=self._hear,
            log=self._keep_scalars,
            **self._choose_log(trainer),
        )
        if self._watch is not None and self in trainer.callbacks:  # and not called by one that is
            self._watch.leave_out(_find_trials(self, trainer))

    def on_train_batch_start(self, *_: Any, **__: Any) -> None:
        """Go on after a finder's trial steps, if there were any."""
        if self._watch is not None and self._is_owner:
            self._watch.resume()

    def on_train_batch_end(self, trainer: Any, *_: Any, **__: Any) -> None:
        """Hand scalars to the other loggers, and stop what is to fail."""
        if self._watch is not None and self._marks_steps:
            self._watch.step()
        self._log_scalars(trainer)
        if self._watch is not None and self._alarms.is_to_stop(self._watch):
            raise self._alarms.make_error()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Write the last verdict while the loggers are open, and make up our mind."""
        self._detach()
        self._log_scalars(trainer)
        if self.fail_on and not trainer.fast_dev_run:  # a step or two prove nothing, and need not
            report = Report() if self._watch is None else self.report()  # what none watches is none
            error = self._alarms.judge(report)
            if self._alarms.fails_anywhere(error is not None):
                self._last_word = error or self._alarms.make_error()

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Fail, after every other callback has had its end of the training."""
        if self.fail_on and not self._has_begun and self._restored_step:  # a finished job resumed
            self._alarms.begin(self._restored_step, self._find_directory(trainer))
            self._last_word = self._alarms.judge(Report())
        elif self.fail_on and not self._has_begun:
            raise NothingToJudge(
                "Expected a training that this callback has seen, got a fit without a step. "
                "Check max_epochs and the training data, or leave fail_on out."
            )
        if self._last_word is not None:
            raise self._last_word

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Leave no trace behind a training that broke, and say so at the end of its log."""
        self._detach(exception)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Leave no trace, however the training ended."""
        self._detach()

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Note the step under a key of our own, which a trainer without us passes over."""
        if self._watch is not None and self._has_begun:
            checkpoint[_CHECKPOINT_KEY] = {"global_step": self._watch.global_step}

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Read the step back, when it is for a training that goes on."""
        if trainer.state.fn == "fit" and (self._watch is None or self._watch.is_detached):
            self._restored_step = checkpoint.get(_CHECKPOINT_KEY, {}).get("global_step")

    # Steps ----------------------------------------------------------------------------------

    def _find_first_step(self, trainer: Any) -> int:
        """Steps made before; the trainer's own count adds up the steps of all optimizers."""
        restored, self._restored_step = self._restored_step, None
        if restored is not None:
            return int(restored)
        return int(trainer.global_step) // max(len(trainer.optimizers), 1)

    def _detach(self, error: BaseException | None = None) -> None:
        if self._watch is not None and self._is_owner:
            self._watch.detach(error)

    # Logs -----------------------------------------------------------------------------------

    def _choose_log(self, trainer: Any) -> dict[str, Any]:
        """Where records go; never a second file into a directory that the logger writes to."""
        if not trainer.is_global_zero or trainer.fast_dev_run:
            return {}
        shared = next((logger for logger in trainer.loggers if _is_tensorboard(logger)), None)
        if self.logdir is None:
            return {} if shared is None else {"writer": shared}
        if shared is not None and Path(shared.log_dir).resolve() == Path(self.logdir).resolve():
            return {"writer": shared}
        return {"logdir": self.logdir}

    def _find_directory(self, trainer: Any) -> str | None:
        """Of the event files; ``None`` where this process writes none."""
        place = self._choose_log(trainer)
        if "logdir" in place:
            return str(place["logdir"])
        return find_directory(place.get("writer"))

    def _hear(self, change: Change) -> None:
        self._alarms.hear(change)
        self._alerts.hear(change)

    def _keep_scalars(self, scalars: dict[str, float], global_step: int) -> None:
        self._scalars.append((global_step, scalars))

    def _log_scalars(self, trainer: Any) -> None:
        rows, self._scalars = self._scalars, []
        loggers = [logger for logger in trainer.loggers if not _is_tensorboard(logger)]
        try:
            for global_step, scalars in rows:
                for logger in loggers:
                    logger.log_metrics(scalars, step=global_step)
        except Exception:  # no reason to stop a training
            _log.exception("A logger took no scalars of step %d; the training goes on.", rows[0][0])


def _find_trials(callback: object, trainer: object) -> Callable[[], bool]:
    """Whether the trainer tries something: its finders put all callbacks aside meanwhile.

    Neither is kept alive, since the watch holds the answer.
    """
    find_callback, find_trainer = weakref.ref(callback), weakref.ref(trainer)

    def is_trial() -> bool:
        own, their = find_callback(), find_trainer()
        return own is not None and their is not None and own not in their.callbacks  # type: ignore[attr-defined]

    return is_trial


def _list_experiments(find_trainer: Callable[[], Any]) -> list[Any]:
    trainer = find_trainer()
    return [] if trainer is None else [logger.experiment for logger in trainer.loggers]


def _is_tensorboard(logger: object) -> bool:
    return any(base.__name__ == "TensorBoardLogger" for base in type(logger).__mro__)
