"""Live, ``check``, the tab and the HTML report give one verdict, under every public setting."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("tensorboard")

from gradwatch.cli import main
from gradwatch.display.html import write_page
from gradwatch.display.run_facts import RunFacts
from gradwatch.journal import Journal
from gradwatch.judgement import judge_logdir
from gradwatch.live_judgement import LiveJudgement
from gradwatch.run_judgement import RunJudgement
from gradwatch.run_marks import RunDescription
from gradwatch.tensorboard_plugin.runs import RunReader, WatchedRun
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.findings import Verdict
from tests.display.trainings import make_training

RECORDS = make_training(0.22, 8)

SILENCING = {
    "allow_unjudged": ("*",),
    "ignore_kinds": ("vanishing",),
    "ignore_layers": ("*",),
}


def list_settings() -> dict[str, Thresholds]:
    """By name, thresholds that differ in one field: two values of each number."""
    settings = {"default": Thresholds()}
    for row in dataclasses.fields(Thresholds):
        if row.name in SILENCING:
            settings[row.name] = Thresholds().replace(**{row.name: SILENCING[row.name]})
            continue
        for title, factor in (("up", 1000), ("down", 0.001)):
            value = row.default * factor
            moved = max(round(value), 1) if isinstance(row.default, int) else value
            settings[f"{row.name}-{title}"] = Thresholds().replace(**{row.name: moved})
    return settings


SETTINGS = list_settings()


@dataclass
class Judged:
    """What each path makes of one training per setting, by the setting's name."""

    live: dict[str, Verdict]
    check: dict[str, RunJudgement]
    tab: dict[str, WatchedRun]
    page: str


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Judged:
    from tensorboard.backend.event_processing import data_provider
    from tensorboard.backend.event_processing import plugin_event_multiplexer as multiplexers

    logdir = tmp_path_factory.mktemp("settings")
    live = {name: train(logdir / name, name, chosen) for name, chosen in SETTINGS.items()}
    check = {outcome.run: outcome for outcome in judge_logdir(str(logdir)).outcomes}
    multiplexer = multiplexers.EventMultiplexer(tensor_size_guidance={"gradwatch": 0})
    multiplexer.AddRunsFromDirectory(str(logdir)).Reload()
    reader = RunReader(data_provider.MultiplexerDataProvider(multiplexer, str(logdir)))
    tab = {name: WatchedRun(name) for name in SETTINGS}
    for name, tags in reader.list_runs().items():
        reader.read(tab[name], tags)
    page = logdir / "page.html"
    assert main(["report", str(logdir), "-o", str(page)]) == 0
    return Judged(live, check, tab, page.read_text(encoding="utf-8"))


def train(logdir: Path, name: str, thresholds: Thresholds) -> Verdict:
    """A training that is watched: records that come one by one, with a log."""
    journal = Journal(logdir, thresholds=thresholds, description=RunDescription())
    judgement = LiveJudgement(name, thresholds, journal=journal)
    for record in RECORDS:
        judgement.take(record)
    judgement.close(judgement.report, "", len(RECORDS))
    return judgement.report()


def describe(verdict: Verdict) -> tuple[object, ...]:
    """All that a verdict says; ``observed`` alone is rounded to 32 bits by a log."""
    said = [
        dataclasses.replace(finding, observed=0.0)
        for finding in (*verdict.findings, *verdict.notes)
    ]
    return verdict.status, verdict.coverage, verdict.trains, said, verdict.unseen


def strip_figures(page: str) -> str:
    """Without the packed numbers, which a log rounds to 32 bits."""
    return re.sub(r"[A-Za-z0-9+/=]{200,}", "", page)


@pytest.mark.parametrize("name", SETTINGS)
def test_every_path_gives_the_verdict_of_the_training(judged: Judged, name: str) -> None:
    live, check, tab = judged.live[name], judged.check[name], judged.tab[name]
    assert check.header is not None
    assert check.header.thresholds == tab.thresholds == SETTINGS[name]
    assert "missing" not in " ".join(tab.snapshot.brief["unseen"])
    assert check.verdict is not None
    assert describe(check.verdict) == describe(live)
    assert tab.doctor is not None
    assert describe(tab.doctor.judge(name)) == describe(live)
    shown = [(row["code"], row["first_step"]) for row in tab.brief["findings"]]
    assert shown == [(finding.code, finding.first_step) for finding in live.findings]


def test_the_page_is_that_of_the_trainings(judged: Judged) -> None:
    facts = {name: RunFacts(run.header, run.end) for name, run in judged.check.items()}
    trained = write_page([judged.live[name] for name in judged.check], facts=facts)
    is_same = strip_figures(judged.page) == strip_figures(trained)
    assert is_same  # pages are too long for pytest to compare


def test_the_settings_tell_the_paths_apart(judged: Judged) -> None:
    usual = describe(judged.live["default"])
    decide = {name for name in SETTINGS if describe(judged.live[name]) != usual}
    assert len(decide) >= 10
    assert {"ignore_kinds", "ignore_layers"} <= decide
