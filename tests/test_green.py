"""A pass is a proof: what was not seen to learn is never green, live or from the log.

Each family of programs that once came out green stands under ``tests/green`` with honest twins that
stay so. The page "What a pass means" lists them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import gradwatch
from gradwatch.cli import main
from gradwatch.errors import NothingToJudge, UnhealthyGradients
from tests.green.missing_evidence import FAILED, LOST, TOO_LITTLE
from tests.green.no_fall import NO_FALL
from tests.green.program import Family, Program, fit_badly, fit_well
from tests.green.ranks import RANKS
from tests.green.something_else import ELSEWHERE
from tests.green.standing_still import STILL
from tests.green.steps_that_stop import STOPPED
from tests.green.trainings import ORDINARY
from tests.green.unseen_gradients import BY_HAND, CHECKPOINTED

FAMILIES = (
    BY_HAND,
    CHECKPOINTED,
    STILL,
    NO_FALL,
    STOPPED,
    ELSEWHERE,
    TOO_LITTLE,
    FAILED,
    LOST,
    RANKS,
)
PAGE = Path(__file__).parents[1] / "docs" / "what-a-pass-means.md"


def list_programs(kind: str, families: tuple[Family, ...]) -> list[object]:
    return [
        pytest.param(program, id=program.__name__, marks=getattr(program, "marks", ()))
        for family in families
        for program in getattr(family, kind)
    ]


def has_log(logdir: Path) -> bool:
    return any(logdir.rglob("*tfevents*"))


@pytest.mark.parametrize("program", list_programs("unproven", FAMILIES))
def test_no_pass_without_proof(program: Program, tmp_path: Path) -> None:
    result = program(tmp_path)
    report = result.report() if isinstance(result, gradwatch.Watch) else result
    if report is not None:
        assert report.status in ("unhealthy", "not_judged")
        assert not report.healthy
        with pytest.raises((NothingToJudge, UnhealthyGradients)):
            report.raise_if()
    assert has_log(tmp_path) or isinstance(result, gradwatch.Report)
    if has_log(tmp_path):
        assert main(["check", str(tmp_path)]) in (1, 2)


@pytest.mark.parametrize("program", list_programs("honest", (*FAMILIES, ORDINARY)))
def test_an_honest_training_passes(program: Program, tmp_path: Path) -> None:
    result = program(tmp_path)
    report = result.report() if isinstance(result, gradwatch.Watch) else result
    if report is not None:
        assert report.status == "healthy", report
        report.raise_if()
    assert has_log(tmp_path) or isinstance(result, gradwatch.Report)
    if has_log(tmp_path):
        assert main(["check", str(tmp_path)]) == 0


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.title)
def test_each_family_has_two_forms_and_a_twin(family: Family) -> None:
    assert len(family.unproven) >= 2
    assert family.honest


def test_the_page_lists_the_families() -> None:
    text = (
        PAGE.read_text(encoding="utf-8").partition("## What never passes")[2].partition("\n## ")[0]
    )
    listed = re.findall(r"^- \*\*(.+?)\*\*", text, re.MULTILINE)
    assert listed == [family.title for family in FAMILIES]


@pytest.mark.parametrize("program", [p for p in TOO_LITTLE.unproven if "restart" in p.__name__])
def test_a_restart_hides_no_finding_of_the_steps_before(program: Program, tmp_path: Path) -> None:
    program(tmp_path)
    assert main(["check", str(tmp_path)]) == 1


def test_a_corrupt_run_hides_no_finding_of_another(tmp_path: Path) -> None:
    program = next(run for run in LOST.unproven if "beside_an_unhealthy" in run.__name__)
    program(tmp_path)
    assert main(["check", str(tmp_path)]) == 1


def test_a_run_directory_that_cannot_be_entered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Root may enter every directory, so that the system call refuses here."""
    fit_well(tmp_path / "a")
    fit_badly(tmp_path / "b")
    assert main(["check", str(tmp_path)]) == 1
    scan = os.scandir

    def refuse(path: str | os.PathLike[str]) -> Iterator[os.DirEntry[str]]:
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert main(["check", str(tmp_path)]) == 2
    assert main(["check", str(tmp_path / "a")]) == 0
    assert "Permission denied" in capsys.readouterr().err


def test_junit_says_what_was_not_seen_to_learn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit_well(tmp_path, steps=2)
    assert main(["check", str(tmp_path), "--format", "junit"]) == 2
    text = capsys.readouterr().out
    assert 'message="Not judged yet: 2 recorded steps are too few to tell"' in text
    assert '<property name="coverage" value="0 of 2 weights seen to learn' in text
