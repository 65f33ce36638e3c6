"""AutoTrainer's detection of gradient problems, from its paper and published defaults."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks.rivals.probe import EVERY_N_STEPS, Probe, is_finite
from benchmarks.sighting import Sighting

VANISHING_RATIO = 1e-3
VANISHING_NORM = 1e-4
EXPLODING_RATIO = 70.0
ZERO_SHARE = 0.7
JUDGED_FROM = 0.3
PROGRESS = 0.1


class AutoTrainer(Probe):
    """Judges the gradients of all weights, first layer against last.

    - vanishing: ||g_first|| / ||g_last|| < 1e-3 and ||g_first|| < 1e-4;
    - exploding: the ratio is above 70, or NaN or infinity in a gradient or weight;
    - dying ReLU: at least 70 % of all gradient elements are exactly zero.

    With its gate, gradients count only in a training that gets nowhere: judged from 30 % of the
    epochs on, by an accuracy that stays low or does not grow. The zoo has losses, not accuracies,
    so here a training gets nowhere while its loss is not a tenth below where it began. NaN counts
    with or without. The rules on oscillation and slow convergence are no gradient diseases and
    are left out.

    Source: X. Zhang, J. Zhai, S. Ma, C. Shen: AUTOTRAINER: An Automatic DNN Training Problem
    Detection and Repair System, ICSE 2021, and the defaults in
    https://github.com/shiningrain/AUTOTRAINER (``beta_1``, ``beta_2``, ``beta_3``, ``gamma``).
    """

    def __init__(self, gated: bool = False) -> None:
        super().__init__()
        self._gated = gated
        self._gradients: dict[str, Tensor] = {}

    def see_gradient(self, fqn: str, gradient: Tensor) -> None:
        self._gradients[fqn] = gradient

    def look(self) -> None:
        gradients, self._gradients = self._gradients, {}
        broken = [fqn for fqn, gradient in gradients.items() if not is_finite(gradient)]
        broken += [fqn for fqn, weight in self.find_kernels() if not is_finite(weight)]
        if broken:
            self.report("nonfinite", *broken)
        elif gradients:
            self._compare(gradients)

    def _compare(self, gradients: dict[str, Tensor]) -> None:
        kernels = [fqn for fqn, _ in self.find_kernels() if fqn in gradients]
        if kernels:
            first, last = (float(gradients[fqn].norm()) for fqn in (kernels[0], kernels[-1]))
            ratio = first / last if last else float("inf")
            if ratio < VANISHING_RATIO and first < VANISHING_NORM:
                self.report("vanishing", kernels[0])
            if ratio > EXPLODING_RATIO:
                self.report("exploding", kernels[0])
        flat = torch.cat([gradient.flatten() for gradient in gradients.values()])
        if float((flat == 0).float().mean()) >= ZERO_SHARE:
            self.report("dead")

    def judge(self, losses: Sequence[float]) -> list[Sighting]:
        found = super().judge(losses)
        if not self._gated:
            return found
        delayed = (_delay(sighting, losses) for sighting in found)
        return [sighting for sighting in delayed if sighting is not None]


def _delay(sighting: Sighting, losses: Sequence[float]) -> Sighting | None:
    """The sighting at the first look at which the training gets nowhere."""
    if sighting.kind == "nonfinite":
        return sighting
    first = max(sighting.step, int(JUDGED_FROM * len(losses)))
    stuck = (step for step in range(first, len(losses) + 1) if not has_progressed(losses, step))
    step = next(stuck, None)
    return None if step is None else Sighting(sighting.kind, sighting.layers, step)


def has_progressed(losses: Sequence[float], step: int) -> bool:
    """Whether the best mean loss of ten steps, up to ``step``, is a tenth below the first."""
    size = min(EVERY_N_STEPS, step)
    means = [sum(losses[i : i + size]) / size for i in range(step - size + 1)]
    return min(means) < means[0] - PROGRESS * abs(means[0])
