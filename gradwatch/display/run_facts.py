"""What a run is and how it stands, in words: for the page's card and its status line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import pairwise
from typing import Any

from gradwatch.display.sampling_words import describe_trained
from gradwatch.run_marks import OptimizerSettings, RunDescription, RunEnd, RunGap, RunHeader
from gradwatch.verdict.findings import Verdict

_LEAST_PATIENCE_SECONDS = 60.0
_PATIENT_GAPS = (
    5.0  # times the longest wait so far between two records, before a run counts as gone
)
_STATES = {"detached": "ended", "exception": "crashed", "failure": "failed"}


@dataclass(frozen=True)
class RunFacts:
    """What a log says of a run besides its records.

    Attributes:
        header: the start mark; ``None`` in logs from before there were marks.
        end: the end mark of the newest watch; ``None`` when it has not ended, or was killed.
        gaps: records that could not be written.
        written_at: when the latest records were written, seconds since 1970, ascending.
        rates: largest learning rate at the first and at the last record; NaN where unknown.
        passes: backward passes of the last record; NaN where unknown.
        recorded: records of the newest watch that the log holds; ``None`` where nobody has counted.
    """

    header: RunHeader | None = None
    end: RunEnd | None = None
    gaps: Sequence[RunGap] = ()
    written_at: Sequence[float] = ()
    rates: tuple[float, float] = (math.nan, math.nan)
    passes: float = math.nan
    recorded: int | None = None

    @property
    def missing(self) -> int:
        """Records that the end mark counts and that are neither in the log nor in its gaps."""
        if self.end is None or self.recorded is None:
            return 0
        session = self.end.session
        lost = sum(gap.last - gap.first + 1 for gap in self.gaps if gap.session == session)
        return max(self.end.records - lost - self.recorded, 0)


def describe_state(facts: RunFacts) -> dict[str, Any]:
    """How the run stands: what the page needs to say ``"last record 12 s ago"``.

    ``how`` is ``"ended"``, ``"crashed"``, ``"failed"``, ``"running"``, or ``"unknown"`` in logs
    without marks. A running one has stopped answering when its last record, written at ``last``, is
    older than ``patience`` seconds.

    Args:
        facts: of one log.

    Returns:
        ``how``, ``detail``, ``step`` of the end, ``last`` and ``started`` in seconds since 1970,
        ``patience`` in seconds; ``None`` where unknown.
    """
    end, written = facts.end, facts.written_at
    gaps = [after - before for before, after in pairwise(written)]
    how = "running" if facts.header else "unknown"
    return {
        "how": how if end is None else _STATES[end.how],
        "detail": end.detail if end else "",
        "step": end.last_step if end else None,
        "last": round(written[-1], 1) if written else None,
        "started": round(facts.header.started_at, 1) if facts.header else None,
        "patience": round(max([_LEAST_PATIENCE_SECONDS, *(_PATIENT_GAPS * gap for gap in gaps)])),
    }


def describe_gaps(facts: RunFacts) -> list[str]:
    """What is missing of the log, a line for each gap and one for what it does not explain.

    Args:
        facts: of one log.
    """
    lines = [
        f"{gap.last - gap.first + 1:,} records could not be written ({gap.reason})"
        for gap in facts.gaps
    ]
    if facts.missing:
        plural = "s" if facts.missing > 1 else ""
        lines.append(
            f"{facts.missing:,} record{plural} missing: the log is damaged, see gradwatch check"
        )
    return lines


def describe_facts(facts: RunFacts, verdict: Verdict) -> list[list[str]]:
    """Label and text of each line of the information card; only what is known.

    Args:
        facts: of one log.
        verdict: of the same run.
    """
    rows = [
        ["Trains", describe_trained(verdict.trains)],
        ["Coverage", _say_coverage(verdict)],
        ["Records", _say_records(verdict, facts)],
    ]
    if facts.header is not None:
        rows = [*_list_training(facts.header.description, facts), *rows]
        rows.append(["Started", _say_time(facts.header.started_at)])
        rows.append(["Versions", _say_versions(facts.header)])
    return [row for row in rows if row[1]]


def _list_training(about: RunDescription, facts: RunFacts) -> list[list[str]]:
    frozen = about.n_params - about.n_trainable
    passes = facts.passes
    per_step = f"{passes:g} backward passes per step" if passes > 1 else ""
    return [
        ["Model", about.model],
        ["Parameters", f"{about.n_params:,}" + (f", {frozen:,} of them frozen" if frozen else "")],
        ["Optimizer", "; ".join(_say_optimizer(optimizer) for optimizer in about.optimizers)],
        ["Learning rate", _say_rates(facts.rates)],
        ["Batch", f"{about.batch_size:,} samples a step" if about.batch_size else ""],
        ["Accumulation", per_step],
        ["Precision", ", ".join(about.dtypes)],
        ["Device", ", ".join(about.devices)],
        ["Ranks", f"{about.world_size:,}"],
    ]


def _say_optimizer(settings: OptimizerSettings) -> str:
    decays = ", ".join(f"{decay:g}" for decay in sorted(set(settings.weight_decays)) if decay)
    decayed = f", weight decay {decays}" if decays else ""
    groups = len(settings.learning_rates)
    return f"{settings.type}{decayed}" + (f", {groups} parameter groups" if groups > 1 else "")


def _say_rates(rates: tuple[float, float]) -> str:
    first, last = (f"{rate:.3g}" if math.isfinite(rate) else "" for rate in rates)
    return first if first == last else f"{first} at first, {last} at the last record"


def _say_coverage(verdict: Verdict) -> str:
    if verdict.coverage is None or not verdict.coverage.params:
        return ""
    learned, weights = verdict.coverage.counted
    return f"{learned:,} of {weights:,} weights seen to learn"


def _say_records(verdict: Verdict, facts: RunFacts) -> str:
    if not verdict.records:
        return ""
    every = facts.header.description.every_n_steps if facts.header else 0
    pace = f", at least every {every:,} steps" if every > 1 else ""
    first, last = verdict.first_step, verdict.last_step
    span = f"step {last:,}" if first == last else f"steps {first:,} to {last:,}"
    return f"{verdict.records:,}, {span}{pace}"


def _say_time(seconds: float) -> str:
    if seconds <= 0:
        return ""
    try:
        moment = datetime.fromtimestamp(seconds, timezone.utc)
    except (OverflowError, OSError, ValueError):
        return ""
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _say_versions(header: RunHeader) -> str:
    about = header.description
    known = (("gradwatch", about.gradwatch_version), ("torch", about.torch_version),
             ("Python", header.python_version))  # fmt: skip
    return ", ".join(f"{name} {version}" for name, version in known if version)
