"""What the gate ruled of a run, in words: the same for a terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Iterator

from gradwatch.gate.baseline import KnownFinding
from gradwatch.gate.outcome import RunOutcome


def list_rulings(run: RunOutcome) -> Iterator[str]:
    """A line for each ruling with a reason, and for each known finding that is gone.

    Args:
        run: with its rulings.

    Returns:
        Plain text, such as ``"dead (GW401) passes: in the baseline"``; names in it are untrusted.
    """
    for ruling in run.rulings:
        if ruling.reason:
            words = "fails" if ruling.fails else "passes"
            yield f"{ruling.finding.kind} ({ruling.finding.code}) {words}: {ruling.reason}"
    for known in run.gone:
        yield f"Gone since the baseline: {describe_gone(known)}"


def describe_gone(known: KnownFinding) -> str:
    """A known finding that is not there any more: ``vanishing at fc1 and 2 more``.

    Args:
        known: of a baseline.
    """
    if not known.layers:
        return known.kind
    more = f" and {len(known.layers) - 1} more" if len(known.layers) > 1 else ""
    return f"{known.kind} at {known.layers[0]}{more}"
