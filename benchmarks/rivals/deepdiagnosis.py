"""DeepDiagnosis's symptoms, from its paper and published thresholds."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from benchmarks.rivals.probe import Probe
from benchmarks.sighting import Sighting

VANISHING_THRESHOLD = 1e-7
DEAD_SHARE = 0.7
SATURATION_LIMIT = 5.0
SATURATED_SHARE = 0.5
WINDOW = 5


class DeepDiagnosis(Probe):
    """Looks at layer outputs, then at weight gradients and weights; the first symptom ends it.

    - numerical error: the mean of a layer's output, a weight's gradient or a weight is NaN,
      infinite or exactly zero; zero counts here as ``dead`` or ``vanishing``;
    - saturated activation: more than half of a tanh's or sigmoid's inputs are beyond ±5, at
      every fifth look;
    - vanishing gradient: the mean of a weight gradient's absolute values is below 1e-7;
    - unchanged tensor: a layer's mean output, or the mean of a weight or its gradient, is the same
      in five looks; counts as ``vanishing``;
    - dead node: at the end, at least 70 % of a ReLU's outputs are zero;
    - invalid loss: NaN or infinity.

    The symptoms of loss, accuracy and output range that do not speak of gradients are left out.

    Source: M. Wardat, B. D. Cruz, W. Le, H. Rajan: DeepDiagnosis: Automatically Diagnosing Faults
    and Recommending Actionable Fixes in Deep Learning Programs, ICSE 2022, and the thresholds in
    https://github.com/DeepDiagnosis/ICSE2022.
    """

    def __init__(self) -> None:
        super().__init__()
        self._looks = 1
        self._means: dict[str, list[float]] = defaultdict(list)
        self._gradients: dict[str, Tensor] = {}
        self._zero_shares: dict[str, float] = {}

    def report(self, kind: str, *layers: str) -> None:
        if not self._found:
            super().report(kind, *layers)

    def see_layer(self, fqn: str, module: nn.Module, given: Tensor | None, output: Tensor) -> None:
        self._follow(fqn, float(output.mean()), "dead")
        if isinstance(module, nn.ReLU | nn.ReLU6):
            self._zero_shares[fqn] = float((output <= 0).float().mean())
        elif self._looks % WINDOW == 0 and isinstance(module, nn.Tanh | nn.Sigmoid):
            saturated = given is not None and (given.abs() >= SATURATION_LIMIT).float().mean()
            if saturated > SATURATED_SHARE:
                self.report("saturated", fqn)

    def see_gradient(self, fqn: str, gradient: Tensor) -> None:
        self._gradients[fqn] = gradient

    def look(self) -> None:
        for fqn, weight in reversed(self.find_kernels()):
            gradient = self._gradients.get(fqn)
            if gradient is not None:
                self._follow(f"{fqn}.grad", float(gradient.mean()), "vanishing")
                if gradient.abs().mean() < VANISHING_THRESHOLD:
                    self.report("vanishing", fqn)
            self._follow(fqn, float(torch.mean(weight.float())), "vanishing")
        if self._looks % WINDOW == 0:
            self._compare_window()
        self._gradients = {}
        self._looks += 1

    def _follow(self, name: str, mean: float, kind_of_zero: str) -> None:
        fqn = name.removesuffix(".grad")
        if not math.isfinite(mean):
            self.report("nonfinite", fqn)
        elif mean == 0:
            self.report(kind_of_zero, fqn)
        self._means[name].append(mean)

    def _compare_window(self) -> None:
        for name, means in self._means.items():
            if len(means) >= WINDOW and len(set(means)) == 1:
                self.report("vanishing", name.removesuffix(".grad"))
        self._means.clear()

    def judge(self, losses: Sequence[float]) -> list[Sighting]:
        broken = next((i for i, loss in enumerate(losses) if not math.isfinite(loss)), None)
        found = super().judge(losses)
        if broken is not None and all(sighting.step > broken + 1 for sighting in found):
            return [Sighting("nonfinite", (), broken + 1)]
        dead = [fqn for fqn, share in self._zero_shares.items() if share >= DEAD_SHARE]
        if dead and not found:
            return [Sighting("dead", (dead[0],), self.step)]
        return found
