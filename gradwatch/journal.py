"""A running training's log: what is written to TensorBoard at each sampled step."""

from __future__ import annotations

import math
import os

import numpy as np

from gradwatch.evidence.gradient_flow import Reading
from gradwatch.records import Array
from gradwatch.run_marks import RunDescription
from gradwatch.schema.statistics import find_statistic
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.findings import Verdict

VERDICT_TAG = "gradwatch/verdict"

LOG10_FLOOR = -45.0
"""Stands in charts for the logarithm of 0, such as of an update that changes nothing: below what
float32 can hold (1.4e-45), so that it is no other figure's. Left out, the line would break off."""


class Journal:
    """Writes records, run-level scalars and verdicts of one run.

    Args:
        logdir, writer: as in ``EventLog``.
        per_layer_scalars: also write one scalar per layer and statistic.
        thresholds: by which the run is judged, for the start mark.
        description: of what is trained, for the start mark; without, the log has no marks.

    Attributes:
        logdir: as given; ``""`` where a writer of somebody else's is used.
    """

    def __init__(
        self,
        logdir: str | os.PathLike[str] | None,
        writer: object = None,
        per_layer_scalars: bool = False,
        thresholds: Thresholds | None = None,
        description: RunDescription | None = None,
    ) -> None:
        from gradwatch.log.writer import EventLog  # loads TensorBoard's messages

        self.logdir = "" if logdir is None else os.fspath(logdir)
        self._log = EventLog(logdir, writer=writer)
        self._per_layer = per_layer_scalars
        if description is not None:
            self._log.begin(thresholds or Thresholds(), description)

    def take_notices(self) -> list[str]:
        """What the log has to say to the user, each once."""
        notices, self._log.notices = self._log.notices, []
        return notices

    def write(self, reading: Reading) -> None:
        """One sampled step.

        Args:
            reading: of the record.
        """
        step = reading.record.global_step
        self._log.write_record(reading.record)
        self._log.write_scalars(step, list_scalars(reading, self._per_layer))

    def write_verdict(self, verdict: Verdict) -> None:
        """The verdict as text, when a finding begins or ends.

        Args:
            verdict: up to its last step.
        """
        from gradwatch.display.markdown import write_report

        self._log.write_text(verdict.last_step, VERDICT_TAG, write_report(verdict))
        self._log.flush()

    def close(
        self, verdict: Verdict, exception: str = "", last_step: int = 0, remark: str = ""
    ) -> None:
        """The last word, the end mark, and the end of our own file.

        Args:
            verdict: on the whole run; its ``failure`` tells an error of gradwatch's own.
            exception: type of the error that ended the training, or ``""``.
            last_step: global step at the end.
            remark: how a watch ended that nobody detached, or ``""``.
        """
        how = "failure" if verdict.failure else "exception" if exception else "detached"
        try:
            if verdict.records:
                self.write_verdict(verdict)
            detail = verdict.failure or exception or remark
            self._log.end(how, detail, last_step, verdict.unstepped)
        finally:
            self._log.close()


def list_scalars(reading: Reading, per_layer: bool = False) -> dict[str, float]:
    """The scalars of a sampled step by tag: the run's, and each layer's if that is asked for.

    Args:
        reading: of the newest record.
        per_layer: with ``list_layer_scalars``.
    """
    return {**summarise_run(reading), **(list_layer_scalars(reading) if per_layer else {})}


def summarise_run(reading: Reading) -> dict[str, float]:
    """The handful of scalars of a run; ratios as log10, since charts show small ones as 0.

    Args:
        reading: of the newest record.

    Returns:
        By tag, as TensorBoard shows them; without those that are not known.
    """
    record = reading.record
    values = {
        "gradwatch/log10_attenuation": _log10(_least(reading.relative_gradient)),
        "gradwatch/log10_worst_relative_gradient": _log10(
            _least(reading.param_gradient[reading.judged])
        ),
        "gradwatch/largest_saturated_fraction": _largest(record.layer("saturated_fraction")),
        "gradwatch/log10_smallest_update_ratio": _log10(
            _least(reading.update_ratio[reading.judged])
        ),
        "gradwatch/every_n_steps": record.step("interval"),
    }
    return {tag: value for tag, value in values.items() if math.isfinite(value)}


def list_layer_scalars(reading: Reading) -> dict[str, float]:
    """One scalar per layer and statistic.

    Args:
        reading: of the newest record.

    Returns:
        By tag ``gradwatch_layers/<statistic>/<layer>``; without those that were not measured.
    """
    found: dict[str, float] = {}
    record = reading.record
    for statistic, values in zip(record.layer_set.rows.all_layer, record.layer_values, strict=True):
        row = find_statistic("layer", statistic)
        is_logarithmic = row is not None and row.is_logarithmic
        name = f"log10_{statistic}" if is_logarithmic else statistic
        for layer, value in zip(reading.topology.layers, values, strict=True):
            number = _log10(value) if is_logarithmic else float(value)
            if math.isfinite(number):
                found[f"gradwatch_layers/{name}/{layer.key or 'model'}"] = number
    return found


def _least(values: Array) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.min()) if finite.size else math.nan


def _largest(values: Array) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.max()) if finite.size else math.nan


def _log10(value: float) -> float:
    """NaN where there is no value."""
    if value == 0:
        return LOG10_FLOOR
    return max(math.log10(value), LOG10_FLOOR) if value > 0 else math.nan
