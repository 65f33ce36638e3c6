"""The ablation skips only what cannot change, and its page is what it has measured."""

from __future__ import annotations

import ast
import dataclasses
from typing import Any

import numpy as np
import pytest

from benchmarks.ablation import RESULTS, Baseline, Judged, is_within_reach, move, read_weighed
from benchmarks.rule_size import Size, measure_source
from benchmarks.threshold_tables import PACKAGE, PAGE, count_numbers, write_page
from benchmarks.traced_thresholds import trace_thresholds
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.engine import Doctor
from gradwatch.verdict.findings import Verdict
from tests.display.trainings import make_training
from tests.records_builder import build_chain, change_param, make_record

NUMBERS = [row.name for row in dataclasses.fields(Thresholds) if not isinstance(row.default, tuple)]
RECORDS = make_training(0.22, 6)


UNDECIDING = {
    "over how many records a level is taken": (
        "FIRST_RECORDS", "EARLY_LOSSES", "LATEST_RECORDS", "WINDOW", "LATEST_RATES",
        "RECENT_SHARES",
    ),
    "what float32 is": (
        "ROUNDED_NORM", "ROUNDING", "LEAST_NORM", "SURE_STEP", "REST_RATE", "_DIGITS",
    ),
    "the least that a variance or a stretch can be made of": ("LEAST_SCATTERED", "LEAST_RECORDS"),
    "when to sample": (
        "LOSS_JUMP", "GRAD_JUMP", "JUMP_RECORDS", "JUMP_SAMPLES", "ALLOWANCE", "CLOSE_SAMPLES",
        "SILENT", "UNKNOWN_RECORDS",
    ),
    "how much is held or looked through": (
        "KEPT", "_KEPT", "WALKED", "BATCH", "BATCH_LAYERS", "FEW", "MOST_FALLS",
    ),
    "what is said": ("SHOWN_GAPS", "SHOWN", "LITTLE"),
    "a mark, or an example": ("MOVED", "_RATE"),
}  # fmt: skip
"""Numbers of evidence and verdict that decide no verdict, cause or place, by what they are."""


def judge(thresholds: Thresholds) -> Verdict:
    doctor = Doctor(thresholds)
    for record in RECORDS:
        doctor.observe(record)
    return doctor.judge()


def describe(verdict: Verdict) -> tuple[object, ...]:
    """Without the thresholds that a finding shows."""
    findings = [dataclasses.replace(finding, threshold=0.0) for finding in verdict.findings]
    return verdict.status, findings, verdict.coverage


@pytest.fixture(scope="module")
def baseline() -> Baseline:
    thresholds, trace = trace_thresholds(Thresholds())
    verdict = judge(thresholds)
    assert describe(verdict) == describe(judge(Thresholds()))
    return Baseline("run", Judged({}, verdict.status), trace.sides, frozenset())


@pytest.mark.parametrize("name", NUMBERS)
def test_a_run_out_of_reach_has_the_same_verdict(baseline: Baseline, name: str) -> None:
    usual = describe(judge(Thresholds()))
    for factor in (0.01, 1 / 3, 3.0, 100.0):
        if not is_within_reach(baseline, name, factor):
            assert describe(judge(move(Thresholds(), name, factor))) == usual


def test_some_runs_are_out_of_reach_and_some_are_not(baseline: Baseline) -> None:
    reached = [is_within_reach(baseline, name, 3.0) for name in NUMBERS]
    assert 5 <= sum(reached) <= len(reached) - 5


@pytest.mark.parametrize(
    ("use", "sides"),
    [
        (lambda t: np.array([0.1, 0.5, 0.9, np.nan]) < t.saturated_fraction, (0.5, 0.9)),
        (lambda t: np.float64(0.5) < t.saturated_fraction, (0.5, np.inf)),
        (lambda t: t.saturated_fraction <= 0.9, (-np.inf, 0.9)),
        (lambda t: 2.0 * t.saturated_fraction > 1.0, (0.5, np.inf)),
        (lambda t: 1.0 + t.saturated_fraction, (0.8, 0.8)),
        (lambda t: np.array([1.0]) * t.saturated_fraction, (0.8, 0.8)),
        (lambda t: float(t.saturated_fraction), (0.8, 0.8)),
    ],
)
def test_what_a_threshold_is_compared_with(use: Any, sides: tuple[float, float]) -> None:
    thresholds, trace = trace_thresholds(Thresholds())
    assert np.array_equal(use(thresholds), use(Thresholds()))
    assert trace.sides == {"saturated_fraction": sides}


def test_whole_numbers_are_followed_too() -> None:
    thresholds, trace = trace_thresholds(Thresholds())
    assert list(range(9))[-thresholds.persistence :] == [6, 7, 8]
    assert not thresholds.patience < 12
    assert trace.sides == {"persistence": (3.0, 3.0), "patience": (12.0, np.inf)}


def list_constants() -> set[str]:
    """Numbers to which a module of evidence or verdict gives a name."""
    files = [path for room in ("evidence", "verdict") for path in (PACKAGE / room).rglob("*.py")]
    nodes = [node for path in files for node in ast.parse(path.read_text(encoding="utf-8")).body]
    assigned = [node for node in nodes if count_numbers(ast.unparse(node))]
    return {ast.unparse(node.targets[0]) for node in assigned if isinstance(node, ast.Assign)}


def test_numbers_that_decide_are_thresholds() -> None:
    assert list_constants() == {name for names in UNDECIDING.values() for name in names}


def test_the_page_shows_what_was_measured() -> None:
    page, weighed = PAGE.read_text(encoding="utf-8"), read_weighed(RESULTS)
    changes = [side.first for pair in weighed.sides.values() for side in pair if side.first]
    changes += [change for rows in weighed.guards.values() for change in rows]
    assert changes
    assert [change for change in changes if f"`{change.run}`" not in page] == []
    assert [name for name in (*weighed.sides, *weighed.unread) if f"`{name}`" not in page] == []
    assert [name for name in weighed.guards if f"| {name} |" not in page] == []


def test_a_loss_that_stays_asks_whether_a_fall_is_seen() -> None:
    """So that the ablation moves these two as well."""
    thresholds, trace = trace_thresholds(Thresholds())
    doctor, layer_set = Doctor(thresholds), build_chain(2)
    for step in range(36):
        record = make_record(layer_set, step, loss=[2.3, 2.9, 1.8][step % 3])
        doctor.observe(change_param(record, "past_loss_change", {"fc0.weight": -0.01}))
    doctor.judge()
    assert {"seen_fall", "paired_fall"} <= set(trace.sides)


def test_the_page_can_be_made_again() -> None:
    assert write_page(read_weighed(RESULTS)).count("\n## ") == 3


def test_the_size_of_code() -> None:
    source = '"""Doc."""\n\n# why\nx = [a for a in b if a] if c and d else 0\n'
    assert measure_source(source) == Size(1, 4)
