"""How much of a run was looked at, and how much of the model trains, in words."""

from __future__ import annotations

from gradwatch.verdict.findings import Trained, Verdict

MILLION = 10**6


def describe_pace(verdict: Verdict) -> str:
    """Where a budget has widened the interval since the run began; else ``""``.

    Args:
        verdict: of one run.
    """
    first, latest = verdict.course.intervals
    return f", every {latest:,.0f} lately to keep the budget" if latest > first else ""


def describe_trained(trains: Trained) -> str:
    """``"41 of 62 tensors train (0.8 of 12.3 million elements)"``; ``""`` without parameters.

    Args:
        trains: counts of a verdict.
    """
    if not trains.all_tensors:
        return ""
    elements = f"{trains.elements:,} of {trains.all_elements:,}"
    if trains.all_elements >= MILLION:
        part, whole = (count / MILLION for count in (trains.elements, trains.all_elements))
        elements = f"{part:,.1f} of {whole:,.1f} million"
    return f"{trains.tensors:,} of {trains.all_tensors:,} tensors train ({elements} elements)"
