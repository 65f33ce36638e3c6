"""The scores as tables, for the terminal and for docs/detection.md.

python -m benchmarks.tables    # write the page again from the stored results
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from benchmarks.results import read_results
from benchmarks.scoring import Score, judge_outcome, score_detector
from benchmarks.trial import Outcome
from gradwatch.schema.kinds import KINDS
from tests.zoo import CASES, Case

PAGE = Path(__file__).parents[1] / "docs" / "detection.md"

INTRODUCTION = """\
% Made by `python -m benchmarks.detection --save`; change the benchmark, not this page.

# Detection beside other tools

The zoo in `tests/zoo/` holds {cases} small labelled training runs: {unhealthy} unhealthy ones
and {healthy} healthy ones that naive rules take for unhealthy. Each unhealthy label is supported
by an experiment that uses no gradient: training with the unhealthy region frozen does as well, and
the known fix makes it learn. `python -m benchmarks.detection` runs them all under each detector.

`gradwatch@1` samples every optimizer step; `gradwatch@50`, the default, the first five and then
ever fewer down to every fiftieth. The others are re-implemented from their documentation and
published thresholds, which each docstring in `benchmarks/rivals/` names with what had to be
adapted, and look at every tenth step. `autotrainer-gated` counts gradients only in a training that
gets nowhere. `torchmortem` is the package itself, and judges after the end.
"""

EXPLANATION = """\
- **Found**: unhealthy runs in which a kind of the label was reported; **noticed**: anything at all.
- **False alarms**: healthy runs in which something stands in the report at the end;
  **passing**: in which something was reported on the way and withdrawn.
- **Cause** and **place**: unhealthy runs whose cause was named, and where one of the first three
  layers named lies in the unhealthy region. A run that was missed counts as wrong in both.
- **Steps**: median optimizer steps until the first report, from the start in runs that are
  unhealthy from the start; **late**: from becoming unhealthy in the others.
- **Crashes**: runs that ended with an error under the detector.
"""

HEADINGS = (
    "detector",
    "found",
    "noticed",
    "false alarms",
    "passing",
    "cause",
    "place",
    "steps",
    "late",
    "crashes",
)


@dataclass(frozen=True)
class Grid:
    """A table before it is drawn."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


def draw_tables(
    cases: Sequence[Case], names: Sequence[str], outcomes: Iterable[Outcome]
) -> list[Table]:
    """Everything for the terminal: the summary, the kinds, and what went wrong by name."""
    scores = score_all(cases, names, outcomes)
    wrong = [grid for name, score in scores.items() for grid in [_list_wrong(name, score)]]
    grids = [summarise(scores), compare_recall(scores), compare_precision(scores), *wrong]
    return [_draw(grid) for grid in grids if grid.rows]


def score_all(
    cases: Sequence[Case], names: Sequence[str], outcomes: Iterable[Outcome]
) -> dict[str, Score]:
    """Scores by name of the detector."""
    tables: dict[str, dict[str, Outcome]] = {name: {} for name in names}
    for outcome in outcomes:
        if outcome.detector in tables:
            tables[outcome.detector][outcome.case] = outcome
    return {name: score_detector(cases, table) for name, table in tables.items()}


def summarise(scores: Mapping[str, Score]) -> Grid:
    """One row for each detector."""
    rows = [_summarise_one(name, score) for name, score in scores.items()]
    return Grid("Detection", HEADINGS, rows)


def _summarise_one(name: str, score: Score) -> list[str]:
    causes = score.causes_asked - len(score.wrong_causes)
    places = score.unhealthy - len(score.wrong_places)
    return [
        name,
        f"{score.found} of {score.unhealthy}",
        f"{score.noticed}",
        f"{len(score.alarms)} of {score.healthy}",
        f"{len(score.passing_alarms)}",
        f"{causes} of {score.causes_asked}" if name.startswith("gradwatch") else "–",
        f"{places} of {score.unhealthy}",
        _show_steps(score.steps),
        _show_steps(score.late_steps),
        f"{len(score.crashes)}",
    ]


