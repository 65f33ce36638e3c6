"""Trials of remedies beside a run: written, read back, and shown wherever the run is."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn

import gradwatch
from gradwatch import cli
from gradwatch.display.html import write_page
from gradwatch.display.page_data import write_brief
from gradwatch.display.trial_page_data import brief_trials
from gradwatch.errors import UnreadableLog
from gradwatch.log.trial_summaries import pack_trials, unpack_trials
from gradwatch.log.writer import EventLog, read_runs
from gradwatch.verdict.trials import Measurement, Trial
from tests.display.samples import make_finding, make_record, make_verdict

BEFORE = Measurement(1e-9, 2e-12, 2.3, 2.3, (make_finding(("net.0", "net.2")),))


def make_trial(name: str = "GELU + He", change: str = "activation", **changes) -> Trial:
    after = Measurement(0.4, 1.4e-3, 2.3, 1.6)
    trial = Trial(name, change, "replace `act*` by GELU", 40, BEFORE, after, outcome="healthy")
    return dataclasses.replace(trial, **changes)


TRIALS = (
    make_trial(),
    make_trial("as it is", "none", after=BEFORE, outcome="no better"),
    make_trial(
        "LayerNorm", "normalisation", after=None, reason="no room", outcome="not applicable"
    ),
)


def write_run(logdir: Path, *batches: tuple[Trial, ...]) -> None:
    log = EventLog(logdir)
    log.write_record(make_record(0))
    log.close()
    for trials in batches:
        later = EventLog(logdir)
        later.write_trials(0, trials)
        later.close()


def test_trials_come_back_whole_beside_the_records(tmp_path: Path) -> None:
    known = tuple(
        dataclasses.replace(trial, outcome=trial.outcome or "not applicable") for trial in TRIALS
    )
    write_run(tmp_path, known)
    (run,) = read_runs(tmp_path)
    assert run.trials == known
    assert len(run) == 1
    assert run.texts == ()


def test_the_latest_attempt_counts(tmp_path: Path) -> None:
    write_run(tmp_path, (make_trial("first"),), (make_trial("second"),))
    assert [trial.name for trial in read_runs(tmp_path)[0].trials] == ["second"]


def test_a_log_without_trials_has_none(tmp_path: Path) -> None:
    write_run(tmp_path)
    assert read_runs(tmp_path)[0].trials == ()


def test_numbers_that_are_not_finite_survive() -> None:
    after = Measurement(math.nan, math.inf, 2.0, math.nan)
    (back,) = unpack_trials(pack_trials([make_trial(after=after)]))
    assert back.after is not None
    assert math.isnan(back.after.attenuation)
    assert math.isinf(back.after.early_update)


@pytest.mark.parametrize("packed", [b"", b"junk", pack_trials([make_trial(change="none")])[:-9]])
def test_damaged_trials_are_refused(packed: bytes) -> None:
    with pytest.raises(UnreadableLog, match="trials"):
        unpack_trials(packed)


def test_an_unknown_outcome_is_refused() -> None:
    with pytest.raises(UnreadableLog, match="outcome"):
        unpack_trials(pack_trials([make_trial(outcome="<b>great</b>")]))


def test_the_page_says_it_in_words() -> None:
    said = brief_trials(TRIALS)
    assert said is not None
    assert said["advice"] == (
        "GELU + He: early layers move 700 million times as much, "
        "and the loss goes from 2.3 to 1.6 in 40 steps."
    )
    best, untouched = said["rows"]
    assert (best["moves"], best["loss"], best["findings"]) == (
        "×700 million",
        ["2.3", "1.6"],
        "none",
    )
    assert untouched["moves"] == ""
    assert untouched["findings"] == "vanishing"
    assert said["unfit"] == ["LayerNorm: no room"]


def test_no_remedy_that_helped_is_said_too() -> None:
    said = brief_trials([make_trial("as it is", "none", after=BEFORE, outcome="no better")])
    assert said is not None
    assert said["advice"] == "None of the remedies that were tried helped within 40 steps."
    assert brief_trials(()) is None


def test_brief_and_page_carry_them() -> None:
    verdict = make_verdict()
    assert json.dumps(write_brief(verdict, TRIALS), allow_nan=False).count("GELU + He") == 2
    assert "GELU + He" in write_page([verdict], trials={verdict.run: TRIALS})
    assert "GELU + He" not in write_page([verdict])


def test_try_remedies_keeps_them_with_the_run(tmp_path: Path, capsys) -> None:
    torch.manual_seed(0)
    model = nn.Sequential()
    for _ in range(6):
        model.append(nn.Linear(8, 8))
        model.append(nn.Sigmoid())
    batches = [(torch.randn(16, 8), torch.randn(16, 8)) for _ in range(4)]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with gradwatch.watch(model, optimizer, logdir=tmp_path / "run", every_n_steps=1):
        for inputs, targets in batches * 2:
            nn.functional.mse_loss(model(inputs), targets).backward()
            optimizer.step()
            optimizer.zero_grad()
    trials = gradwatch.try_remedies(
        model, batches, nn.MSELoss(), optimizer, steps=4, logdir=tmp_path / "run"
    )
    (run,) = read_runs(tmp_path)
    assert [trial.name for trial in run.trials] == [trial.name for trial in trials]
    assert run.trials == unpack_trials(pack_trials(trials))
    cli.main(["check", str(tmp_path)])
    assert trials[0].name in capsys.readouterr().out
