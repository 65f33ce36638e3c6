"""The commands of the gate on event files: status, selection, baseline, settings, files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gradwatch.cli import main
from gradwatch.cli.arguments import join_kinds
from gradwatch.log.writer import EventLog
from gradwatch.run_marks import RunDescription
from gradwatch.thresholds import Thresholds
from tests.gate.runs import HEALTHY, UNHEALTHY, damage, write_run


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Commands read pyproject.toml from the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check(*arguments: str) -> int:
    return main(["check", "runs", *arguments])


class TestFailOn:
    @pytest.mark.parametrize(
        ("given", "joined"),
        [
            ("--fail-on dead runs", "--fail-on=dead runs"),
            ("--fail-on dead vanishing runs", "--fail-on=dead,vanishing runs"),
            ("--fail-on dead,vanishing runs", "--fail-on=dead,vanishing runs"),
            ("--fail-on dead --fail-on vanishing", "--fail-on=dead --fail-on=vanishing"),
            ("--fail-on sad runs", "--fail-on=sad runs"),
            ("--fail-on dead -- vanishing", "--fail-on=dead -- vanishing"),
            ("--fail-on", "--fail-on"),
        ],
    )
    def test_kinds_end_where_no_kind_follows(self, given: str, joined: str) -> None:
        assert join_kinds(given.split()) == joined.split()

    @pytest.mark.parametrize(
        ("arguments", "status"),
        [
            (["--fail-on", "vanishing", "runs"], 1),
            (["--fail-on", "dead", "exploding", "runs"], 0),
            (["--fail-on", "dead,vanishing", "runs"], 1),
            (["--fail-on", "dead", "--fail-on", "vanishing", "--format", "json", "runs"], 1),
        ],
    )
    def test_a_directory_may_follow(self, here: Path, arguments, status) -> None:
        write_run(here / "runs", UNHEALTHY)
        assert main(["check", *arguments]) == status


class TestSelection:
    @pytest.fixture(autouse=True)
    def _runs(self, here: Path) -> None:
        write_run(here / "runs" / "bad", UNHEALTHY)
        write_run(here / "runs" / "good", HEALTHY)

    def test_by_name_and_last(self, capsys) -> None:
        assert check() == 1
        assert check("--run", "good") == 0
        assert check("--run", "b*") == 1
        assert check("--run", "good", "--run", "bad") == 1
        assert check("--last") == 0
        assert check("--last", "--run", "bad") == 1
        capsys.readouterr()
        assert check("--run", "nothing") == 2
        assert "got only bad, good" in capsys.readouterr().err

    def test_each_pattern_has_a_run(self, capsys) -> None:
        assert check("--run", "good", "--run", "goood") == 2
        assert "a run that matches 'goood', got only bad, good" in capsys.readouterr().err

    def test_the_last_run_is_not_passed_over_where_it_was_killed_before_its_first_record(
        self, here: Path, capsys
    ) -> None:
        log = EventLog(here / "runs" / "newest")
        log.begin(Thresholds(), RunDescription())
        log.close()
        assert check("--last") == 2
        assert "'newest' is not judged" in capsys.readouterr().err

    def test_the_last_run_is_not_passed_over_where_nothing_of_it_can_be_read(
        self, here: Path, capsys
    ) -> None:
        (here / "runs" / "newest").mkdir()
        (here / "runs" / "newest" / "events.out.tfevents.1.gradwatch.0").write_bytes(b"\xff" * 99)
        assert check("--last") == 2
        assert "'newest' is not judged" in capsys.readouterr().err

    def test_until_is_as_if_the_training_had_ended_there(self, capsys) -> None:
        assert check("--run", "bad", "--until", "1", "--format", "json") == 2  # too few records
        run = json.loads(capsys.readouterr().out)["runs"][0]
        assert (run["last_step"], run["status"]) == (1, "not_judged")
        assert check("--run", "bad", "--until", "20") == 1

    def test_since_counts_findings_that_were_still_there(self, capsys) -> None:
        assert check("--since", "29") == 1
        capsys.readouterr()
        assert check("--since", "30") == 2  # no run has come so far: no pass
        assert "bad: 0 to 29" in capsys.readouterr().err

    def test_a_window_without_records_is_no_pass(self) -> None:
        assert check("--since", "10", "--until", "5") == 2

    @pytest.mark.parametrize("option", ["--since", "--until"])
    def test_a_step_is_a_whole_number(self, option: str) -> None:
        with pytest.raises(SystemExit):
            check(option, "-1")


class TestBaseline:
    def test_what_is_known_passes_and_what_has_gone_is_said(self, here: Path, capsys) -> None:
        write_run(here / "runs", UNHEALTHY)
        assert main(["baseline", "runs"]) == 0
        assert "gradwatch-baseline.json: 1 known findings of 1 run" in capsys.readouterr().out
        known = ("--baseline", "gradwatch-baseline.json")
        assert check(*known) == 0
        assert "vanishing (GW101) passes: in the baseline" in capsys.readouterr().out
        write_run(here / "later", HEALTHY)
        assert main(["check", "later", *known]) == 0
        assert "Gone since the baseline: vanishing at fc1" in capsys.readouterr().out
        write_run(here / "worse", UNHEALTHY / 4)
        assert main(["check", "worse", *known]) == 1
        assert "vanishing (GW101) fails: " in capsys.readouterr().out

    def test_a_missing_file_is_no_pass(self, here: Path) -> None:
        write_run(here / "runs", HEALTHY)
        assert check("--baseline", "nowhere.json") == 2

    def test_nothing_is_written_of_a_damaged_run(self, here: Path) -> None:
        write_run(here / "runs" / "a", UNHEALTHY)
        damage(here / "runs" / "a")
        assert main(["baseline", "runs"]) == 2
        assert not (here / "gradwatch-baseline.json").exists()


class TestConfiguration:
    @pytest.fixture(autouse=True)
    def _run(self, here: Path) -> None:
        write_run(here / "runs", UNHEALTHY)

    def write(self, here: Path, text: str) -> None:
        (here / "pyproject.toml").write_text(f"[tool.gradwatch]\n{text}\n", encoding="utf-8")

    def test_kinds_and_the_command_line_over_them(self, here: Path) -> None:
        self.write(here, "fail-on = ['dead']")
        assert check() == 0
        assert check("--fail-on", "vanishing") == 1

    def test_thresholds_and_the_command_line_over_them(self, here: Path, capsys) -> None:
        self.write(here, "thresholds = {persistence = 1000, persistence_steps = 1000000}")
        assert check() == 2  # nothing is found, and nothing is proven
        capsys.readouterr()
        assert check("--threshold", "persistence=3") == 1
        assert "persistence: 3 from the command line, 1000 in" in capsys.readouterr().err

    def test_ignores(self, here: Path, capsys) -> None:
        self.write(here, "ignore = [{kind = 'vanishing', layers = '*', reason = 'legacy'}]")
        assert check() == 0
        assert "vanishing (GW101) passes: legacy" in capsys.readouterr().out

    def test_a_severity(self) -> None:
        assert check("--min-severity", "critical") == 1

    def test_an_unknown_key_is_2(self, here: Path, capsys) -> None:
        self.write(here, "failon = ['dead']")
        assert check() == 2
        assert "Did you mean 'fail-on'?" in capsys.readouterr().err


class TestOutput:
    @pytest.mark.parametrize("layout", ["text", "json", "markdown", "github", "sarif", "junit"])
    def test_a_file_holds_what_the_terminal_would(self, here: Path, capsys, layout) -> None:
        write_run(here / "runs", UNHEALTHY)
        assert check("--format", layout) == 1
        shown = capsys.readouterr().out
        assert check("--format", layout, "--output", "out.txt") == 1
        assert capsys.readouterr().out == ""
        assert (here / "out.txt").read_text(encoding="utf-8").split() == shown.split()

    @pytest.mark.parametrize("layout", ["text", "json", "markdown", "github", "sarif", "junit"])
    def test_no_file_of_the_job_before_stands_for_one_without_a_log(
        self, here: Path, layout
    ) -> None:
        (here / "out.txt").write_text("as it was", encoding="utf-8")
        assert check("--format", layout, "--output", "out.txt") == 2
        assert "Expected a log directory" in (here / "out.txt").read_text(encoding="utf-8")

    def test_a_file_that_cannot_be_written_is_2(self, here: Path) -> None:
        write_run(here / "runs", HEALTHY)
        assert check("--output", "nowhere/out.txt") == 2


class TestCompare:
    def test_status_and_words(self, here: Path, capsys) -> None:
        write_run(here / "a", HEALTHY)
        write_run(here / "b", UNHEALTHY)
        assert main(["compare", "a", "a"]) == 0
        assert "✓ No layer of 23 learns less" in capsys.readouterr().out
        assert main(["compare", "a", "b"]) == 1
        assert "fc1: gradient fell from 1 to" in capsys.readouterr().out
        assert main(["compare", "a", "nowhere"]) == 2
        assert main(["compare", "a", "b", "--fail-on-worse", "1e30x"]) == 0

    def test_json(self, here: Path, capsys) -> None:
        write_run(here / "a", HEALTHY)
        write_run(here / "b", UNHEALTHY)
        main(["compare", "a", "b", "--format", "json", "-o", "out.json"])
        content = json.loads((here / "out.json").read_text(encoding="utf-8"))
        assert content["status"] == 1
        assert content["regressions"][0]["measure"] in ("grad_ratio", "update_ratio", "loss_change")

    @pytest.mark.parametrize("factor", ["1", "0x", "nan", "ten"])
    def test_a_factor_is_above_one(self, factor: str) -> None:
        with pytest.raises(SystemExit):
            main(["compare", "a", "b", "--fail-on-worse", factor])
