"""What each threshold and each guard is worth: the zoo's records judged without it, or otherwise.

python -m benchmarks.zoo_records      once, and after a change of capture
python -m benchmarks.ablation         a table in Markdown
python -m benchmarks.ablation --now   only what is wrong today, by name
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from benchmarks.scoring import judge_outcome
from benchmarks.trial import Outcome
from benchmarks.watched import list_sightings
from benchmarks.zoo_records import SCHEDULES, RecordedRun, find_logdir, read_records
from gradwatch.thresholds import Thresholds
from gradwatch.verdict.engine import Doctor
from tests.zoo import CASES

FACTOR = 3.0
"""By which each threshold is moved, both ways."""

WORKERS = 2

Problems = dict[str, dict[str, str]]
"""By run, such as ``"relu_30_layers_he@50"``: what is wrong with its verdict."""


def judge_run(run: RecordedRun, thresholds: Thresholds) -> dict[str, str]:
    """What is wrong with the verdict on one recorded run; empty when all is right."""
    doctor = Doctor(thresholds)
    changes = [change for record in run.records for change in doctor.observe(record)]
    began = [change.finding for change in changes if change.began]
    sightings = list_sightings(doctor.judge().findings, began)
    name = f"gradwatch@{run.every_n_steps}"
    return judge_outcome(run.case, Outcome(run.case.name, name, tuple(sightings)))


def judge_all(runs: Iterable[RecordedRun], thresholds: Thresholds) -> Problems:
    """The runs whose verdict is not as labelled."""
    found = {f"{run.case.name}@{run.every_n_steps}": judge_run(run, thresholds) for run in runs}
    return {name: problems for name, problems in found.items() if problems}


def list_variants(base: Thresholds) -> dict[str, Thresholds]:
    """The defaults with one field changed: numbers moved by ``FACTOR`` both ways."""
    variants = {"as they are": base}
    for field in dataclasses.fields(base):
        value = getattr(base, field.name)
        if not isinstance(value, int | float) or isinstance(value, bool):
            continue
        for title, moved in (("/", value / FACTOR), ("*", value * FACTOR)):
            changed = max(round(moved), 1) if isinstance(value, int) else moved
            variants[f"{field.name} {title} {FACTOR:g}"] = base.replace(**{field.name: changed})
    return variants


def compare(before: Problems, after: Problems) -> list[str]:
    """Runs whose verdict is worse or better, with a sign."""
    names = sorted({*before, *after})
    changed = [name for name in names if set(before.get(name, ())) != set(after.get(name, ()))]
    return [("+" if len(after.get(n, ())) > len(before.get(n, ())) else "-") + n for n in changed]


_runs: list[RecordedRun] = []


def _read_all() -> None:
    cases = [case for case in CASES if all(find_logdir(case, n).exists() for n in SCHEDULES)]
    _runs.extend(read_records(cases))


def _judge_variant(thresholds: Thresholds) -> Problems:
    return judge_all(_runs, thresholds)


def run_variants(variants: Sequence[Thresholds]) -> list[Problems]:
    """What is wrong under each set of thresholds, in two processes."""
    context = get_context("spawn")
    with ProcessPoolExecutor(WORKERS, mp_context=context, initializer=_read_all) as pool:
        return list(pool.map(_judge_variant, variants))


def write_table(variants: dict[str, Thresholds], results: Sequence[Problems]) -> str:
    """A row for each variant: how many verdicts change, and which."""
    lines = ["| change | verdicts changed | which (+ wrong now, - right now) |", "|---|---|---|"]
    for name, problems in list(zip(variants, results, strict=True))[1:]:
        changed = compare(results[0], problems)
        shown = ", ".join(changed[:6]) + (" ..." if len(changed) > 6 else "")
        lines.append(f"| `{name}` | {len(changed)} | {shown} |")
    return "\n".join(lines)


def main() -> None:
    """Print the table, or what is wrong as things are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--now", action="store_true", help="only what is wrong today")
    if parser.parse_args().now:
        _read_all()
        for name, problems in judge_all(_runs, Thresholds()).items():
            print(f"{name}: {problems}")
        print(f"{len(_runs)} runs")
        return
    variants = list_variants(Thresholds())
    print(write_table(variants, run_variants(list(variants.values()))))


if __name__ == "__main__":
    main()
