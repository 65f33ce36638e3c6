"""What the gate ruled of a run, in words: the same for a terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Iterator

from gradwatch.display.coverage_words import describe_coverage
from gradwatch.display.headline import write_headline
from gradwatch.gate.baseline import KnownFinding
from gradwatch.gate.outcome import RunOutcome
from gradwatch.verdict.coverage import NOT_JUDGED


def list_rulings(run: RunOutcome) -> Iterator[str]:
    """A line for each ruling with a reason, for what is left, and for known findings that are gone.

    Args:
        run: with its rulings.

    Returns:
        Plain text, such as ``"dead (GW401) passes: in the baseline"``; names in it are untrusted.
    """
    for ruling in run.rulings:
        if ruling.reason:
            words = "fails" if ruling.fails else "passes"
            yield f"{ruling.finding.kind} ({ruling.finding.code}) {words}: {ruling.reason}"
    if run.rulings and describe_unjudged(run):
        yield f"Not judged: {describe_unjudged(run)}"
    for known in run.gone:
        yield f"Gone since the baseline: {describe_gone(known)}"


def describe_unjudged(run: RunOutcome) -> str:
    """Why a run without a finding that fails is no pass all the same; ``""`` where it is one.

    Args:
        run: with its rulings.
    """
    if run.fails or not run.leaves_unjudged:
        return ""
    is_headline = run.verdict.status == NOT_JUDGED or run.verdict.failure
    return write_headline(run.verdict) if is_headline else describe_coverage(run.verdict.coverage)


def describe_gone(known: KnownFinding) -> str:
    """A known finding that is not there any more: ``vanishing at fc1 and 2 more``.

    Args:
        known: of a baseline.
    """
    if not known.layers:
        return known.kind
    more = f" and {len(known.layers) - 1} more" if len(known.layers) > 1 else ""
    return f"{known.kind} at {known.layers[0]}{more}"
