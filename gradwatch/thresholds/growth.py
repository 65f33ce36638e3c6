"""What grows without bounds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GrowthThresholds:
    """When a gradient, an output, a weight or the loss has grown too far.

    Attributes:
        exploding_growth: growth of gradients or outputs over depth or time.
        divergence: growth of the error signal over its first values that counts as diverging, and
            of the loss after a step has replaced weights (on the zoo then: healthy below 7).
        output_growth: growth of a hidden output's scale over its first one, after a step has
            replaced the weights, that counts as diverging.
        weight_growth: growth of a hidden weight over its first norm, or LeCun's scale if that is
            larger, that counts as diverging.
        grown_share: share of the decades of a growth from which a layer has part in it, and below
            which a training that is to grow so far has begun even.
        residual_share: joins against weights from which a network is residual, so that its depth is
            not the number of its weights.
        shaking_update: change of all weights by one step, against their size, that is no training
            any more where the loss gets nowhere (what changes by a tenth has forgotten after ten
            steps what it was).
        shaking_records: records from which that is a habit and no shock.
        sudden_change: factor between two neighbouring sampled steps from which a gradient that
            falls or grows, or a loss that grows, is marked on the charts; it is no finding.
    """

    exploding_growth: float = 10**3.5
    divergence: float = 1e3
    output_growth: float = 10**2.5
    weight_growth: float = 100.0
    grown_share: float = 0.5
    residual_share: float = 0.25
    shaking_update: float = 0.1
    shaking_records: int = 5
    sudden_change: float = 100.0
