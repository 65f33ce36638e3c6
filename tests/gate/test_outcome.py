"""What fails the gate: kinds, severity, ignores, steps, and a baseline."""

from __future__ import annotations

import json
import math

import pytest

from gradwatch.configuration import Configuration, Ignore
from gradwatch.errors import InvalidInput, NothingToJudge
from gradwatch.gate.baseline import Baseline, read_baseline
from gradwatch.gate.outcome import Gate
from gradwatch.verdict.coverage import Coverage, ParamState
from gradwatch.verdict.findings import Finding, Verdict
from tests.gate.runs import make_finding, make_judgement, wrap


def rule(gate: Gate, *findings: Finding) -> list[str]:
    outcome = gate.decide(make_judgement(*findings))
    return [ruling.ruling for ruling in outcome.runs[0].rulings]


def test_every_finding_fails_by_default() -> None:
    outcome = Gate().decide(make_judgement(make_finding(), make_finding("dead")))
    assert outcome.status == 1
    assert [ruling.ruling for ruling in outcome.runs[0].rulings] == ["fails", "fails"]


@pytest.mark.parametrize(
    ("gate", "ruling"),
    [
        (Gate(Configuration(fail_on=("dead",))), "kind_not_asked_for"),
        (Gate(Configuration(fail_on=("vanishing",))), "fails"),
        (Gate(Configuration(ignore=(Ignore("vanishing", "fc*", "x"),))), "ignored"),
        (Gate(Configuration(ignore=(Ignore("vanishing", "fc1", "x"),))), "fails"),
        (Gate(Configuration(ignore=(Ignore("dead", "fc*", "x"),))), "fails"),
        (Gate(since=30), "before_since"),
        (Gate(since=29), "fails"),
    ],
)
def test_what_fails(gate: Gate, ruling: str) -> None:
    assert rule(gate, make_finding()) == [ruling]
    assert gate.decide(make_judgement(make_finding())).status == (ruling == "fails")


def test_severity() -> None:
    gate = Gate(Configuration(min_severity="critical"))
    assert rule(gate, make_finding(severity="warning")) == ["below_min_severity"]
    assert rule(gate, make_finding()) == ["fails"]


class TestStatus:
    @pytest.mark.parametrize(("state", "status"), [("learns", 0), ("not_judged", 2)])
    def test_a_waived_finding_does_not_waive_what_was_not_judged(
        self, state: str, status: int
    ) -> None:
        states = (ParamState("fc1.weight", "unhealthy"), ParamState("head.weight", state))
        verdict = Verdict((make_finding(),), records=9, coverage=Coverage(states, 9))
        gate = Gate(Configuration(ignore=(Ignore("vanishing", "fc*", "x"),)))
        assert gate.decide(wrap(verdict)).status == status

    def test_what_was_not_read_never_passes(self) -> None:
        assert Gate().decide(make_judgement(unreadable={"b": "torn"})).status == 2
        assert Gate().decide(wrap()).status == 2
        assert Gate().decide(make_judgement(without_records=["b"])).status == 0

    def test_a_run_without_records_or_with_a_failure_of_ours_is_not_judged(self) -> None:
        assert Gate().decide(wrap(Verdict(records=0))).status == 2
        assert Gate().decide(wrap(Verdict(records=3, failure="x"))).status == 2

    def test_findings_outrank_it(self) -> None:
        judgement = make_judgement(make_finding(), unreadable={"b": "torn"})
        assert Gate().decide(judgement).status == 1


