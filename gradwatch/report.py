"""Report: a verdict with the ways to show it. The one place that knows diagnosis and display."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass, field
from typing import Any

from gradwatch.verdict.findings import Verdict


@dataclass(frozen=True, repr=False)
class Report(Verdict):
    """The verdict over a run so far, pleasant in a terminal, a notebook and a pull request.

    Attributes:
        seeds: trainings that were judged together; 1 unless ``gradwatch.check`` was asked for more.
        unhealthy_seeds: those of them with findings.
        seconds: time that ``gradwatch.check`` took; ``None`` for a watch.
        logdir: where the event files are; ``""`` when there are none.
    """

    seeds: int = 1
    unhealthy_seeds: int = 0
    seconds: float | None = field(default=None, compare=False)
    logdir: str = field(default="", compare=False)

    @property
    def vote(self) -> str:
        """``"Unhealthy with 2 of 3 seeds, in 4.1 s."``; empty for a single training."""
        if self.seeds == 1:
            return ""
        took = "" if self.seconds is None else f", in {self.seconds:.1f} s"
        return f"Unhealthy with {self.unhealthy_seeds} of {self.seeds} seeds{took}."

    def to_dict(self) -> dict[str, Any]:
        """Plain data, with the vote over seeds and the time."""
        own = {"seeds": self.seeds, "unhealthy_seeds": self.unhealthy_seeds}
        return {**super().to_dict(), **own, "seconds": self.seconds}

    @classmethod
    def from_verdict(cls, verdict: Verdict) -> Report:
        """Dress a verdict of ``Doctor.judge``; nothing is copied.

        Args:
            verdict: of which the fields are taken over.
        """
        return cls(**{row.name: getattr(verdict, row.name) for row in dataclasses.fields(verdict)})

    def to_markdown(self) -> str:
        """The verdict for a pull request or TensorBoard's Text tab."""
        from gradwatch.display.markdown import write_report

        return write_report(self) + (f"\n{self.vote}\n" if self.vote else "")

    def figure(self, name: str = "profile") -> Any:
        """A Plotly figure of the run.

        Args:
            name: as in ``gradwatch.display.figures.FIGURES``.

        Returns:
            A ``plotly.graph_objects.Figure``; it needs ``gradwatch[plots]``.
        """
        from gradwatch.display.figures import draw_figure

        return draw_figure(self, name)

    def to_text(self, max_rows: int | None = None, encoding: str = "utf-8") -> str:
        """The verdict as plain text, as ``print(report)`` shows it.

        Args:
            max_rows: rows of the layer table beyond which its middle is left out; ``None``: 20.
            encoding: that the text must fit.
        """
        from gradwatch.display.layer_table import DEFAULT_ROWS
        from gradwatch.display.terminal import write_text

        rows = DEFAULT_ROWS if max_rows is None else max_rows
        text = write_text(self, encoding=encoding, max_rows=rows)
        return "\n".join([text, *self._list_last_words(encoding)])

    def _list_last_words(self, encoding: str = "utf-8") -> list[str]:
        """The vote over seeds, and who speaks and where to look."""
        where = self.logdir.encode(encoding, "backslashreplace").decode(encoding)
        look = f"gradwatch: see the gradwatch tab: tensorboard --logdir {where}"
        return [*filter(None, [self.vote, look if self.logdir and self.findings else ""])]

    def __rich__(self) -> Any:
        from rich.console import Group
        from rich.text import Text

        from gradwatch.display.terminal import render_report

        words = self._list_last_words()
        return Group(render_report(self), *map(Text, words)) if words else render_report(self)

    def __str__(self) -> str:
        return self.to_text(encoding=getattr(sys.stdout, "encoding", None) or "utf-8")

    def _repr_html_(self) -> str:
        from gradwatch.display.html import write_fragment

        return write_fragment(self) + (f"<div>{self.vote}</div>" if self.vote else "")
