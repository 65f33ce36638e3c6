"""How much of a run was looked at, in words."""

from __future__ import annotations

from gradwatch.verdict.findings import Verdict


def describe_pace(verdict: Verdict) -> str:
    """Where a budget has widened the interval since the run began; else ``""``."""
    if verdict.history is None or not verdict.records:
        return ""
    records = verdict.history.records
    first, latest = records[0].step("interval"), records[-1].step("interval")
    return f", every {latest:,.0f} of late to keep the budget" if latest > first else ""
