"""What came of a run, in one word: the one place that every output asks."""

from __future__ import annotations

from gradwatch.verdict.findings import Verdict

HEALTHY, UNHEALTHY, NOT_JUDGED = "healthy", "unhealthy", "not_judged"


def find_status(verdict: Verdict) -> str:
    """``"healthy"``, ``"unhealthy"``, or ``"not_judged"`` where nothing was recorded or we failed.

    A finding outranks what is missing.
    """
    if verdict.findings:
        return UNHEALTHY
    return HEALTHY if verdict.records and not verdict.failure else NOT_JUDGED
