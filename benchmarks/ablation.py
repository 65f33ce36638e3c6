"""What each threshold and each guard is worth: the zoo's records judged without it, or otherwise.

    python -m benchmarks.zoo_records       once, and after a change of capture
    python -m benchmarks.ablation          measure, for docs/thresholds.md
    python -m benchmarks.ablation --now    only what is wrong today, by name
    python -m benchmarks.ablation --only profile --only patience    the rest stays as measured

A run is judged again only where some comparison with the threshold that is moved would come out
otherwise (see ``traced_thresholds``), and without a guard only where that guard has spared
something. Records of every step, ten times as many, are asked about guards, and about the
thresholds that no run of the default schedule decides.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.scoring import CRASH, judge_outcome
from benchmarks.traced_thresholds import Sides, trace_thresholds
from benchmarks.trial import Outcome
from benchmarks.watched import list_sightings
from benchmarks.zoo_records import SCHEDULES, RecordedRun, list_recorded, read_run
from gradwatch.evidence.history import History
from gradwatch.evidence.topology import Mask
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.engine import Doctor
from gradwatch.verdict.rule import Guard, Rule
from gradwatch.verdict.rules import DEFAULT_RULES

RESULTS = Path(__file__).parent / "results" / "ablation.json"

FACTOR = 3.0
"""By which each threshold is moved, both ways."""

FARTHER = (10.0, 100.0, 1e4, 1e8)
"""Moves that are tried next where ``FACTOR`` changes nothing, to find both sides."""

HALVINGS = 4
"""Of the interval in which the first verdict changes, on a log scale."""

CLOSE, USUAL = SCHEDULES
"""Of which the default asks all, and the other what the default does not decide."""

WORKERS = 2


@dataclass(frozen=True)
class Judged:
    """What came of one run.

    Attributes:
        problems: what is wrong with the verdict: problem -> the numbers.
        status: of the verdict.
    """

    problems: dict[str, str]
    status: str

    def differs(self, other: Judged) -> bool:
        """Whether another verdict is wrong in another way, or of another status."""
        return set(self.problems) != set(other.problems) or self.status != other.status


@dataclass(frozen=True)
class Baseline:
    """A run judged as things are.

    Attributes:
        run: its name.
        judged: what came of it.
        sides: of what each threshold was compared with.
        sparing: guards that have spared something.
    """

    run: str
    judged: Judged
    sides: Sides
    sparing: frozenset[str]


@dataclass(frozen=True)
class Change:
    """A run whose verdict changes.

    Attributes:
        run: its name.
        value: of the threshold at which it does; NaN for a guard.
        after: ``"alarm"``, ``"missed"`` and the like, ``"right"``, or the new status.
    """

    run: str
    value: float
    after: str


@dataclass
class Side:
    """What comes of moving one threshold one way.

    Attributes:
        changed: verdicts changed by ``FACTOR``.
        first: the first to change; ``None``: none does however far it is moved.
    """

    changed: int = 0
    first: Change | None = None


@dataclass
class Weighed:
    """What everything is worth.

    Attributes:
        runs: how many of the default schedule were judged.
        close_runs: how many that were sampled at each step.
        unread: thresholds that judging a run does not read.
        sides: by threshold, down and up.
        guards: by guard, the verdicts that change without it.
        kept: thresholds that were weighed before, and not with the rest.
        kept_runs: how many runs were judged then.
    """

    runs: int
    close_runs: int = 0
    unread: list[str] = field(default_factory=list)
    sides: dict[str, tuple[Side, Side]] = field(default_factory=dict)
    guards: dict[str, list[Change]] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)
    kept_runs: int = 0


def judge_run(
    run: RecordedRun, thresholds: Thresholds, rules: tuple[Rule, ...] = DEFAULT_RULES
) -> Judged:
    """The verdict on one recorded run against its label."""
    try:
        return _judge_run(run, thresholds, rules)
    except (ArithmeticError, LookupError, ValueError) as error:
        return Judged({CRASH: repr(error)}, CRASH)


def _judge_run(run: RecordedRun, thresholds: Thresholds, rules: tuple[Rule, ...]) -> Judged:
    doctor = Doctor(thresholds, rules)
    changes = [change for reading in run.readings for change in doctor._examine(reading)]
    began = [change.finding for change in changes if change.began]
    verdict = doctor.judge()
    sightings = list_sightings(verdict.findings, began)
    outcome = Outcome(run.case.name, f"gradwatch@{run.every_n_steps}", tuple(sightings))
    return Judged(judge_outcome(run.case, outcome), verdict.status)


def judge_baseline(run: RecordedRun) -> Baseline:
    """A run as things are, with what decided."""
    thresholds, trace = trace_thresholds(Thresholds())
    sparing: set[str] = set()
    judged = judge_run(run, thresholds, change_guards(partial(_watch_guard, sparing)))
    return Baseline(run.name, judged, trace.sides, frozenset(sparing))


def change_guards(change: Any) -> tuple[Rule, ...]:
    """The rules with each guard replaced by ``change(guard)``; ``None`` takes it out."""
    rules = []
    for rule in DEFAULT_RULES:
        kept = tuple(new for guard in rule.guards if (new := change(guard)) is not None)
        examine = partial(rule.examine, guards=kept) if rule.guards else rule.examine
        rules.append(replace(rule, examine=examine, guards=kept) if rule.guards else rule)
    return tuple(rules)


def _watch_guard(sparing: set[str], guard: Guard) -> Guard:
    def find(history: History, thresholds: Thresholds, found: Mask) -> Mask:
        spared = guard.find(history, thresholds, found)
        if (spared & found).any():
            sparing.add(guard.name)
        return spared

    return replace(guard, find=find)


def _drop_guard(name: str, guard: Guard) -> Guard | None:
    return None if guard.name == name else guard


def move(base: Thresholds, name: str, factor: float) -> Thresholds:
    """One threshold multiplied; whole numbers stay whole, and above 0."""
    value = getattr(base, name)
    moved = value * factor
    return base.replace(**{name: max(round(moved), 1) if isinstance(value, int) else moved})


def is_within_reach(baseline: Baseline, name: str, factor: float) -> bool:
    """Whether some comparison of the run comes out otherwise when the threshold is moved."""
    if name not in baseline.sides:
        return False
    below, above = baseline.sides[name]
    value = getattr(move(Thresholds(), name, factor), name)
    return below >= value if factor < 1 else above <= value


class Weighing:
    """Judges the recorded runs again and again; lives in each process.

    Args:
        baselines: of all runs, by name.
    """

    def __init__(self, baselines: dict[str, Baseline]) -> None:
        self.baselines = baselines
        self._runs: dict[str, RecordedRun] = {}

    def weigh_side(self, name: str, is_up: bool) -> Side:
        """Move one threshold one way, until a verdict changes."""
        side, before = Side(), 1.0
        for step in (FACTOR, *FARTHER):
            factor = step if is_up else 1 / step
            reached = [
                run for run, base in self.baselines.items() if is_within_reach(base, name, factor)
            ]
            changed = self._find_changes(reached, name, factor)
            if step == FACTOR:
                side.changed = len(changed)
            if changed:
                side.first = self._find_first(changed, name, before, factor)
                return side
            before = factor
        return side

    def _find_first(self, changed: list[Change], name: str, inner: float, outer: float) -> Change:
        """The nearest value at which one of these runs changes, by halving the interval."""
        for _ in range(HALVINGS):
            middle = math.sqrt(inner * outer)
            nearer = self._find_changes([change.run for change in changed], name, middle)
            if nearer:
                changed, outer = nearer, middle
            else:
                inner = middle
        return changed[0]

    def _find_changes(self, runs: Iterable[str], name: str, factor: float) -> list[Change]:
        thresholds = move(Thresholds(), name, factor)
        value = float(getattr(thresholds, name))
        return list(self._compare(runs, value, thresholds, DEFAULT_RULES))

    def weigh_guard(self, name: str) -> list[Change]:
        """Take one guard out."""
        runs = [run for run, base in self.baselines.items() if name in base.sparing]
        rules = change_guards(partial(_drop_guard, name))
        return list(self._compare(runs, math.nan, Thresholds(), rules))

    def _compare(
        self, runs: Iterable[str], value: float, thresholds: Thresholds, rules: tuple[Rule, ...]
    ) -> Iterable[Change]:
        for run in runs:
            before = self.baselines[run].judged
            after = judge_run(self._read(run), thresholds, rules)
            if after.differs(before):
                yield Change(run, value, describe_change(before, after))

    def _read(self, name: str) -> RecordedRun:
        if name not in self._runs:
            self._runs[name] = read_run(name)
        return self._runs[name]


def describe_change(before: Judged, after: Judged) -> str:
    """In two or three words."""
    new = [problem for problem in after.problems if problem not in before.problems]
    if new:
        return ", ".join(new)
    if before.problems and not after.problems:
        return "right"
    return after.status if after.status != before.status else "less wrong"


_weighing = Weighing({})


def _take_over(baselines: dict[str, Baseline]) -> None:
    _weighing.baselines = baselines


def _weigh(task: tuple[str, bool | None]) -> Any:
    name, is_up = task
    return _weighing.weigh_guard(name) if is_up is None else _weighing.weigh_side(name, is_up)


def judge_as_things_are(schedules: Iterable[int] = SCHEDULES) -> dict[str, Baseline]:
    """All recorded runs, in ``WORKERS`` processes."""
    names = list_recorded(schedules)
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")) as pool:
        return dict(zip(names, pool.map(_judge_named, names, chunksize=8), strict=True))


def _judge_named(name: str) -> Baseline:
    return judge_baseline(read_run(name))


def list_numbers() -> list[str]:
    """Names of the thresholds that are a number."""
    return [row.name for row in dataclasses.fields(Thresholds) if not _is_list(row.name)]


def weigh_all(
    usual: dict[str, Baseline], close: dict[str, Baseline], names: Sequence[str]
) -> Weighed:
    """Thresholds both ways, and every guard.

    Args:
        usual: runs of the default schedule.
        close: the same sampled at each step.
        names: of the thresholds.
    """
    weighed = _weigh_by(usual, names)
    undecided = [name for name in names if not _has_side(weighed.sides.get(name, ()))]
    more = _weigh_by(close, undecided)
    weighed.close_runs = len(close)
    weighed.sides |= {name: more.sides[name] for name in undecided if name in more.sides}
    weighed.unread = [name for name in names if name not in weighed.sides]
    for name, changes in more.guards.items():
        weighed.guards[name] += changes
    return weighed


def keep_rest(weighed: Weighed, before: Weighed) -> Weighed:
    """What was weighed, and of the other thresholds what had been measured before.

    Args:
        weighed: some thresholds, and all guards.
        before: the stored results.
    """
    known, fresh = {**before.sides, **weighed.sides}, set(weighed.sides)
    weighed.sides = {name: known[name] for name in list_numbers() if name in known}
    weighed.unread = [name for name in list_numbers() if name not in known]
    weighed.kept = [name for name in weighed.sides if name in before.sides and name not in fresh]
    weighed.kept_runs = before.kept_runs if before.kept else before.runs
    return weighed


def _has_side(sides: Iterable[Side]) -> bool:
    return any(side.first is not None for side in sides)


def _weigh_by(baselines: dict[str, Baseline], names: Sequence[str]) -> Weighed:
    """Some thresholds and every guard by some runs."""
    read = {name for base in baselines.values() for name in base.sides}
    guards = [guard.name for rule in DEFAULT_RULES for guard in rule.guards]
    wanted = [name for name in names if name in read]
    tasks: list[tuple[str, bool | None]] = [(name, None) for name in guards]
    tasks += [(name, is_up) for name in wanted for is_up in (False, True)]
    context = get_context("spawn")
    with ProcessPoolExecutor(
        WORKERS, mp_context=context, initializer=_take_over, initargs=(baselines,)
    ) as pool:
        found = dict(zip(tasks, pool.map(_weigh, tasks), strict=True))
    return Weighed(
        len(baselines),
        0,
        [],
        {name: (found[name, False], found[name, True]) for name in wanted},
        {name: found[name, None] for name in guards},
    )


def write_weighed(path: Path, weighed: Weighed) -> None:
    """As JSON; a guard's missing value is ``null``."""
    text = json.dumps(dataclasses.asdict(weighed), indent=1).replace("NaN", "null")
    path.write_text(text + "\n", encoding="utf-8")


