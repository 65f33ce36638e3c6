"""[tool.gradwatch] of pyproject.toml: where it is found, what it may say, who reads it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import gradwatch
from gradwatch.configuration import Configuration, Ignore, find_configuration
from gradwatch.errors import InvalidInput
from gradwatch.fail_on import Alarms
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.episodes import Change
from gradwatch.verdict.findings import Finding, Verdict
from tests.networks import make_mlp, make_unhealthy_mlp

FINDING = Finding(
    code="GW101",
    kind="vanishing",
    severity="critical",
    cause="depth",
    layers=("encoder.0", "encoder.1"),
    first_step=0,
    last_step=9,
    observed=1e-9,
    threshold=1e-3,
    message="Little arrives.",
    remedy="Use another activation.",
)


def write(folder: Path, text: str) -> Path:
    path = folder / "pyproject.toml"
    path.write_text(text, encoding="utf-8")
    return path


class TestSearch:
    def test_upwards_to_the_nearest_that_has_the_table(self, tmp_path: Path) -> None:
        outer = write(tmp_path, "[tool.gradwatch]\nsteps = 3\n")
        inner = tmp_path / "a" / "b"
        inner.mkdir(parents=True)
        write(tmp_path / "a", "[tool.ruff]\nline-length = 80\n")
        found = find_configuration(inner)
        assert (found.path, found.steps) == (outer, 3)
        write(inner, "[tool.gradwatch]\nsteps = 4\n")
        assert find_configuration(inner).steps == 4

    def test_without_one_everything_is_as_ever(self, tmp_path: Path) -> None:
        assert find_configuration(tmp_path) == Configuration()
        assert find_configuration(tmp_path).choose_thresholds() == Thresholds()


def test_everything_that_may_be_said(tmp_path: Path) -> None:
    text = """
[tool.gradwatch]
fail-on = ["vanishing", "dead"]
min-severity = "critical"
steps = 30
seeds = 3
budget-seconds = 60

[tool.gradwatch.thresholds]
saturated_fraction = 1
persistence = 4
ignore_layers = ["head.*"]

