"""Check the healthy labels by experiment: `python -m tests.zoo.verify_healthy [PATTERN ...]`.

No gradient enters the judgement. Every case is trained as it is and once more with the first third
of its trainable weights put back after every step. A label is supported when the loss falls to
`LEARNS_BELOW` of where it began, or when freezing the early third leaves a loss that is
`NEEDED_ABOVE` times as high, or when the recipe is one whose loss is not meant to fall, which
`BY_DESIGN` explains. Results go to `labels_healthy.json`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from tests.zoo import CASES
from tests.zoo.case import Case, Training

LEARNS_BELOW = 0.6
NEEDED_ABOVE = 1.5
LABELS = Path(__file__).with_name("labels_healthy.json")
BY_DESIGN: dict[str, str] = {
    "resumed_converged_sgd": "the loss is below 1e-6 from the first step to the last",
    "forecast_lstm_mostly_noise": "the loss ends near the noise's share of the target, 0.7",
    "irreducible_loss_reached": "the loss ends at the entropy of the labels, 0.43",
}


def early_third(model: nn.Module) -> list[nn.Parameter]:
    """The first third, in order of registration, of the trainable parameters."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    return trainable[: max(1, len(trainable) // 3)]


def freeze_early_third(training: Training) -> None:
    """Put the early third back after every optimizer step; the loop need not know."""
    frozen = {id(p): p.detach().clone() for p in early_third(training.model)}

    def restore(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        held = (p for group in optimizer.param_groups for p in group["params"])
        with torch.no_grad():
            for parameter in held:
                if id(parameter) in frozen:
                    parameter.copy_(frozen[id(parameter)])

    for optimizer in training.optimizers:
        optimizer.register_step_post_hook(restore)


def ends(losses: list[float]) -> tuple[float, float]:
    """Mean loss over the first twentieth and over the last tenth of the run."""
    tenth = max(1, len(losses) // 10)
    return fmean(losses[: max(1, tenth // 2)]), fmean(losses[-tenth:])


def displacements(training: Training, before: list[Tensor]) -> Iterator[float]:
    """How far each weight matrix of the early third went, relative to its initial norm."""
    for parameter, initial in zip(early_third(training.model), before, strict=True):
        if initial.dim() < 2 or not initial.any():
            continue
        moved = torch.linalg.vector_norm(parameter.detach() - initial)
        yield float(moved / torch.linalg.vector_norm(initial))


def verify(case: Case) -> dict[str, Any]:
    """Train once as it is and once with the early third frozen; say what supports the label."""
    training = case.build()
    before = [p.detach().clone() for p in early_third(training.model)]
    began = time.perf_counter()
    losses = training.run()
    seconds = time.perf_counter() - began
    start, end = ends(losses)
    moved = min(displacements(training, before), default=None)
    held = case.build()
    freeze_early_third(held)
    frozen_end = ends(held.run())[1]
    return {
        "loss_start": start,
        "loss_end": end,
        "loss_end_frozen_early_third": frozen_end,
        "early_third_least_moved": moved,
        "verdict": judge(case.name, start, end, frozen_end),
        "steps": len(losses),
        "seconds": seconds,
    }


def judge(name: str, start: float, end: float, frozen_end: float) -> str:
    if name in BY_DESIGN:
        return f"by design: {BY_DESIGN[name]}"
    verdicts = []
    if end < LEARNS_BELOW * start:
        verdicts.append("learns")
    if frozen_end > NEEDED_ABOVE * end > 0:
        verdicts.append("early third needed")
    return ", ".join(verdicts) or "unsupported"


def describe(name: str, result: dict[str, Any]) -> str:
    numbers = [result[key] for key in ("loss_start", "loss_end", "loss_end_frozen_early_third")]
    shown = " ".join(f"{value:10.3g}" for value in numbers)
    moved = result["early_third_least_moved"]
    return (
        f"{name:42s} {shown} moved {'-' if moved is None else format(moved, '.2g'):>8s} "
        f"{result['seconds']:5.2f} s {result['steps']:4d} {result['verdict']}"
    )


def rounded(result: dict[str, Any]) -> dict[str, Any]:
    """What the label file keeps: three digits, and no time, which differs by machine."""
    kept = {key: value for key, value in result.items() if key != "seconds"}
    return {k: float(f"{v:.3g}") if isinstance(v, float) else v for k, v in kept.items()}


def main(patterns: list[str]) -> int:
    torch.set_num_threads(1)
    results: dict[str, dict[str, Any]] = {}
    for case in filter(lambda case: case.healthy, CASES):
        if patterns and not any(fnmatch(case.name, pattern) for pattern in patterns):
            continue
        results[case.name] = verify(case)
        print(describe(case.name, results[case.name]), flush=True)
    if not patterns:
        labels = {name: rounded(result) for name, result in results.items()}
        LABELS.write_text(json.dumps(labels, indent=1, sort_keys=True) + "\n")
    unsupported = [name for name, r in results.items() if r["verdict"] == "unsupported"]
    print(f"{len(results)} cases, {sum(r['seconds'] for r in results.values()):.0f} s of training")
    print(f"unsupported: {', '.join(unsupported) or 'none'}")
    return 1 if unsupported else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
