"""Which detector finds what in the zoo, and which healthy runs it alarms on.

    python -m benchmarks.detection           # all cases, all detectors, to the terminal
    python -m benchmarks.detection --save    # ... and into the stored JSON and docs/detection.md
    python -m benchmarks.detection --cases "sigmoid_*" --detectors gradwatch --every-n-steps 10

Deterministic: times are printed, never stored.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from rich.console import Console

from benchmarks.results import RESULTS, read_results, write_results
from benchmarks.tables import PAGE, draw_tables, write_page
from benchmarks.trial import Outcome, find_detectors, run_cases
from tests.zoo import CASES, Case

EVERY_N_STEPS = (1, 50)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    intervals = tuple(options.every_n_steps or EVERY_N_STEPS)
    names = choose_detectors(options.detectors, intervals)
    cases = choose_cases(options.cases)
    started = time.perf_counter()
    outcomes = run_cases(cases, names, intervals)
    console = Console(width=None if sys.stdout.isatty() else 160)
    for table in draw_tables(cases, names, outcomes):
        console.print(table)
    print(f"{len(outcomes)} runs in {time.perf_counter() - started:.0f} s")
    if options.json is not None:
        write_results(options.json, outcomes)
    if options.save:
        _save(outcomes)
    return 0


def choose_detectors(wanted: Sequence[str], intervals: Sequence[int]) -> list[str]:
    """Names of detectors; ``gradwatch`` means all of its sampling intervals."""
    known = find_detectors(intervals)
    chosen = [name for name in known if not wanted or {name, name.split("@")[0]} & set(wanted)]
    unknown = [name for name in wanted if name not in {*known, "gradwatch"}]
    if unknown:
        raise SystemExit(f"Expected detectors among gradwatch, {', '.join(known)}: {unknown}")
    return chosen


def choose_cases(pattern: str) -> list[Case]:
    """Cases whose name matches.

    Raises:
        SystemExit: none does.
    """
    cases = [case for case in CASES if fnmatchcase(case.name, pattern)]
    if not cases:
        raise SystemExit(f"Expected a pattern that some case's name matches, got {pattern!r}.")
    return cases


def _save(outcomes: Sequence[Outcome]) -> None:
    """Into the stored results: what was run now replaces what was stored of it."""
    fresh = {(outcome.case, outcome.detector): outcome for outcome in outcomes}
    stored = read_results(RESULTS) if RESULTS.exists() else []
    known = {case.name for case in CASES}
    kept = [
        outcome
        for outcome in stored
        if (outcome.case, outcome.detector) not in fresh and outcome.case in known
    ]
    write_results(RESULTS, [*outcomes, *kept])
    PAGE.write_text(write_page(read_results(RESULTS)), encoding="utf-8")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.detection")
    parser.add_argument("--cases", default="*", metavar="PATTERN", help="of names")
    parser.add_argument("--detectors", nargs="+", default=(), metavar="NAME")
    parser.add_argument("--every-n-steps", nargs="+", type=int, metavar="N", help="of gradwatch")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the outcomes there")
    parser.add_argument("--save", action="store_true", help="update the stored JSON and the page")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
