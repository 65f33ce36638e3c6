"""What every rule owes, whatever the records: purity, honesty in names, and never an error."""

from __future__ import annotations

import copy
import re
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from gradwatch.evidence.history import History
from gradwatch.records import LayerSet, StepRecord
from gradwatch.schema.kinds import KINDS
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.engine import Doctor, diagnose
from gradwatch.verdict.rule import Rule, Sign
from gradwatch.verdict.rules import DEFAULT_RULES
from tests.records_builder import build_chain, change, fill_history, make_record, repeat
from tests.verdict.synthetic import runs

SECTIONS = (
    "What it does",
    "Why it matters",
    "How it is measured",
    "Example",
    "Known limits",
    "Configure or silence",
)

every_rule = pytest.mark.parametrize("rule", DEFAULT_RULES, ids=lambda rule: rule.code)
any_run = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], derandomize=True)


def examine(rule: Rule, history: History) -> list[Sign]:
    """As the doctor asks: numpy's floating-point warnings are off, Python's are errors."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("error")
        return [sign.explained() for sign in rule.examine(history, Thresholds())]


def list_names(layer_set: LayerSet) -> set[str]:
    layers = {
        name for layer in layer_set.layers for name in (layer.fqn, layer.fqn.removesuffix(":time"))
    }
    owners = {layer.fqn.rpartition(":")[0] for layer in layer_set.layers}
    params = {name for param in layer_set.params for name in (param.fqn, param.module)}
    return layers | owners | params


def describe_state(history: History) -> str:
    """Everything that a rule could have changed."""
    state = {name: copy.deepcopy(value) for name, value in vars(history).items()
             if name not in ("window", "_kept", "_aligned")}  # fmt: skip
    arrays = [
        (id(reading), reading.record.layer_values.tobytes(), reading.record.param_values.tobytes(),
         reading.grad.tobytes(), reading.reference.tobytes(), reading.sensitivity.tobytes())
        for reading in history.window
    ]  # fmt: skip
    return repr((state, arrays, [id(record) for record in history.records]))


def test_codes_are_unique():
    codes = [rule.code for rule in DEFAULT_RULES]
    assert len(set(codes)) == len(codes)


def test_every_kind_has_a_rule():
    assert {rule.kind for rule in DEFAULT_RULES} == set(KINDS)


@every_rule
def test_names_and_documentation_are_whole(rule):
    assert re.fullmatch(r"GW\d{3}", rule.code)
    assert rule.code in KINDS[rule.kind].codes
    assert rule.title
    assert re.findall(r"^## (.+)$", rule.doc, re.M) == list(SECTIONS)
    bodies = re.split(r"^## .+$", rule.doc, flags=re.M)[1:]
    assert all(body.strip() for body in bodies)
    assert f'ignore_kinds=("{rule.kind}",)' in rule.doc


@every_rule
def test_thresholds_that_the_documentation_names_exist(rule):
    fields = set(vars(Thresholds()))
    configured = re.findall(r"(\w+)=\.\.\.", rule.doc)
    assert set(configured) <= fields


@any_run
@given(records=runs())
def test_rules_are_pure_and_honest_whatever_the_numbers(records: list[StepRecord]):
    history = History()
    names: set[str] = set()  # a break keeps the place that it began at
    for record in records:
        history.append(record)
        names |= list_names(record.layer_set)
        before = describe_state(history)
        for rule in DEFAULT_RULES:
            signs = examine(rule, history)
            assert repr(examine(rule, history)) == repr(signs)
            for sign in signs:
                check_sign(rule, sign, names)
        assert describe_state(history) == before


def check_sign(rule: Rule, sign: Sign, names: set[str]) -> None:
    assert sign.layers
    assert len(set(sign.layers)) == len(sign.layers)
    assert set(sign.layers) <= names
    kind = KINDS[rule.kind]
    assert sign.cause in kind.causes or (sign.cause is None and kind.may_lack_cause)
    assert sign.severity in ("note", "warning", "critical")
    assert isinstance(sign.observed, float)
    assert not np.isnan(sign.observed)
    assert sign.message.endswith(".")
    assert not re.search(r"\bnan\b", sign.message)


@any_run
@given(records=runs())
def test_a_verdict_is_found_whatever_the_numbers(records: list[StepRecord]):
    doctor = Doctor()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for record in records:
            doctor.observe(record)
        verdict, together = doctor.judge(), diagnose(records)
    assert repr(verdict) == repr(together)
    assert LayerSet.from_json(records[-1].layer_set.to_json()) == records[-1].layer_set
    assert verdict.to_json().encode()


@every_rule
def test_an_empty_layer_set_shows_nothing(rule):
    history = fill_history(repeat(make_record(LayerSet()), 12, every=10))
    assert examine(rule, history) == []


@every_rule
def test_what_was_not_measured_shows_nothing(rule):
    record = make_record(build_chain(4))
    for statistic in ("grad_output_l2_norm", "grad_input_l2_norm", "saturated_fraction"):
        record = change(record, statistic, np.nan)
    assert examine(rule, fill_history(repeat(record, 3))) == []


@every_rule
def test_a_healthy_chain_shows_nothing(rule):
    for activation, gain in (("Tanh", 0.9), ("ReLU", 0.7), ("Sigmoid", 0.24)):
        record = make_record(build_chain(4, activation), gains={activation: gain})
        assert examine(rule, fill_history(repeat(record, 12, every=10))) == []
