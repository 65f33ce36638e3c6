"""What a verdict shows of the model beside its findings: the layer table, and who trains."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LayerSummary:
    """One row of the layer table: what the last window says of one layer.

    Attributes:
        fqn: of the module (with ``#k`` for its further calls).
        type: such as ``"Linear"``.
        grad_ratio: gradient at its output relative to the largest further down; 1 is full.
        gain: what the layer multiplies the gradient's norm by on its way back; NaN when unknown.
        saturated_fraction: of an activation that is no rectifier, else NaN.
        dead_fraction: of a ReLU-family activation, else NaN.
        update_ratio: ||dw||/||w|| of its weight, else NaN.
        flagged: the layer is named by a finding.
    """

    fqn: str
    type: str
    role: str
    grad_ratio: float
    gain: float
    saturated_fraction: float
    dead_fraction: float
    update_ratio: float
    flagged: bool = False


@dataclass(frozen=True)
class Trained:
    """How much of the model trains: held by an optimizer, and moved at some recorded step.

    Attributes:
        tensors: parameters that train.
        all_tensors: parameters of the model.
        elements: numbers in those that train.
        all_elements: numbers in all of them.
    """

    tensors: int = 0
    all_tensors: int = 0
    elements: int = 0
    all_elements: int = 0
