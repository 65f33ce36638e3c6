"""Amazon SageMaker Debugger's rules, from their documentation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks.rivals.probe import Probe, is_finite

VANISHING_THRESHOLD = 1e-7
INACTIVITY = 0.01
LAYER = 0.5
TANH_LIMITS = (-9.4999, 9.4999)
SIGMOID_LIMITS = (-23.0, 16.99999)


class SageMaker(Probe):
    """VanishingGradient, DeadRelu, SaturatedActivation and ExplodingTensor, at their defaults.

    - VanishingGradient: the mean of a gradient tensor's absolute values is below 1e-7.
    - DeadRelu: more than 50 % of a ReLU layer's units are active in less than 1 % of the batch.
    - SaturatedActivation: for more than 50 % of a tanh's or sigmoid's units, less than 1 % of the
      inputs lie inside (-9.4999, 9.4999), respectively (-23, 16.99999).
    - ExplodingTensor: a layer's output or a gradient holds NaN or infinity.

    A rule that is true at any looked-at step has fired. Activations that are not modules are not
    seen, as the tool's own hook does not see them.

    Source: Amazon SageMaker AI Developer Guide, "List of Debugger built-in rules",
    https://docs.aws.amazon.com/sagemaker/latest/dg/debugger-built-in-rules.html
    """

    def see_gradient(self, fqn: str, gradient: Tensor) -> None:
        if not is_finite(gradient):
            self.report("nonfinite", fqn)
        elif gradient.abs().mean() < VANISHING_THRESHOLD:
            self.report("vanishing", fqn)

    def see_layer(self, fqn: str, module: nn.Module, given: Tensor | None, output: Tensor) -> None:
        if not is_finite(output):
            self.report("nonfinite", fqn)
        elif isinstance(module, nn.ReLU | nn.ReLU6):
            if measure_idle_units(output > 0) > LAYER:
                self.report("dead", fqn)
        elif isinstance(module, nn.Tanh | nn.Sigmoid) and given is not None:
            low, high = TANH_LIMITS if isinstance(module, nn.Tanh) else SIGMOID_LIMITS
            if measure_idle_units((given > low) & (given < high)) > LAYER:
                self.report("saturated", fqn)


def measure_idle_units(active: Tensor) -> float:
    """Share of units that are active in less than 1 % of the samples, which are dimension 0."""
    activity = torch.atleast_2d(active).float().mean(dim=0)
    return float((activity < INACTIVITY).float().mean())
