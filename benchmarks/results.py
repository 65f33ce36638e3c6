"""Outcomes as JSON, one line each, so that a change of one run is a change of one line."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.sighting import Sighting
from benchmarks.trial import Outcome

RESULTS = Path(__file__).parent / "results" / "detection.json"


def write_results(path: Path, outcomes: Iterable[Outcome]) -> None:
    """Sorted by case and detector."""
    ordered = sorted(outcomes, key=lambda outcome: (outcome.case, outcome.detector))
    lines = ",\n".join(json.dumps(asdict(outcome), ensure_ascii=False) for outcome in ordered)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def read_results(path: Path = RESULTS) -> list[Outcome]:
    """What ``write_results`` wrote."""
    return [_read_outcome(row) for row in json.loads(path.read_text(encoding="utf-8"))]


def _read_outcome(data: dict[str, Any]) -> Outcome:
    sightings = (
        {**sighting, "layers": tuple(sighting["layers"])} for sighting in data["sightings"]
    )
    return Outcome(**{**data, "sightings": tuple(Sighting(**sighting) for sighting in sightings)})


def fill_between(page: str, begin: str, end: str, content: str) -> str:
    """The page with this between its two marks, which stay.

    Args:
        page: Markdown that holds both marks.
        begin: the first mark.
        end: the next one behind it.
        content: lines, without the blank ones around them.
    """
    before, rest = page.split(begin)
    return f"{before}{begin}\n\n{content}\n\n{end}{rest.split(end, 1)[1]}"
