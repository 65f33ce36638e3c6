"""Whether the training of a model that nobody here wrote is called healthy when it learns.

    python -m benchmarks.public_models              # all that are installed, to the terminal
    python -m benchmarks.public_models --save       # ... and into the stored JSON and the page
    python -m benchmarks.public_models GPT2 timm: --report

Each model is built from a small configuration with random weights and trained on data that it can
learn, twice: watched with the default schedule and at every step.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch

import gradwatch
from benchmarks.public import MODELS, PublicModel

RESULTS = Path(__file__).parent / "results" / "public_models.json"
PAGE = Path(__file__).parents[1] / "docs" / "public-models.md"

SCHEDULES = (50, 1)
"""``every_n_steps``: the default, and every step."""

LEARNED = 0.95
"""A loss that ends below this share of where it began has been learned from."""

INTRODUCTION = """\
% Made by `python -m benchmarks.public_models --save`; change the benchmark, not this page.

# Models that nobody here wrote

{models} models of {packages} packages, from small configurations with random weights, trained by
AdamW on digits, sequences, waves, tones, graphs or point clouds that they can learn, on one thread.
`@50` is the default schedule, `@1` samples every step. The loss is the mean of the first and of the
last tenth of the steps. The data stand in `benchmarks/public/tasks.py`.

{learned} of the {runs} runs have learned (the loss ends below 95 % of where it began); of these
{healthy} are healthy, {alarms} have a finding, {unjudged} were not judged. Those that have hardly
learned in so few steps are listed too.
"""


@dataclass(frozen=True)
class Row:
    """What came of one model under one schedule.

    Attributes:
        model, package, version: which.
        every_n_steps: of the watch.
        steps: that were trained.
        loss_start, loss_end: mean of the first and of the last tenth of the steps.
        status: of the verdict.
        findings: kind, severity and first layers of each.
        notes: kind and first layers of each.
        unjudged: parameters that were not judged.
        error: with which it ended, or ``""``.
    """

    model: str
    package: str
    version: str
    every_n_steps: int
    steps: int = 0
    loss_start: float = 0.0
    loss_end: float = 0.0
    status: str = ""
    findings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    unjudged: tuple[str, ...] = ()
    error: str = ""

    @property
    def learned(self) -> bool:
        """Whether the loss has fallen; one that may be negative by a twentieth of its size."""
        return self.loss_start - self.loss_end > (1 - LEARNED) * abs(self.loss_start)


def run_model(model: PublicModel, every_n_steps: int, shows: bool = False) -> Row:
    """Train it under a watch."""
    torch.manual_seed(0)
    np.random.seed(0)
    which = model.name, model.package, model.version or "", every_n_steps
    try:
        recipe = model.build()
        optimizer = recipe.make_optimizer(recipe.model.parameters(), lr=recipe.learning_rate)
        with gradwatch.watch(recipe.model, optimizer, every_n_steps=every_n_steps) as watch:
            losses = list(islice(recipe.train(optimizer), recipe.steps))
    except Exception as error:
        return Row(*which, error=f"{type(error).__name__}: {error}".splitlines()[0][:120])
    report = watch.report()
    if shows:
        print(report)
    tenth = max(len(losses) // 10, 1)
    left = report.coverage.of_state("not_judged") if report.coverage else ()
    return Row(
        *which,
        steps=recipe.steps,
        loss_start=round(float(np.mean(losses[:tenth])), 4),
        loss_end=round(float(np.mean(losses[-tenth:])), 4),
        status=report.status,
        findings=tuple(
            f"{finding.kind} ({finding.severity}): {', '.join(finding.layers[:2])}"
            for finding in report.findings
        ),
        notes=tuple(f"{note.kind}: {', '.join(note.layers[:2])}" for note in report.notes),
        unjudged=tuple(layer.fqn for layer in left),
        error=report.failure,
    )


def write_page(rows: Sequence[Row]) -> str:
    """The stored results as a page."""
    done = [row for row in rows if not row.error]
    learned = [row for row in done if row.learned]
    counts = {
        "models": len({(row.package, row.model) for row in done}),
        "packages": len({row.package for row in done}),
        "runs": len(done),
        "learned": len(learned),
        "healthy": sum(row.status == "healthy" for row in learned),
        "alarms": sum(row.status == "unhealthy" for row in learned),
        "unjudged": sum(row.status == "not_judged" for row in learned),
    }
    heading = ("package", "version", "model", "schedule", "steps", "loss", "verdict", "findings")
    lines = [f"| {' | '.join(heading)} |", f"|{' --- |' * len(heading)}"]
    lines += [_write_line(row) for row in done]
    return f"{INTRODUCTION.format(**counts)}\n" + "\n".join(lines) + "\n"


def _write_line(row: Row) -> str:
    loss = f"{row.loss_start:.3g} → {row.loss_end:.3g}"
    loss += "" if row.learned else " (hardly learned)"
    said = "; ".join(row.findings) or ", ".join(row.unjudged[:2])
    cells = (row.package, row.version, row.model, f"@{row.every_n_steps}", str(row.steps), loss)
    return f"| {' | '.join((*cells, row.status.replace('_', ' '), said))} |"


def _save(rows: Iterable[Row]) -> None:
    """What was run now replaces what was stored of it."""
    stored = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else []
    table = {_find_key(row): row for row in (*(Row(**row) for row in stored), *rows)}
    ordered = [table[key] for key in sorted(table)]
    texts = ",\n".join(json.dumps(asdict(row), ensure_ascii=False) for row in ordered)
    RESULTS.write_text(f"[\n{texts}\n]\n", encoding="utf-8")
    PAGE.write_text(write_page(ordered), encoding="utf-8")


def _find_key(row: Row) -> tuple[str, str, int]:
    return row.package, row.model, -row.every_n_steps


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.public_models")
    parser.add_argument("names", nargs="*", default=[""], metavar="TEXT", help="of package:model")
    parser.add_argument("--report", action="store_true", help="print each report")
    parser.add_argument("--save", action="store_true", help="update the stored JSON and the page")
    parser.add_argument("--every-n-steps", nargs="+", type=int, default=SCHEDULES)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for model in MODELS:
        if not any(name in f"{model.package}:{model.name}" for name in options.names):
            continue
        if model.version is None:
            print(f"{model.name} is left out: {model.package} is not installed")
            continue
        rows = [run_model(model, every, options.report) for every in options.every_n_steps]
        for row in rows:
            said = (row.status, *row.findings, *row.unjudged[:3], row.error)
            name = f"{row.package}:{row.model} @{row.every_n_steps}"
            print(name, f"{row.loss_start:.3g} -> {row.loss_end:.3g}", *said, flush=True)
        if options.save:
            _save(row for row in rows if not row.error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
