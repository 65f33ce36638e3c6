"""The doctor: rules over records, batches, silencing, thresholds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gradwatch.errors import InvalidInput
from gradwatch.records import LayerSet, StepRecord
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.engine import BATCH, Doctor, diagnose
from gradwatch.verdict.findings import Verdict
from gradwatch.verdict.rules import DEFAULT_RULES
from tests.records_builder import (
    build_chain,
    change,
    change_param,
    make_record,
    repeat,
)


def make_vanishing(times: int = 10, every: int = 1, start: int = 0) -> list[StepRecord]:
    record = make_record(build_chain(10), gains={"Sigmoid": 0.22})
    return repeat(record, times, every, start)


def make_healthy(times: int = 10, every: int = 1, start: int = 0) -> list[StepRecord]:
    return repeat(make_record(build_chain(10), gains={"Sigmoid": 0.9}), times, every, start)


def observe(records: list[StepRecord], thresholds: Thresholds | None = None) -> Verdict:
    doctor = Doctor(thresholds)
    for record in records:
        doctor.observe(record)
    return doctor.judge()


def test_a_healthy_run_has_no_findings_and_no_notes():
    verdict = diagnose(make_healthy(), run="fine")
    assert verdict.healthy
    assert verdict.notes == ()
    assert (verdict.run, verdict.first_step, verdict.last_step, verdict.records) == (
        "fine",
        0,
        9,
        10,
    )


def test_what_a_verdict_has_let_go_of_can_be_asked_again():
    records = make_vanishing()
    latest, doctor = diagnose(records).history.latest, Doctor()
    doctor.observe_all(records)
    assert latest.record is records[-1]
    np.testing.assert_array_equal(latest.grad, doctor.history.latest.grad)
    np.testing.assert_array_equal(latest.sensitivity, doctor.history.latest.sensitivity)


def test_a_vanishing_run_has_one_finding():
    verdict = diagnose(make_vanishing())
    (finding,) = verdict.findings
    assert (finding.code, finding.kind, finding.cause) == (
        "GW101",
        "vanishing",
        "activation_derivative",
    )
    assert finding.layers[0] == "fc0"
    assert (finding.first_step, finding.last_step) == (0, 9)
    flagged = {layer.fqn for layer in verdict.layers if layer.flagged}
    assert flagged == set(finding.layers)


def test_no_records_are_no_verdict_on_anything():
    verdict = diagnose([])
    assert (verdict.records, verdict.findings, verdict.layers) == (0, (), ())


def test_batches_see_what_single_records_show():
    records = [
        *make_healthy(BATCH // 2),
        *make_vanishing(BATCH, start=BATCH // 2),
        *make_healthy(3 * BATCH, start=2 * BATCH),
    ]
    together, singly = diagnose(records), observe(records)
    assert together.to_dict() == singly.to_dict()
    assert repr(together.layers) == repr(singly.layers)  # NaN is not equal to itself
    assert [note.message.split(":")[0] for note in together.notes] == ["Recovered after step 383"]


def test_changes_say_when_a_finding_begins_and_ends():
    doctor = Doctor()
    seen = []
    for record in [*make_healthy(5), *make_vanishing(5, start=5), *make_healthy(60, start=10)]:
        seen += [(record.global_step, change.began) for change in doctor.observe(record)]
    began, ended = seen
    assert began == (7, True)
    assert ended[1] is False
    verdict = doctor.judge()
    assert verdict.healthy
    (note,) = verdict.notes
    assert note.message.startswith("Recovered after step 9: ")
    assert note.severity == "note"


def test_what_is_a_finding_again_is_not_said_to_have_recovered():
    begins, ends = make_vanishing(5, start=5), make_healthy(60, start=10)
    once = [*make_healthy(5), *begins, *ends]
    assert [note.code for note in diagnose(once).notes] == ["GW101"]
    again = diagnose([*once, *make_vanishing(20, start=70)])
    assert [finding.code for finding in again.findings] == ["GW101"]
    assert again.notes == ()


def test_a_late_illness_has_its_first_step():
    verdict = diagnose([*make_healthy(40), *make_vanishing(20, start=40)])
    assert verdict.findings[0].first_step == 40


def test_ignored_kinds_are_not_looked_for():
    assert diagnose(make_vanishing(), Thresholds(ignore_kinds=("vanishing",))).healthy


def test_ignored_layers_are_left_out():
    (finding,) = diagnose(make_vanishing(), Thresholds(ignore_layers=("fc[01]",))).findings
    assert {"fc0", "fc1"}.isdisjoint(finding.layers)
    assert "fc2" in finding.layers
    assert diagnose(make_vanishing(), Thresholds(ignore_layers=("fc*",))).healthy


def test_what_is_left_of_a_finding_has_its_own_numbers():
    (whole,) = diagnose(make_vanishing()).findings
    (rest,) = diagnose(make_vanishing(), Thresholds(ignore_layers=("fc0",))).findings
    assert rest.observed > 2 * whole.observed
    assert rest.message != whole.message
    assert "fc0" not in rest.message


def test_an_unknown_threshold_is_refused_by_name():
    with pytest.raises(InvalidInput, match=r"profile.*'profil'"):
        Thresholds().replace(profil=0.1)
    assert Thresholds().replace(profile=0.1).profile == 0.1


def test_thresholds_decide():
    mild = repeat(make_record(build_chain(6), gains={"Sigmoid": 0.22}, learning_rate=1e-3), 10)
    assert not diagnose(mild, Thresholds(profile=0.5)).healthy
    assert not diagnose(mild, Thresholds(profile=1e-12, sensitivity=1e-12)).findings


def test_where_nan_is_nothing_else_is_looked_for():
    record = make_record(build_chain(10), gains={"Sigmoid": 0.22})
    broken = change(record, "output_l2_norm", np.inf)
    broken = change_param(broken, "update_l2_norm", np.inf)
    verdict = diagnose(repeat(broken, 5))
    assert [finding.kind for finding in verdict.findings] == ["nonfinite"]
    assert verdict.findings[0].layers == ("fc0",)


def test_an_explosion_that_ends_in_nan_is_believed_at_once():
    layer_set = build_chain(10, "ReLU")
    growing = make_record(layer_set, gains={"Linear": 10.0}, update_ratio=1e-3)
    broken = replace(change_param(growing, "update_l2_norm", np.inf), global_step=1)
    verdict = diagnose([growing, broken])
    assert {finding.kind for finding in verdict.findings} == {"nonfinite", "exploding"}
    causes = {finding.kind: finding.cause for finding in verdict.findings}
    assert causes["nonfinite"] == causes["exploding"] is not None


def test_the_worst_comes_first():
    chain = make_record(build_chain(10), gains={"Sigmoid": 0.22})
    saturated = change(chain, "saturated_fraction", {f"act{i}": 0.95 for i in range(9)})
    verdict = diagnose(repeat(saturated, 10))
    assert [finding.severity for finding in verdict.findings] == ["critical", "warning"]
    assert [finding.kind for finding in verdict.findings] == ["vanishing", "saturated"]


def test_a_layer_set_may_change_in_the_middle_of_a_run():
    """A module that some steps do not call: the region stays unhealthy, and is one finding."""
    full = make_vanishing()
    layers = full[0].layer_set.layers
    part = LayerSet(layers[:-1], full[0].layer_set.params)
    records = [
        replace(record, layer_set=part, layer_values=record.layer_values[:, :-1])
        if record.global_step % 2
        else record
        for record in full
    ]
    (finding,) = diagnose(records).findings
    assert (finding.kind, finding.first_step, finding.last_step) == ("vanishing", 0, 9)


def test_the_layer_table_leaves_out_the_zeros_of_rectifiers():
    mixed = build_chain(3, "ReLU")
    record = change(make_record(mixed), "saturated_fraction", {"act0": 0.5, "act1": 0.5})
    assert np.isnan([layer.saturated_fraction for layer in diagnose([record]).layers]).all()
    saturated = change(make_record(build_chain(3, "Tanh")), "saturated_fraction", {"act0": 0.5})
    assert [layer.saturated_fraction for layer in diagnose([saturated]).layers][1] == 0.5


def test_the_verdict_as_json_holds_any_layer_name():
    layer_set = build_chain(10)
    renamed = tuple(replace(layer, fqn=f"\ud800{layer.fqn}") for layer in layer_set.layers)
    params = tuple(
        replace(param, fqn=f"\ud800{param.fqn}", module=f"\ud800{param.module}")
        for param in layer_set.params
    )
    odd = LayerSet(renamed, params)
    assert LayerSet.from_json(odd.to_json()) == odd
    verdict = diagnose(repeat(make_record(odd, gains={"Sigmoid": 0.22}), 10))
    assert not verdict.healthy
    assert b"\\ud800fc0" in verdict.to_json().encode()


def test_rules_can_be_chosen():
    without = [rule for rule in DEFAULT_RULES if rule.kind != "vanishing"]
    doctor = Doctor(rules=without)
    for record in make_vanishing():
        doctor.observe(record)
    assert not doctor.judge().findings
