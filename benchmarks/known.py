"""What gradwatch gets wrong on the zoo at its default interval: case -> problem -> reason.

A test holds it to exactly this, so that neither a new mistake nor a cure goes unnoticed.
"""

from __future__ import annotations

_IDLE_UNITS = "weights this small leave most units to their biases: those below zero never fire"

KNOWN: dict[str, dict[str, str]] = {
    "adamw_below_eps": {"extra": _IDLE_UNITS},
    "cnn_std001": {"extra": _IDLE_UNITS},
    "constant_factor_001": {"extra": _IDLE_UNITS},
    "gan_minimax": {"extra": "a third of the sure discriminator's rectifiers are left"},
    "one_bad_layer_side_input": {"extra": _IDLE_UNITS},
    "one_scaled_conv": {"extra": _IDLE_UNITS},
    "relu_chain_50": {"extra": _IDLE_UNITS},
    "relu_mlp_std0001_sgd": {"extra": _IDLE_UNITS},
    "relu_mlp_std001_sgd": {"extra": _IDLE_UNITS},
    "tanh_rate_too_high": {"extra": "the steps that are too large also saturate its units"},
    "weight_decay_wrong_sign": {
        "extra": "before its dead units no gradient is left; what the loop scales is no update"
    },
}
