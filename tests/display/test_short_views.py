"""What a prompt and a notebook show of a finding, a trial and a watch: short, and escaped."""

from __future__ import annotations

import dataclasses
import math

import gradwatch
from gradwatch.display.trial_table import RankedTrials
from gradwatch.verdict.trials import Measurement, Trial
from tests.display.samples import make_finding
from tests.networks import make_mlp


def make_trial(**changes: object) -> Trial:
    before = Measurement(attenuation=1e-9, early_update=1e-9, loss_start=1.4, loss_end=1.4)
    after = Measurement(attenuation=0.1, early_update=1e-3, loss_start=1.4, loss_end=0.9)
    given = {"name": "ReLU + He", "change": "activation", "description": "every <act>"}
    return Trial(**{**given, "steps": 20, "before": before, "after": after, **changes})  # type: ignore[arg-type]


def test_a_finding_is_a_line_at_a_prompt_and_a_paragraph_in_a_notebook() -> None:
    finding = make_finding(("fc<0>", "fc1"))
    title = f"{finding.code} {finding.kind}, {finding.severity}"
    assert repr(finding) == f"<Finding {title}: fc<0> and 1 more>"
    shown = make_finding(message="fc<0> is dead")._repr_html_()
    assert "fc&lt;0&gt; is dead" in shown
    assert "Remedy: " in shown


def test_a_finding_of_the_whole_model_has_no_layer() -> None:
    finding = dataclasses.replace(make_finding(), layers=())
    assert repr(finding).endswith(": the model>")


def test_a_trial_says_how_it_went() -> None:
    trial = make_trial(outcome="healthy")
    assert repr(trial) == "<Trial ReLU + He: healthy>"
    assert "every &lt;act&gt;" in trial._repr_html_()
    assert "1e+06 times" in trial._repr_html_()
    unfit = make_trial(after=None, reason="no activation to replace")
    assert repr(unfit) == "<Trial ReLU + He: no activation to replace>"
    assert math.isnan(unfit.speedup)
    assert "nan" not in unfit._repr_html_()


def test_trials_are_shown_as_their_table() -> None:
    trials = RankedTrials([make_trial(outcome="healthy")])
    assert "ReLU + He" in str(trials)
    assert trials._repr_html_().startswith("<pre>")
    assert repr(trials) == "[<Trial ReLU + He: healthy>]"


def test_a_watch_says_where_it_is() -> None:
    network = make_mlp()
    with gradwatch.watch(network.model, network.optimizer) as watch:
        network.train(2)
        assert repr(watch) == "<Watch: watching, step 2>"
        assert watch._repr_html_().startswith("<div")
    assert repr(watch) == "<Watch: ended, step 2>"
