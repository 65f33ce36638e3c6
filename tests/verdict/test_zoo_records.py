"""Real records of some labelled trainings: judged while watched, and once more afterwards."""

from __future__ import annotations

import warnings

import pytest

import gradwatch
from gradwatch.verdict.engine import Doctor, diagnose
from tests.zoo import CASES

NAMES = (
    "sigmoid_two_layers",
    "tanh_ten_layers",
    "sigmoid_mlp_8_default_sgd",
    "dead_bias_minus_12",
    "detach_behind_encoder",
    "relu_std_1",
    "tanh_gain_30",
    "nan_in_batch_30",
    "autocast_mlp_loss_1e6",
)


@pytest.fixture(scope="module", params=NAMES)
def report(request) -> gradwatch.Report:
    (case,) = (case for case in CASES if case.name == request.param)
    training = case.build()
    with gradwatch.watch(training.model, training.optimizers, every_n_steps=1) as watch:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            training.run()
        watch.detach()
        return watch.report()


@pytest.mark.zoo
def test_a_finished_run_is_judged_as_while_it_was_watched(report):
    assert report.history is not None
    records = report.history.records
    assert len(records) == report.records  # a short run is kept whole
    afterwards = diagnose(records, run=report.run)
    shown = {**report.to_dict(), "failure": ""}
    assert afterwards.to_dict() == {name: shown[name] for name in afterwards.to_dict()}
    assert repr(afterwards.layers) == repr(report.layers)


@pytest.mark.zoo
def test_changes_begin_what_the_verdict_finds(report):
    doctor = Doctor()
    changes = [change for record in report.history.records for change in doctor.observe(record)]
    began = {(change.finding.kind, change.finding.first_step) for change in changes if change.began}
    assert {(finding.kind, finding.first_step) for finding in doctor.judge().findings} <= began
    assert {finding.kind for finding in report.findings} <= {kind for kind, _ in began}
