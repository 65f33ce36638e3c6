"""docs/thresholds.md, from what ``benchmarks.ablation`` has measured.

python -m benchmarks.threshold_tables    # write the page again from the stored results
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterator
from pathlib import Path

from benchmarks.ablation import RESULTS, Change, Side, Weighed, read_weighed
from benchmarks.rule_size import PACKAGE, PARTS, Size, measure_files
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.rules import DEFAULT_RULES

PAGE = Path(__file__).parents[1] / "docs" / "thresholds.md"

INTRODUCTION = """\
% Made by `python -m benchmarks.ablation`; change the benchmark, not this page.

# Thresholds and guards, weighed

Every number here was moved, and every guard taken out, on the recorded trainings of the zoo
(`tests/zoo`): {runs} runs, sampled as `watch` does by default (`@50`){close_runs}. A verdict has
changed
when it is wrong in another way than before (a missed finding, an alarm, a wrong cause or place, a
finding besides the label's), or when its status changes between healthy, unhealthy and not judged.

`python -m benchmarks.zoo_records` records the trainings, `python -m benchmarks.ablation` judges
them. A run is judged again only where some comparison with the threshold comes out otherwise.

## Thresholds

**Lower side** and **upper side**: the nearest values at which a first verdict changes, and the run;
within them, every verdict on the zoo is the same. A dash: none changes, however far the number is
moved (a hundred million times). The last two columns count the verdicts that change when the number
is divided and multiplied by three.

"""

UNREAD = """\

Not read where one run is judged: {names}. They compare a run with a
baseline or with other runs ([](ci.md)), rank remedies, or silence findings by name.

Newer than this measurement: {newer}.

## Guards of the vanishing gradient

What the criterion would call vanishing, and is not. The last column names the runs whose verdict
changes when the guard is taken out.

"""

UNDECIDED = {
    "sensitivity": "says how many layers are named where the whole network is at rest: without it "
    "23 of 848 verdicts name fewer, which is not scored",
    "alike_share": "says which layers a remedy names beside the worst, which is not scored",
    "rank_spread": "is read only in jobs of several ranks, which the zoo has not",
    "dominant_share": "says which layer a message and a remedy name, which is not scored",
}
"""Why no verdict on the zoo changes with some thresholds."""

BEFORE_AND_AFTER = """\

## Before and after

Before: the rules as they were until the layout followed the data (commit `96927b9`). Lines of code
and places that decide are counted by `python -m benchmarks.rule_size` for both.

"""

BEFORE = {
    "vanishing: the criterion": Size(202, 55),
    "vanishing: what it spares": Size(58, 30),
    "vanishing: its causes": Size(185, 61),
    "the other rules": Size(702, 148),
}
"""``PARTS`` as measured on the last commit before."""

EXEMPTIONS_BEFORE = 10
"""Of the vanishing rule, and two criteria more."""

CONSTANTS_BEFORE = 25
"""Counted by ``count_constants`` on the last commit before."""


def write_page(weighed: Weighed) -> str:
    """The whole page."""
    rows = [
        "| threshold | value | lower side | upper side | / 3 | * 3 |",
        "| --- | --- | --- | --- | --- | --- |",
        *(_write_threshold(name, *sides) for name, sides in weighed.sides.items()),
    ]
    guards = [
        "| guard | why | written for | verdicts changed without |",
        "| --- | --- | --- | --- |",
        *_list_guards(weighed),
    ]
    lists = [row.name for row in dataclasses.fields(Thresholds) if isinstance(row.default, tuple)]
    names = ", ".join(f"`{name}`" for name in (*weighed.unread, *lists))
    return "".join(
        (
            INTRODUCTION.format(runs=weighed.runs, close_runs=_name_close(weighed)),
            "\n".join(rows) + "\n",
            _list_kept(weighed),
            _explain_undecided(weighed),
            UNREAD.format(names=names, newer=_list_newer(weighed)),
            "\n".join(guards) + "\n",
            BEFORE_AND_AFTER,
            "\n".join(_compare_sizes()) + "\n",
        )
    )


def _explain_undecided(weighed: Weighed) -> str:
    """Why nothing changes with some thresholds; of the others it is only said that nothing does."""
    names = [name for name, (down, up) in weighed.sides.items() if not (down.first or up.first)]
    known = [f"- `{name}` {UNDECIDED[name]}." for name in names if name in UNDECIDED]
    others = ", ".join(f"`{name}`" for name in names if name not in UNDECIDED)
    lines = ["", "No verdict changes with:", "", *known]
    if others:
        lines.append(f"- {others}: no run of the zoo is on either side of them yet.")
    return "\n".join(lines) + "\n" if names else ""


def _name_close(weighed: Weighed) -> str:
    if not weighed.close_runs:
        return ""
    count = weighed.close_runs
    return f"; what none decides, and the guards, on {count} sampled at each step (`@1`) too"


def _list_kept(weighed: Weighed) -> str:
    """Thresholds that were weighed by fewer runs, before the others."""
    names = ", ".join(f"`{name}`" for name in weighed.kept)
    return f"\nWeighed before, on {weighed.kept_runs} of these runs: {names}.\n" if names else ""


def _list_newer(weighed: Weighed) -> str:
    """Thresholds and guards that the stored results do not have."""
    guards = [guard.name for rule in DEFAULT_RULES for guard in rule.guards]
    numbers = [
        row.name for row in dataclasses.fields(Thresholds) if not isinstance(row.default, tuple)
    ]
    newer = [f"`{name}`" for name in numbers if name not in {*weighed.sides, *weighed.unread}]
    newer += [f'the guard "{name}"' for name in guards if name not in weighed.guards]
    return ", ".join(newer) or "none"


def _write_threshold(name: str, down: Side, up: Side) -> str:
    value = getattr(Thresholds(), name)
    sides = f"{_write_change(down.first)} | {_write_change(up.first)}"
    return f"| `{name}` | {value:.2g} | {sides} | {down.changed} | {up.changed} |"


def _write_change(change: Change | None) -> str:
    return "–" if change is None else f"{change.value:.2g} (`{change.run}`: {change.after})"


def _list_guards(weighed: Weighed) -> Iterator[str]:
    for guard in (guard for rule in DEFAULT_RULES for guard in rule.guards):
        if guard.name not in weighed.guards:
            continue
        changes = weighed.guards[guard.name]
        cases = ", ".join(f"`{case}`" for case in guard.cases)
        changed = ", ".join(f"`{change.run}` ({change.after})" for change in changes) or "none"
        yield f"| {guard.name} | {guard.why} | {cases} | {changed} |"


def _compare_sizes() -> Iterator[str]:
    guards = sum(len(rule.guards) for rule in DEFAULT_RULES)
    yield "| | before | now |"
    yield "| --- | --- | --- |"
    yield f"| exemptions of the vanishing rule | {EXEMPTIONS_BEFORE} | {guards} |"
    yield f"| numbers of `Thresholds` | 38 | {len(dataclasses.fields(Thresholds)) - 3} |"
    yield f"| numeric constants of evidence and verdict besides | {CONSTANTS_BEFORE} | " + (
        f"{count_constants()} |"
    )
    for part, names in PARTS.items():
        now, then = measure_files(names), BEFORE[part]
        yield (
            f"| {part} | {then.lines} lines, {then.decisions} decisions | "
            f"{now.lines} lines, {now.decisions} decisions |"
        )


def count_constants() -> int:
    """Module constants of evidence and verdict that are a number."""
    files = [path for room in ("evidence", "verdict") for path in (PACKAGE / room).rglob("*.py")]
    return sum(count_numbers(path.read_text(encoding="utf-8")) for path in files)


def count_numbers(source: str) -> int:
    """Module constants of one file's text that are a number."""
    return sum(
        isinstance(node, (ast.Assign, ast.AnnAssign))
        and node.value is not None
        and not isinstance(node.value, ast.Name)
        and all(isinstance(part, _NUMERIC) for part in ast.walk(node.value))
        and any(isinstance(part, ast.Constant) for part in ast.walk(node.value))
        and all(isinstance(c.value, int | float) for c in _list_constants(node.value))
        for node in ast.parse(source).body
    )


_NUMERIC = (ast.Constant, ast.BinOp, ast.UnaryOp, ast.operator, ast.unaryop)


def _list_constants(node: ast.AST) -> list[ast.Constant]:
    return [part for part in ast.walk(node) if isinstance(part, ast.Constant)]


def main() -> None:
    """Write the page."""
    PAGE.write_text(write_page(read_weighed(RESULTS)), encoding="utf-8")


if __name__ == "__main__":
    main()
