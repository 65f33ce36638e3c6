"""The exceptions of gradwatch.

GradWatchError
├── InvalidInput (also a ValueError)   what was handed to us cannot be watched
│   └── AlreadyWatched                 a second watch on the same model
├── NothingToJudge                     no run, no record, or records that cannot be read
│   └── UnreadableLog                  an event file or record that is foreign or damaged
└── UnhealthyGradients                 findings, raised only at the edge (CI, callbacks)

Messages have three parts: what was expected, what came, what to do next.
"""

from __future__ import annotations

from typing import Any


class GradWatchError(Exception):
    """Base of everything that gradwatch raises on purpose."""

    @classmethod
    def explain(cls, *, expected: str, came: str, todo: str) -> GradWatchError:
        """Build the error from its three parts.

        Args:
            expected: without the word, as the middle of a sentence.
            came: likewise.
            todo: a sentence of its own.

        Example:
            >>> str(InvalidInput.explain(expected="a model", came="a list", todo="Pass the model."))
            'Expected a model, got a list. Pass the model.'
        """
        return cls(f"Expected {expected}, got {came}. {todo}")


class InvalidInput(GradWatchError, ValueError):
    """What was handed to gradwatch cannot be watched or configured so."""


class AlreadyWatched(InvalidInput):
    """The model already has a watch; two would count every gradient twice."""


class NothingToJudge(GradWatchError):
    """There is no run or record to judge: in CI a failure, never a pass."""


class UnreadableLog(NothingToJudge):
    """An event file or a record is foreign, truncated beyond use or of a newer schema."""


class UnhealthyGradients(GradWatchError):
    """Raised at the edge when a report holds findings; carries them as data.

    Args:
        message: the findings as text.
        findings: the ``gradwatch.Finding`` objects themselves, worst first.
    """

    def __init__(self, message: str, findings: tuple[Any, ...] = ()) -> None:
        super().__init__(message)
        self.findings = findings

    def __reduce__(self) -> tuple[type, tuple[str, tuple[Any, ...]]]:
        return type(self), (str(self), self.findings)
