"""The zoo is what it says: labelled by experiments. That it is deterministic shows in its runs.

See ``test_detection``.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from gradwatch.schema.activations import find_activation
from tests.zoo import CASES, Case
from tests.zoo.verify import LABELS, examine

UNHEALTHY = tuple(case for case in CASES if not case.healthy)
KINDS = {
    "vanishing",
    "exploding",
    "saturated",
    "dead",
    "underflow",
    "nonfinite",
    "disconnected",
    "mishandled",
    "unmoved",
}
CAUSES = {
    "weight_decay",
    "activation_derivative",
    "weight_scale",
    "saturation",
    "dead_units",
    "precision",
    "disconnected",
    "through_time",
    "depth",
    "learning_rate",
    "not_optimized",
    "not_stepped",
    "lost_update",
    "not_cleared",
    "cleared",
    "not_unscaled",
}


pytestmark = pytest.mark.usefixtures("one_thread")


def _name(case: Case) -> str:
    return case.name


def test_names_are_unique() -> None:
    counts = Counter(case.name for case in CASES)
    assert [name for name, count in counts.items() if count > 1] == []


def test_all_kinds_and_causes_are_there() -> None:
    assert len(UNHEALTHY) >= 65
    assert {kind for case in UNHEALTHY for kind in case.kinds} == KINDS
    assert {case.cause for case in UNHEALTHY} - {None} == CAUSES


@pytest.mark.parametrize("case", UNHEALTHY, ids=_name)
def test_label_is_complete(case: Case) -> None:
    model = case.build().model
    fqns = {fqn for fqn, _ in [*model.named_modules(), *model.named_parameters()]} - {""}
    assert case.why
    assert case.fixed is not None or case.frozen is not None
    for pattern in case.region:  # a module, a parameter, or a function
        is_there = any(Case("", case.build, region=(pattern,)).holds(fqn) for fqn in fqns)
        assert is_there or find_activation(pattern) is not None, pattern
    assert any(case.holds(fqn) for fqn, _ in model.named_parameters())


def test_experiments_support_every_label() -> None:
    stored = json.loads(Path(LABELS).read_text())
    assert set(stored) == {case.name for case in UNHEALTHY}
    assert {n: s["verdict"] for n, s in stored.items() if s["verdict"] != "supported"} == {}


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_experiment_can_be_repeated(kind: str) -> None:
    case = next(case for case in UNHEALTHY if case.kinds[0] == kind)
    assert examine(case).verdict == "supported"


def test_experiment_refutes_a_wrong_label() -> None:
    """A run that learns with all its layers must not pass for one that gets no gradient."""
    unhealthy = next(case for case in UNHEALTHY if case.name == "sigmoid_mlp_8_default_sgd")
    assert unhealthy.fixed is not None
    wrong = Case("wrong", unhealthy.fixed, ("vanishing",), region=("fc[0-5]",))
    assert examine(wrong).verdict == "freezing hurts"
