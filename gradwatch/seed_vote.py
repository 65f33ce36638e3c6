"""Reports of the same training with several seeds -> one report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gradwatch.report import Report
from gradwatch.verdict.coverage import NOT_JUDGED
from gradwatch.verdict.findings import Finding


def merge_reports(reports: Sequence[Report]) -> Report:
    """What a majority says; NaN or Inf in a single one outvotes it, and so does one not judged.

    The numbers are those of the first report that decided.

    Args:
        reports: at least one, of the same model, in the order of the seeds.

    Returns:
        With ``seeds`` and ``unhealthy_seeds``.

    Example:
        >>> merge_reports([Report(), Report(), Report()]).seeds
        3
    """
    count = len(reports)
    unhealthy = [report for report in reports if report.findings]
    if any(_is_nonfinite(report) for report in unhealthy):
        chosen = next(report for report in unhealthy if _is_nonfinite(report))
    elif any(report.status == NOT_JUDGED for report in reports):
        chosen = next(report for report in reports if report.status == NOT_JUDGED)
    elif 2 * len(unhealthy) > count:
        chosen = unhealthy[0]
    else:
        healthy = next(report for report in reports if not report.findings)
        notes = [_describe_minority(finding, len(unhealthy), count) for finding in _pool(unhealthy)]
        chosen = replace(healthy, notes=(*notes, *healthy.notes))
    return replace(chosen, seeds=count, unhealthy_seeds=len(unhealthy))


def _is_nonfinite(report: Report) -> bool:
    return any(finding.kind == "nonfinite" for finding in report.findings)


def _pool(reports: Sequence[Report]) -> list[Finding]:
    """One finding of each kind."""
    return list(
        {finding.kind: finding for report in reports for finding in report.findings}.values()
    )


def _describe_minority(finding: Finding, unhealthy: int, count: int) -> Finding:
    text = f"Unhealthy with {unhealthy} of {count} seeds, no majority: {finding.message}"
    return replace(finding, severity="note", message=text)