[[tool.gradwatch.ignore]]
kind = "dead"
layers = "encoder.*"
reason = "pruned on purpose"
"""
    path = write(tmp_path, text)
    assert find_configuration(tmp_path) == Configuration(
        path=path,
        fail_on=("vanishing", "dead"),
        min_severity="critical",
        steps=30,
        seeds=3,
        budget_seconds=60.0,
        thresholds={"saturated_fraction": 1.0, "persistence": 4, "ignore_layers": ("head.*",)},
        ignore=(Ignore("dead", "encoder.*", "pruned on purpose"),),
    )


WRONG = [
    ("fail_on = ['dead']", "Did you mean 'fail-on'?"),
    ("fail-on = ['deaf']", "Did you mean 'dead'?"),
    ("fail-on = 3", "list of kinds, got 3"),
    ("min-severity = 'note'", "warning or critical, got 'note'"),
    ("steps = 0", "whole number from 1, got 0"),
    ("seeds = true", "whole number from 1, got True"),
    ("budget-seconds = -1", "seconds above 0, got -1"),
    ("thresholds = {profil = 1.0}", "Did you mean 'profile'?"),
    ("thresholds = {persistence = 1.5}", "whole number for persistence, got 1.5"),
    ("thresholds = {profile = nan}", "finite number for profile, got nan"),
    ("thresholds = {ignore_kinds = 'dead'}", "list of names for ignore_kinds"),
    ("thresholds = 3", "table thresholds, got 3"),
    ("ignore = {kind = 'dead'}", "tables"),
    ("ignore = [{kind = 'dead', layers = '*'}]", "reason = '...'"),
    ("ignore = [{kind = 'dead', layers = '*', reason = ' '}]", "reason = '...'"),
    ("ignore = [{kind = 'dead', layer = '*', reason = 'x'}]", "Did you mean 'layers'?"),
    ("ignore = [{kind = '*', layers = '*', reason = 'x'}]", "kinds"),
    ("steps = ", "Expected TOML"),
]


def test_a_tool_that_is_no_table_is_no_setting(tmp_path: Path) -> None:
    write(tmp_path, "tool = 3\n")
    assert find_configuration(tmp_path) == Configuration()


@pytest.mark.parametrize(("line", "words"), WRONG, ids=[line for line, _ in WRONG])
def test_what_means_nothing_is_an_error_that_names_the_file(line, words, tmp_path) -> None:
    path = write(tmp_path, f"[tool.gradwatch]\n{line}\n")
    with pytest.raises(InvalidInput) as raised:
        find_configuration(tmp_path)
    assert words in str(raised.value)
    assert str(path) in str(raised.value)


class TestIgnore:
    def ignore(self, *rows: tuple[str, str]) -> Configuration:
        return Configuration(ignore=tuple(Ignore(*row, f"because {row[1]}") for row in rows))

    def test_every_layer_must_match(self) -> None:
        assert self.ignore(("vanishing", "encoder.*")).find_reason(FINDING)
        assert not self.ignore(("vanishing", "encoder.0")).find_reason(FINDING)
        two = self.ignore(("vanishing", "encoder.0"), ("vanishing", "encoder.1"))
        assert two.find_reason(FINDING) == "because encoder.0; because encoder.1"

    def test_another_kind_at_the_same_layer_stays(self) -> None:
        assert not self.ignore(("dead", "encoder.*")).find_reason(FINDING)

    def test_a_silenced_finding_is_a_note_with_the_reason(self) -> None:
        other = replace(FINDING, kind="dead", severity="warning")
        verdict = Verdict(findings=(FINDING, other), records=3)
        silent = self.ignore(("vanishing", "*")).silence(verdict)
        assert silent.findings == (other,)
        assert silent.notes[0].message == "Ignored (because *): Little arrives."
        milder = Configuration(min_severity="critical").silence(verdict)
        assert milder.findings == (FINDING,)
        assert milder.notes[0].severity == "note"


class TestReaders:
    @pytest.fixture(autouse=True)
    def _stand_in(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)

    def test_check_reads_steps_and_thresholds_and_arguments_win(self, tmp_path: Path) -> None:
        write(tmp_path, "[tool.gradwatch]\nsteps = 5\nthresholds = {ignore_kinds = ['vanishing']}")
        unhealthy = make_unhealthy_mlp()
        report = gradwatch.check(unhealthy.model, unhealthy.batches, make_loss(), steps=None)
        assert (report.records, report.healthy) == (5, True)
        report = gradwatch.check(
            unhealthy.model, unhealthy.batches, make_loss(), steps=8, thresholds=Thresholds()
        )
        assert (report.records, report.healthy) == (8, False)

    def test_check_reads_ignores(self, tmp_path: Path) -> None:
        row = "[[tool.gradwatch.ignore]]\nkind = 'vanishing'\nlayers = '*'\nreason = 'legacy'\n"
        write(tmp_path, row)
        unhealthy = make_unhealthy_mlp()
        report = gradwatch.check(unhealthy.model, unhealthy.batches, make_loss())
        assert report.healthy
        assert report.notes[0].message.startswith("Ignored (legacy): ")

    def test_callbacks_stop_for_nothing_that_is_ignored(self, tmp_path: Path) -> None:
        alarms = Alarms(("vanishing",), 10)
        alarms.hear(Change(FINDING, True))
        assert alarms.findings == [FINDING]
        row = "[[tool.gradwatch.ignore]]\nkind = 'vanishing'\nlayers = '*'\nreason = 'legacy'\n"
        write(tmp_path, row)
        alarms = Alarms(("vanishing",), 10)
        alarms.hear(Change(FINDING, True))
        assert alarms.findings == []

    def test_a_broken_file_is_said_before_any_training(self, tmp_path: Path) -> None:
        write(tmp_path, "[tool.gradwatch]\nstep = 5\n")
        well = make_mlp()
        with pytest.raises(InvalidInput, match="Did you mean 'steps'"):
            gradwatch.check(well.model, well.batches, make_loss())


def make_loss():
    from torch.nn.functional import cross_entropy

    return cross_entropy
