"""Report: a verdict with the ways to show it. The one place that knows diagnosis and display."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from gradwatch.verdict.findings import Verdict


@dataclass(frozen=True)
class Report(Verdict):
    """The verdict over a run so far, pleasant in a terminal, a notebook and a pull request."""

    @classmethod
    def from_verdict(cls, verdict: Verdict) -> Report:
        """Dress a verdict of ``Doctor.judge``; nothing is copied."""
        return cls(**{one.name: getattr(verdict, one.name) for one in dataclasses.fields(verdict)})

    def to_markdown(self) -> str:
        """The verdict for a pull request or TensorBoard's Text tab."""
        from gradwatch.display.markdown import write_report

        return write_report(self)

    def figure(self, name: str = "profile") -> Any:
        """A Plotly figure of the run (needs ``gradwatch[plots]``); ``name`` as in ``FIGURES``."""
        from gradwatch.display.figures import draw_figure

        return draw_figure(self, name)

    def __rich__(self) -> Any:
        from gradwatch.display.terminal import render_report

        return render_report(self)

    def __str__(self) -> str:
        from gradwatch.display.terminal import write_text

        return write_text(self)

    def _repr_html_(self) -> str:
        from gradwatch.display.html import write_fragment

        return write_fragment(self)