def read_weighed(path: Path) -> Weighed:
    """What ``write_weighed`` wrote."""
    data = json.loads(path.read_text(encoding="utf-8"))
    return Weighed(
        data["runs"],
        data.get("close_runs", 0),
        data["unread"],
        {name: (_read_side(down), _read_side(up)) for name, (down, up) in data["sides"].items()},
        {name: [Change(**row) for row in rows] for name, rows in data["guards"].items()},
        data.get("kept", []),
        data.get("kept_runs", 0),
    )


def _read_side(data: dict[str, Any]) -> Side:
    return Side(data["changed"], Change(**data["first"]) if data["first"] else None)


def _is_list(name: str) -> bool:
    return isinstance(getattr(Thresholds(), name), tuple)


def main() -> None:
    """Write what everything is worth, or print what is wrong as things are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--now", action="store_true", help="only what is wrong today")
    parser.add_argument("--only", action="append", help="only this threshold, and the guards")
    parser.add_argument("--every", type=int, action="append", help="only these schedules")
    options = parser.parse_args()
    if options.now:
        baselines = judge_as_things_are(tuple(options.every or SCHEDULES))
        for name, base in baselines.items():
            if base.judged.problems:
                print(f"{name}: {base.judged.problems}")
        print(f"{len(baselines)} runs")
        return
    names = options.only or list_numbers()
    every = options.every or SCHEDULES
    usual, close = (judge_as_things_are({wanted} & set(every)) for wanted in (USUAL, CLOSE))
    weighed = weigh_all(usual, close, names)
    if options.only:
        weighed = keep_rest(weighed, read_weighed(RESULTS))
    write_weighed(RESULTS, weighed)
    print(f"written: {RESULTS}; python -m benchmarks.threshold_tables makes the page")


if __name__ == "__main__":
    main()
