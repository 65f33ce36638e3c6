"""Trials of remedies as bytes in a run's log, and back."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from typing import Any

from gradwatch.errors import UnreadableLog
from gradwatch.verdict.findings import Finding
from gradwatch.verdict.trials import COSTS, OUTCOMES, Measurement, Trial

MAX_TRIALS_BYTES = 2 << 20
"""Trials larger than this are not read: a few bytes can inflate to any size."""


def pack_trials(trials: Sequence[Trial]) -> bytes:
    """Trials as deflated JSON; what all of them share, the untouched model, stands in it once.

    Args:
        trials: of one model.

    Returns:
        A few kilobytes; numbers that are not finite stay as they are.
    """
    content = {
        "before": trials[0].before.to_dict() if trials else None,
        "trials": [{**trial.to_dict(), "before": None} for trial in trials],
    }
    return zlib.compress(json.dumps(content).encode())


def unpack_trials(packed: bytes) -> tuple[Trial, ...]:
    """Read back what ``pack_trials`` made, in the same order.

    Args:
        packed: from a log.

    Raises:
        UnreadableLog: not ours, damaged, or unreasonably large.
    """
    try:
        text = zlib.decompressobj().decompress(packed, MAX_TRIALS_BYTES)
        content = json.loads(text)
        return tuple(_read_trial(trial, content["before"]) for trial in content["trials"])
    except (
        zlib.error,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        RecursionError,
        OverflowError,
    ) as error:
        raise UnreadableLog(
            f"Expected deflated JSON with trials of remedies, got {packed[:20]!r} ({error!r}). "
            "The event file is damaged; call try_remedies(..., logdir=...) again."
        ) from error


def _read_trial(data: dict[str, Any], before: dict[str, Any]) -> Trial:
    change, outcome = data["change"], data["outcome"]
    if change not in COSTS or outcome not in OUTCOMES:
        raise ValueError(f"no such change or outcome: {change!r}, {outcome!r}")
    return Trial(
        name=str(data["name"]),
        change=change,
        description=str(data["description"]),
        steps=int(data["steps"]),
        before=_read_measurement(before),
        after=None if data["after"] is None else _read_measurement(data["after"]),
        reason=str(data["reason"]),
        outcome=outcome,
    )


def _read_measurement(data: dict[str, Any]) -> Measurement:
    numbers = ("attenuation", "early_update", "loss_start", "loss_end")
    return Measurement(
        **{name: float(data[name]) for name in numbers},
        findings=tuple(
            Finding(**{**finding, "layers": tuple(map(str, finding["layers"]))})
            for finding in data["findings"]
        ),
    )