def compare_recall(scores: Mapping[str, Score]) -> Grid:
    """Kinds against detectors: found of those there are."""
    rows = [
        [kind, *(f"{s.kinds[kind].found} of {s.kinds[kind].cases}" for s in scores.values())]
        for kind in KINDS
    ]
    return Grid("Recall by kind", ("kind", *scores), rows)


def compare_precision(scores: Mapping[str, Score]) -> Grid:
    """Kinds against detectors: right ones of those that were reported."""
    rows = [
        [kind, *(f"{s.kinds[kind].right} of {s.kinds[kind].reported}" for s in scores.values())]
        for kind in KINDS
    ]
    return Grid("Precision by kind", ("kind", *scores), rows)


def _list_wrong(name: str, score: Score) -> Grid:
    groups = {
        "missed": score.misses,
        "false alarms": score.alarms,
        "passing alarms": score.passing_alarms,
        "crashes": score.crashes,
    }
    rows = [[problem, ", ".join(names)] for problem, names in groups.items() if names]
    return Grid(f"{name}: runs by name", ("", "runs"), rows)


def write_page(outcomes: Sequence[Outcome], cases: Sequence[Case] = CASES) -> str:
    """docs/detection.md, as Markdown."""
    present = {outcome.detector for outcome in outcomes}
    names = sorted(present, key=_order)
    scores = score_all(cases, names, outcomes)
    unhealthy = sum(not case.healthy for case in cases)
    counts = {"cases": len(cases), "unhealthy": unhealthy, "healthy": len(cases) - unhealthy}
    parts = [INTRODUCTION.format(**counts), _write_grid(summarise(scores)), EXPLANATION]
    parts += [
        "## By kind\n\nFound of the runs that have it:\n",
        _write_grid(compare_recall(scores)),
    ]
    parts += [
        "Right of the runs in which it was reported:\n",
        _write_grid(compare_precision(scores)),
    ]
    parts += ["## What went wrong, by name\n"]
    parts += [_write_details(name, cases, outcomes, scores[name]) for name in names]
    return "\n".join(parts)


def _write_details(
    name: str, cases: Sequence[Case], outcomes: Sequence[Outcome], score: Score
) -> str:
    """Ours with the numbers, others by name."""
    if not name.startswith("gradwatch"):
        groups = {"Missed": score.misses, "False alarms": score.alarms, "Crashes": score.crashes}
        lines = [f"- {title}: {_quote(names)}" for title, names in groups.items() if names]
        return f"### {name}\n\n" + "\n".join(lines) + "\n"
    mine = {outcome.case: outcome for outcome in outcomes if outcome.detector == name}
    problems = {case.name: judge_outcome(case, mine[case.name]) for case in cases}
    rows = [
        [f"`{case}`", problem, text]
        for case, all_ in problems.items()
        for problem, text in all_.items()
    ]
    table = _write_grid(Grid("", ("run", "problem", "what was said"), rows))
    return f"### {name}\n\n{table if rows else 'Nothing.'}\n"


def _order(name: str) -> tuple[bool, str]:
    return not name.startswith("gradwatch"), name


def _quote(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _show_steps(steps: float | None) -> str:
    return "–" if steps is None else f"{steps:g}"


def _draw(grid: Grid) -> Table:
    table = Table(title=grid.title, title_justify="left")
    for heading in grid.headings:
        table.add_column(heading)
    for row in grid.rows:
        table.add_row(*row)
    return table


def _write_grid(grid: Grid) -> str:
    lines = [grid.headings, ["---"] * len(grid.headings), *grid.rows]
    cells = ([cell.replace("|", "\\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells) + "\n"


if __name__ == "__main__":
    PAGE.write_text(write_page(read_results()), encoding="utf-8")
