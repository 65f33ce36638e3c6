"""Findings and event files for the tests of the gate."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from gradwatch.judgement import Judgement
from gradwatch.log.writer import EventLog
from gradwatch.records import StepRecord
from gradwatch.run_judgement import RunJudgement
from gradwatch.verdict.findings import Finding, Verdict
from tests.display.trainings import make_training

UNHEALTHY, HEALTHY = 0.22, 1.0
"""Gain of the activations of ``make_training``."""


def write_records(logdir: Path, records: Iterable[StepRecord]) -> Path:
    """One run."""
    log = EventLog(logdir)
    for record in records:
        log.write_record(record)
    log.close()
    return logdir


def write_run(logdir: Path, gain: float) -> Path:
    """A run of thirty records."""
    time.sleep(0.001)  # runs are distinguished by the time of writing
    return write_records(logdir, make_training(gain))


def damage(logdir: Path) -> None:
    """Overwrite some bytes in the middle."""
    (path,) = logdir.glob("*tfevents*")
    content = bytearray(path.read_bytes())
    start = int(len(content) * 0.6)
    content[start : start + 4000] = b"\xff" * 4000
    path.write_bytes(content)


def make_finding(kind: str = "vanishing", layers: tuple[str, ...] = ("fc1", "fc2"), **facts):
    """A finding, with some of its fields given."""
    values = {
        "code": "GW101",
        "severity": "critical",
        "cause": "depth",
        "first_step": 0,
        "last_step": 29,
        "observed": 1e-6,
        "threshold": 1e-3,
        "message": "`fc1` gets little.",
        "remedy": "Use ReLU.",
    }
    return Finding(kind=kind, layers=layers, **{**values, **facts})


def make_judgement(*findings: Finding, run: str = "exp", **facts) -> Judgement:
    """One run with these findings."""
    return wrap(Verdict(findings=findings, run=run, records=30, last_step=29), **facts)


def wrap(
    *verdicts: Verdict,
    unreadable: Mapping[str, str] | None = None,
    without_records: Iterable[str] = (),
) -> Judgement:
    """Verdicts as ``judge_logdir`` answers them, beside runs that have none."""
    judged = [RunJudgement(verdict.run, verdict) for verdict in verdicts]
    damaged = [RunJudgement(run, problem=why) for run, why in (unreadable or {}).items()]
    foreign = [RunJudgement(run) for run in without_records]
    return Judgement([*judged, *damaged, *foreign])