class TestBaseline:
    def remember(self, *findings: Finding, run: str = "exp") -> Gate:
        return Gate(baseline=Baseline.of_verdicts(make_judgement(*findings, run=run).verdicts))

    def test_the_same_is_known(self) -> None:
        assert rule(self.remember(make_finding()), make_finding()) == ["known"]
        assert rule(self.remember(make_finding()), make_finding(layers=("fc2",))) == ["known"]

    def test_another_kind_at_the_same_layer_fails(self) -> None:
        gate = self.remember(make_finding())
        assert rule(gate, make_finding(), make_finding("dead")) == ["known", "fails"]

    def test_a_further_layer_fails(self) -> None:
        grown = make_finding(layers=("fc1", "fc2", "fc3"))
        assert rule(self.remember(make_finding()), grown) == ["fails"]

    @pytest.mark.parametrize(
        ("old", "new", "ruling"),
        [
            ({"observed": 1e-6}, {"observed": 2e-7}, "known"),
            ({"observed": 1e-6}, {"observed": 0.9e-7}, "fails"),
            ({"observed": 1e-6}, {"observed": 1e-4}, "known"),
            ({"observed": 1e-6}, {"observed": 0.0}, "fails"),
            ({"observed": 0.0}, {"observed": 0.0}, "known"),
            ({"observed": 1e4, "threshold": 1e3}, {"observed": 5e4}, "known"),
            ({"observed": 1e4, "threshold": 1e3}, {"observed": 2e5}, "fails"),
            ({"observed": 0.65, "threshold": 0.6}, {"observed": 0.95}, "known"),
            ({"observed": 0.65, "threshold": 0.6}, {"observed": 0.97}, "fails"),
            ({"observed": math.inf, "threshold": 1e3}, {"observed": math.inf}, "known"),
            ({"observed": 1e4, "threshold": 1e3}, {"observed": math.inf}, "fails"),
            ({"severity": "warning"}, {"severity": "critical"}, "fails"),
            ({"severity": "critical"}, {"severity": "warning"}, "known"),
        ],
    )
    def test_worse(self, old, new, ruling) -> None:
        assert rule(self.remember(make_finding(**old)), make_finding(**new)) == [ruling]

    def test_what_has_gone_is_said(self) -> None:
        gate = self.remember(make_finding(), make_finding("dead", ("act1",)))
        outcome = gate.decide(make_judgement(make_finding()))
        assert outcome.status == 0
        assert [(known.kind, known.layers) for known in outcome.runs[0].gone] == [
            ("dead", ("act1",))
        ]

    def test_a_run_of_another_name_is_new_unless_it_is_the_only_one(self) -> None:
        gate = self.remember(make_finding(), run="monday")
        assert rule(gate, make_finding()) == ["known"]
        (verdict,) = make_judgement(make_finding(), run="tuesday").verdicts
        two = wrap(verdict, Verdict(run="wednesday", records=3))
        assert gate.decide(two).status == 1

    def test_a_file_holds_it_whole(self, tmp_path) -> None:
        findings = make_finding(observed=math.nan), make_finding("dead", ("a\ud800",))
        baseline = Baseline.of_verdicts(make_judgement(*findings).verdicts)
        path = tmp_path / "known.json"
        path.write_text(baseline.to_json(), encoding="utf-8")
        assert read_baseline(path) == baseline

    def test_what_is_no_baseline(self, tmp_path) -> None:
        path = tmp_path / "known.json"
        with pytest.raises(NothingToJudge, match="gradwatch baseline LOGDIR"):
            read_baseline(path)
        for text in ("{}", "no json", '{"schema_version": 9}', "[]"):
            path.write_text(text, encoding="utf-8")
            with pytest.raises(InvalidInput, match="schema version 1"):
                read_baseline(path)

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("observed", math.nan),
            ("observed", "1e-6"),
            ("threshold", None),
            ("severity", "grave"),
            ("layers", "fc1"),
            ("layers", [1]),
            ("kind", 7),
            ("new", 0),
        ],
    )
    def test_a_finding_that_was_edited_wrongly_hides_nothing(self, tmp_path, field, value) -> None:
        content = json.loads(
            Baseline.of_verdicts(make_judgement(make_finding()).verdicts).to_json()
        )
        content["findings"][0][field] = value
        path = tmp_path / "known.json"
        path.write_text(json.dumps(content), encoding="utf-8")
        with pytest.raises(InvalidInput, match="schema version 1"):
            read_baseline(path)

    def test_a_byte_order_mark_is_no_content(self, tmp_path) -> None:
        baseline = Baseline.of_verdicts(make_judgement(make_finding()).verdicts)
        path = tmp_path / "known.json"
        path.write_text(baseline.to_json(), encoding="utf-8-sig")
        assert read_baseline(path) == baseline
