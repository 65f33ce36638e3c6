"""Every kind and cause: words, codes, and a rule of a kind that nobody has heard of."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gradwatch.display.html import write_fragment
from gradwatch.display.markdown import write_report
from gradwatch.display.page_data import write_brief
from gradwatch.schema.kinds import CAUSES, KINDS, Cause, Kind, describe_cause, find_kind, rank_kind
from gradwatch.verdict.engine import Doctor
from gradwatch.verdict.rule import Rule, Sign
from gradwatch.verdict.rules import DEFAULT_RULES
from tests.records_builder import build_chain, make_record, repeat

every_kind = pytest.mark.parametrize("row", KINDS.values(), ids=lambda row: row.name)


@every_kind
def test_a_kind_is_whole(row: Kind) -> None:
    assert row.title[0].isupper()
    assert set(row.codes) == {rule.code for rule in DEFAULT_RULES if rule.kind == row.name}
    assert row.codes
    assert row.causes
    assert set(row.causes) <= set(CAUSES)
    assert not (row.compares and row.units_do)
    assert find_kind(row.name) is row
    assert list(KINDS)[rank_kind(row.name)] == row.name


@pytest.mark.parametrize("row", CAUSES.values(), ids=lambda row: row.name)
def test_a_cause_is_whole(row: Cause) -> None:
    assert describe_cause(row.name) == row.words != row.name
    assert any(row.name in kind.causes for kind in KINDS.values())


def test_what_is_not_known_is_shown_by_its_name() -> None:
    assert find_kind("cold_start").title == "Cold start"
    assert rank_kind("cold_start") == len(KINDS)
    assert describe_cause("weather") == "weather"
    assert describe_cause(None) == ""


@pytest.fixture
def registry() -> Iterator[None]:
    """Kinds that a test adds are gone behind it."""
    before = dict(KINDS)
    yield
    KINDS.clear()
    KINDS.update(before)


@pytest.mark.usefixtures("registry")
def test_a_rule_of_a_new_kind_needs_no_row() -> None:
    sign = Sign(("fc0",), "weather", 1.0, 0.5, "fc0 is cold")
    cold = Rule("GW999", "cold", "Layers that are cold", lambda history, limits: [sign], "")
    doctor = Doctor(rules=(cold, *DEFAULT_RULES))
    assert KINDS["cold"].title == "Layers that are cold"
    for record in repeat(make_record(build_chain(10), gains={"Sigmoid": 0.22}), 10):
        doctor.observe(record)
    verdict = doctor.judge()
    assert [finding.kind for finding in verdict.findings] == ["vanishing", "cold"]
    assert "GW999" in write_report(verdict)
    assert "Layers that are cold" in write_fragment(verdict)
    assert [finding.code for finding in verdict.of_kind("cold")] == ["GW999"]
    assert write_brief(verdict)["findings"][1]["title"] == "Layers that are cold"
    assert write_brief(verdict)["findings"][1]["cause"] == "weather"
