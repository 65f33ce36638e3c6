"""Known findings: what a repository has when the gate is set up, so that only more fails it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gradwatch.errors import InvalidInput, NothingToJudge
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.findings import Finding, Severity, Verdict

BASELINE_VERSION = 1


@dataclass(frozen=True)
class KnownFinding:
    """One finding of the baseline.

    Attributes:
        run: name of the run.
        code: of the rule.
        kind: a name in ``schema.kinds.KINDS``.
        severity: ``"warning"`` or ``"critical"``.
        layers: fully qualified names, worst first.
        observed: the number that was judged; ``None`` when it was not finite.
        threshold: what it was judged against.
    """

    run: str
    code: str
    kind: str
    severity: str
    layers: tuple[str, ...]
    observed: float | None
    threshold: float

    def is_exceeded_by(self, finding: Finding, thresholds: Thresholds) -> bool:
        """Whether a finding is worse than this one, at ``baseline_worse`` or more.

        Args:
            finding: of the same kind, as it is now.
            thresholds: whose ``baseline_worse`` is the factor from which a number counts as worse.
        """
        if Severity[finding.severity.upper()] > Severity[self.severity.upper()]:
            return True
        old, new = _measure_badness(self.observed, self), _measure_badness(finding.observed, self)
        return new >= old * thresholds.baseline_worse


def _measure_badness(observed: float | None, known: KnownFinding) -> float:
    """How many times beyond healthy a number is, on the side of its threshold that is unhealthy.

    A share that must not be large, such as of dead units, is measured by what is left of it.
    """
    if observed is None or not math.isfinite(observed):
        return math.inf if known.observed is not None else 1.0
    if known.observed is not None and known.observed < known.threshold:
        return 1 / max(observed, _LEAST)
    is_share = 0 <= observed <= 1 and 0 < known.threshold < 1
    return 1 / max(1 - observed, _LEAST_LEFT) if is_share else max(observed, _LEAST)


_LEAST = 1e-45  # smallest float32 above zero: below it gradients do not differ
_LEAST_LEFT = 1e-2  # a share of a hundred units has no finer steps


@dataclass(frozen=True)
class Baseline:
    """The known findings of some runs.

    Attributes:
        runs: all runs that were looked at, healthy ones too.
        findings: theirs.
    """

    runs: tuple[str, ...] = ()
    findings: tuple[KnownFinding, ...] = ()

    @classmethod
    def of_verdicts(cls, verdicts: Sequence[Verdict]) -> Baseline:
        """What these runs have now.

        Args:
            verdicts: of all runs, each under its own name.
        """
        known = [
            _remember(finding, verdict.run) for verdict in verdicts for finding in verdict.findings
        ]
        return cls(tuple(verdict.run for verdict in verdicts), tuple(known))

    def of_run(self, run: str, runs: Sequence[str]) -> tuple[KnownFinding, ...]:
        """Known findings of a run: by its name; or, where there is one run then and now, of it.

        Args:
            run: the run's name.
            runs: names of all runs of now.
        """
        if run not in self.runs and len(self.runs) == 1 and len(runs) == 1:
            return self.findings
        return tuple(finding for finding in self.findings if finding.run == run)

    def to_json(self) -> str:
        """The file's content; the same for the same findings."""
        content = {
            "schema_version": BASELINE_VERSION,
            "runs": list(self.runs),
            "findings": [
                {**asdict(finding), "layers": list(finding.layers)} for finding in self.findings
            ],
        }
        return json.dumps(content, indent=2, ensure_ascii=True) + "\n"


def _remember(finding: Finding, run: str) -> KnownFinding:
    observed = finding.observed if math.isfinite(finding.observed) else None
    threshold = finding.threshold if math.isfinite(finding.threshold) else 0.0
    return KnownFinding(
        run,
        finding.code,
        finding.kind,
        finding.severity,
        finding.layers,
        observed,
        threshold,
    )


def find_known(finding: Finding, known: Sequence[KnownFinding]) -> tuple[KnownFinding, ...]:
    """The known findings of the same kind at a finding's worst layer; none where it is new.

    A layer that no known finding of this kind names makes the whole finding new.

    Args:
        finding: as it is now.
        known: the baseline's findings of the same run.
    """
    same = [row for row in known if row.kind == finding.kind]
    covered = {layer for row in same for layer in row.layers}
    if not set(finding.layers) <= covered:
        return ()
    return tuple(row for row in same if set(finding.layers[:1]) <= set(row.layers))


def read_baseline(path: Path) -> Baseline:
    """Read what ``Baseline.to_json`` wrote.

    Args:
        path: of a JSON file.

    Raises:
        NothingToJudge: there is no such file.
        InvalidInput: it is no baseline, or of a newer schema.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # editors on Windows put a mark before it
    except (OSError, UnicodeDecodeError) as error:
        raise NothingToJudge(
            f"Expected a baseline at {str(path)!r}, got an error ({error}). "
            "Write one with: gradwatch baseline LOGDIR -o FILE."
        ) from error
    try:
        return _parse(json.loads(text))
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInput(
            f"Expected a baseline of schema version {BASELINE_VERSION} in {str(path)!r}, got "
            f"something else ({error!r}). Write it again with: gradwatch baseline LOGDIR -o FILE."
        ) from error


def _parse(content: Any) -> Baseline:
    if content["schema_version"] != BASELINE_VERSION:
        raise ValueError(f"schema_version {content['schema_version']!r}")
    return Baseline(
        _parse_names(content["runs"]), tuple(_parse_finding(row) for row in content["findings"])
    )


def _parse_finding(row: dict[str, Any]) -> KnownFinding:
    """A finding whose fields are what they must be: one that was edited wrongly hides nothing."""
    known = KnownFinding(**{**row, "layers": _parse_names(row["layers"])})
    _parse_names([known.run, known.code, known.kind])
    Severity[known.severity.upper()]  # a KeyError is answered by read_baseline
    for number in (known.threshold, 0.0 if known.observed is None else known.observed):
        if type(number) not in (int, float) or not math.isfinite(number):
            raise TypeError(f"a number of {number!r}")
    return known


def _parse_names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise TypeError(f"names of {value!r}")
    return tuple(value)
