"""The trackers that a Trainer of transformers reports to, found while it calls its callbacks."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from transformers.integrations import integration_utils
from transformers.trainer_callback import CallbackHandler

MAX_OUTER_FRAMES = 8
"""The handler that calls a callback is looked for among so many callers."""

_TENSORBOARD = "TensorBoardCallback"  # a run of our own beside the trainer's has these figures

_RUNNING = {"wandb": "run", "comet_ml": "get_running_experiment"}
"""By module of a tracker, what answers its run that is under way, a value or a function."""


class Reporters:
    """The callbacks behind ``report_to``, which get figures in the way that the Trainer has.

    ``Trainer.log`` would add to ``state.log_history``, which is the training's and goes into its
    checkpoints.

    Args:
        callbacks: of the Trainer, of which those that report to a tracker are kept.
    """

    def __init__(self, callbacks: Iterable[Any] = ()) -> None:
        kinds = tuple(integration_utils.INTEGRATION_TO_CALLBACK.values())
        self._callbacks: list[Any] = [
            callback
            for callback in callbacks
            if isinstance(callback, kinds)
            and not any(kind.__name__ == _TENSORBOARD for kind in type(callback).__mro__)
        ]

    @classmethod
    def find(cls) -> Reporters:
        """Those of the Trainer that is calling a callback right now."""
        frame = sys._getframe(1)
        for _ in range(MAX_OUTER_FRAMES):
            if frame is None:
                break
            owner = frame.f_locals.get("self")
            if isinstance(owner, CallbackHandler):
                return cls(owner.callbacks)
            frame = frame.f_back  # type: ignore[assignment]
        return cls()

    def report(
        self, figures: Mapping[str, float], step: int, args: Any, state: Any, **given: Any
    ) -> None:
        """Hand on the figures of one step.

        Args:
            figures: by tag.
            step: at which they were measured; the Trainer may be further by now.
            args, state: the Trainer's.
            given: what it hands to callbacks besides.
        """
        seen = copy.copy(state)
        seen.global_step = step
        for callback in self._callbacks:
            callback.on_log(args, seen, given["control"], logs=dict(figures), model=given["model"])

    def list_experiments(self) -> list[Any]:
        """Runs of the trackers that are under way, where they can be asked for."""
        found = []
        for module, name in _RUNNING.items():
            if self._callbacks and module in sys.modules:
                run = getattr(sys.modules[module], name, None)
                found.append(run() if callable(run) else run)
        return found
