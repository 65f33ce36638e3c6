"""An outcome in the formats that people and CI servers read."""

from __future__ import annotations

from collections.abc import Callable

from gradwatch.gate.outcome import Outcome

FORMATS = ("text", "json", "markdown", "github", "sarif", "junit")
"""What ``gradwatch check --format`` takes."""


def write_outcome(outcome: Outcome, layout: str) -> str:
    """An outcome in one of ``FORMATS`` other than ``"text"``, which a terminal dresses itself.

    Args:
        outcome: of all runs.
        layout: one of ``FORMATS``; what is none of the others is written as JUnit XML.
    """
    writer: Callable[[Outcome], str]
    if layout == "json":
        from gradwatch.output.json_report import write_json as writer
    elif layout == "markdown":
        from gradwatch.output.markdown_summary import write_summary as writer
    elif layout == "github":
        from gradwatch.output.github import write_annotations as writer
    elif layout == "sarif":
        from gradwatch.output.sarif import write_sarif as writer
    else:
        from gradwatch.output.junit import write_junit as writer
    text = writer(outcome)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")  # lone surrogates
