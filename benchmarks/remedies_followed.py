"""Whether a training learns once somebody has done what gradwatch printed, and nothing else.

    python -m benchmarks.remedies_followed          # all runs, to the terminal
    python -m benchmarks.remedies_followed --save   # ... and into the stored JSON and the page
    python -m benchmarks.remedies_followed sigmoid_mlp_12_default_sgd

Each run is an unhealthy one of the zoo. It is trained under the default schedule; the first finding
is taken at its word: the layers to change are read from the sentence. Then it is trained again.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

import gradwatch
from benchmarks.remedy_attempts import ATTEMPTS, Attempt
from tests.zoo import CASES, Training

RESULTS = Path(__file__).parent / "results" / "remedies_followed.json"
PAGE = Path(__file__).parents[1] / "docs" / "remedies-followed.md"

GAP = 0.5
"""Share of the way down that a known good version goes, which is to be gone in as many steps."""

LAST = 0.1
"""Share of the steps over which the loss at the end is averaged."""

Build = Callable[[], Training]

_TRAININGS = {case.name: case for case in CASES}

INTRODUCTION = """\
% Made by `python -m benchmarks.remedies_followed --save`; change the benchmark, not this page.

# Remedies, followed

{count} unhealthy runs of the zoo, of different causes. Each is trained under the default schedule,
its first finding's remedy is done to the word, with the layers read from the sentence itself, and
it is trained again from the same start. It *learns* when its loss, over the last tenth of the
steps, has gone {gap:.0%} of the way that a known good version goes in as many (from where that
began, or from where the unhealthy run ended if that is lower), and gradwatch calls it healthy.

{learned} of {count} learn.

"""


@dataclass(frozen=True)
class Row:
    """What came of one remedy.

    Attributes:
        case: of the zoo.
        kind, cause, layers: of the first finding.
        remedy: as printed.
        quote: the words of it that were followed; empty where it no longer holds them.
        change: what was done.
        loss_before, loss_good, loss_cured: at the end: as it was, of the known good version, and
            with the remedy; NaN is -1.
        target: that the loss had to come to.
        status: of the verdict with the remedy.
        findings: codes of what was found then.
    """

    case: str
    kind: str
    cause: str
    layers: tuple[str, ...]
    remedy: str
    quote: str
    change: str
    loss_before: float
    loss_good: float
    loss_cured: float
    target: float
    status: str
    findings: tuple[str, ...]

    @property
    def learns(self) -> bool:
        """By the loss and by the verdict."""
        return bool(self.quote) and 0 <= self.loss_cured <= self.target and self.status == "healthy"


def run_attempt(attempt: Attempt) -> Row:
    """Train as it is, follow the first finding's remedy, train again."""
    build, make_good = find_versions(attempt)
    unhealthy, report = _train(build())
    good = make_good().run()
    finding = report.findings[0]
    follows = attempt.quote.lower() in finding.remedy.lower()
    training = make_good() if attempt.follow is None else build()
    if attempt.follow is not None and follows:
        attempt.follow(training, finding.remedy)
    cured, after = _train(training)
    start = min(_end(unhealthy), good[0]) if math.isfinite(_end(unhealthy)) else good[0]
    target = start + GAP * (_end(good) - start)
    return Row(
        attempt.case,
        finding.kind,
        finding.cause or "",
        finding.layers[:3],
        finding.remedy,
        attempt.quote if follows else "",
        attempt.change,
        *(_round(value) for value in (_end(unhealthy), _end(good), _end(cured), target)),
        after.status,
        tuple(found.code for found in after.findings),
    )


def find_versions(attempt: Attempt) -> tuple[Build, Build]:
    """What builds the unhealthy run, and what a known good one."""
    case = _TRAININGS.get(attempt.case)
    build = attempt.build or (case and case.build)
    good = attempt.good or (case and case.fixed)
    if build is None or good is None:
        raise KeyError(f"Expected a run with a good version in the zoo, got {attempt.case!r}.")
    return build, good


def _train(training: Training) -> tuple[list[float], gradwatch.Report]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        watched = training.model, training.optimizers
        with gradwatch.watch(*watched, log_findings=False) as watch:
            losses = training.run()
        return losses, watch.report()


def _end(losses: Sequence[float]) -> float:
    return float(np.mean(losses[-max(int(len(losses) * LAST), 1) :]))


def _round(value: float) -> float:
    return float(f"{value:.4g}") if math.isfinite(value) else -1.0


def write_page(rows: Sequence[Row]) -> str:
    """The stored rows as a page: a table, and each remedy in full."""
    facts = {"count": len(rows), "learned": sum(row.learns for row in rows), "gap": GAP}
    heading = ("run", "cause", "loss as it was", "followed", "good version", "verdict", "learns")
    lines = [f"| {' | '.join(heading)} |", f"|{' --- |' * len(heading)}"]
    lines += [_write_line(row) for row in rows]
    parts = [INTRODUCTION.format(**facts) + "\n".join(lines)]
    parts += ["## What was printed, and what was done", *map(_write_remedy, rows)]
    return "\n\n".join(parts) + "\n"


def _write_line(row: Row) -> str:
    losses = (_say(loss) for loss in (row.loss_before, row.loss_cured, row.loss_good))
    verdict = " ".join((row.status.replace("_", " "), *row.findings))
    cause = f"{row.kind}: {row.cause or 'not known'}"
    cells = (row.case, cause, *losses, verdict, "yes" if row.learns else "no")
    return f"| {' | '.join(cells)} |"


def _say(loss: float) -> str:
    return "NaN" if loss < 0 else f"{loss:.3g}"


def _write_remedy(row: Row) -> str:
    return f"**{row.case}**: {row.remedy}\n\n: {row.change}"


def _save(rows: Sequence[Row]) -> None:
    """What was run now replaces what was stored of it."""
    stored = read_rows() if RESULTS.exists() else []
    table = {row.case: row for row in (*stored, *rows)}
    ordered = [table[attempt.case] for attempt in ATTEMPTS if attempt.case in table]
    texts = ",\n".join(json.dumps(asdict(row), ensure_ascii=False) for row in ordered)
    RESULTS.write_text(f"[\n{texts}\n]\n", encoding="utf-8")
    PAGE.write_text(write_page(ordered), encoding="utf-8")


def read_rows() -> list[Row]:
    """As stored."""
    rows = json.loads(RESULTS.read_text(encoding="utf-8"))
    listed = ({key: _as_tuple(value) for key, value in row.items()} for row in rows)
    return [Row(**row) for row in listed]


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.remedies_followed")
    parser.add_argument("names", nargs="*", default=[""], metavar="TEXT", help="of a run's name")
    parser.add_argument("--save", action="store_true", help="update the stored JSON and the page")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows = []
    for attempt in ATTEMPTS:
        if any(name in attempt.case for name in options.names):
            row = run_attempt(attempt)
            rows.append(row)
            print(_write_line(row), flush=True)
            if not row.learns:
                print(f"    target {row.target:.3g}; {row.remedy}", flush=True)
    print(f"{sum(row.learns for row in rows)} of {len(rows)} learn")
    if options.save:
        _save(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
