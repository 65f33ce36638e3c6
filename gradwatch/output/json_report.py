"""An outcome as strict JSON, by ``schemas/check.schema.json``."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from gradwatch.gate.outcome import Outcome, Ruling, RunOutcome

REPORT_VERSION = 1
"""Rises when a key goes or changes its meaning; a new key does not raise it."""


def write_json(outcome: Outcome) -> str:
    """One object, whatever the number of runs.

    Args:
        outcome: of all runs.
    """
    content = {
        "schema_version": REPORT_VERSION,
        "gradwatch_version": outcome.version,
        "status": outcome.status,
        "runs": [_write_run(run) for run in outcome.runs],
        "without_records": list(outcome.without_records),
        "unreadable": dict(outcome.unreadable),
    }
    return json.dumps(content, indent=2, ensure_ascii=False)


def _write_run(run: RunOutcome) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(run.verdict.to_json())
    for row, ruling in zip(content["findings"], run.rulings, strict=True):
        row.update(_write_ruling(ruling))
    gone = [{**asdict(row), "layers": list(row.layers)} for row in run.gone]
    return {**content, "status": run.verdict.status, "fails": run.fails, "gone": gone}


def _write_ruling(ruling: Ruling) -> dict[str, str]:
    return {"ruling": ruling.ruling, "ruling_reason": ruling.reason}
