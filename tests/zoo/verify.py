"""Check every label of the unhealthy half by experiments that look at no gradient.

    python -m tests.zoo.verify [--write] [name ...]

(a) frozen: with the unhealthy region frozen the training does as well;
(b) fixed: with the known fix its loss falls markedly, and markedly below the unhealthy run's.
`--write` stores the outcome in labels.json.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from tests.zoo import CASES
from tests.zoo.case import Case, Training, freeze_region

LABELS = Path(__file__).with_name("labels.json")
# Final losses closer than this share of the starting loss count as equal.
NOISE = 0.03
# The fix must take away at least this share of its own first loss and of the unhealthy run's last.
MARKED = 0.2
# These kinds make a region learn nothing, so that freezing it must cost nothing.
WITHOUT_GRADIENT = frozenset({"vanishing", "disconnected", "underflow"})


@dataclass(frozen=True)
class Label:
    """What the experiments say about one case; None where an experiment does not apply."""

    loss_start: float | None
    loss_end: float | None
    loss_end_frozen: float | None
    loss_end_fixed: float | None
    verdict: str


def ends(losses: list[float]) -> tuple[float, float]:
    """Mean loss of the first and of the last tenth of the steps."""
    share = max(1, len(losses) // 10)
    return statistics.fmean(losses[: min(share, 3)]), statistics.fmean(losses[-share:])


def run_ends(build: Callable[[], Training]) -> tuple[float, float]:
    return ends(build().run())


def freezing_costs_nothing(start: float, end: float, frozen: float) -> bool:
    return math.isfinite(frozen) and frozen <= end + NOISE * abs(start)


def fix_learns(end: float, fixed_start: float, fixed_end: float) -> bool:
    """Whether the remedy makes the loss fall, and below what the unhealthy run ends with."""
    to_beat = min(end, fixed_start) if math.isfinite(end) else fixed_start
    return math.isfinite(fixed_end) and fixed_end <= (1 - MARKED) * to_beat


def examine(case: Case) -> Label:
    start, end = run_ends(case.build)
    frozen = run_ends(lambda: freeze_region(case))[1] if case.kinds[0] in WITHOUT_GRADIENT else None
    fixed = run_ends(case.fixed) if case.fixed is not None else None
    losses = (start, end, frozen, fixed[1] if fixed else None)
    return Label(*(_plain(loss) for loss in losses), _judge(start, end, frozen, fixed))


def _judge(
    start: float, end: float, frozen: float | None, fixed: tuple[float, float] | None
) -> str:
    if frozen is None and fixed is None:
        return "no experiment"
    if frozen is not None and not freezing_costs_nothing(start, end, frozen):
        return "freezing hurts"
    if fixed is not None and not fix_learns(end, *fixed):
        return "fix does not learn"
    return "supported"


def _plain(value: float | None) -> float | None:
    """Strict JSON knows no NaN: a loss that is not finite is stored as null."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.6g}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="cases to examine; all unhealthy ones by default")
    parser.add_argument("--write", action="store_true", help="store the outcome in labels.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    chosen = [c for c in CASES if not c.healthy and (not options.names or c.name in options.names)]
    stored = json.loads(LABELS.read_text()) if LABELS.exists() else {}
    print(f"{'case':44}{'start':>11}{'end':>11}{'frozen':>11}{'fixed':>11}  verdict")
    for case in chosen:
        label = asdict(examine(case))
        stored[case.name] = label
        numbers = "".join(f"{_shown(v):>11}" for k, v in label.items() if k != "verdict")
        print(f"{case.name:44}{numbers}  {label['verdict']}", flush=True)
    if options.write:
        _store(stored)


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _store(labels: dict[str, dict[str, float | str | None]]) -> None:
    known = {case.name for case in CASES}
    kept = {name: labels[name] for name in sorted(labels) if name in known}
    LABELS.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
