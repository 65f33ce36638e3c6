"""The remedies that are tried, in the order in which they are tried."""

from __future__ import annotations

from torch import nn

from gradwatch.remedies.activations import swap_activations
from gradwatch.remedies.initialisation import match_initialisation
from gradwatch.remedies.normalisation import (
    insert_norms,
    make_batch_norm,
    make_layer_norm,
    normalise_inputs,
)
from gradwatch.remedies.residuals import NAME as RESIDUALS
from gradwatch.remedies.residuals import add_residuals
from gradwatch.remedies.surgery import Edit, Remedy
from gradwatch.remedies.survey import Survey
from gradwatch.verdict.trials import BASELINE

LOWER_LEARNING_RATE = 0.1
"""Factor of the remedy that lowers the learning rate."""


def _leave(model: nn.Module, survey: Survey) -> Edit:
    return Edit(BASELINE, "nothing is changed")


def _lower_learning_rate(model: nn.Module, survey: Survey) -> Edit:
    share = f"{LOWER_LEARNING_RATE:g}"
    return Edit("lower learning rate", f"multiply the learning rate by {share}")


UNTOUCHED = Remedy(BASELINE, "none", _leave)
"""The baseline."""

REMEDIES: tuple[Remedy, ...] = (
    Remedy("lower learning rate", "learning_rate", _lower_learning_rate, LOWER_LEARNING_RATE),
    Remedy("matched initialisation", "initialisation", match_initialisation),
    Remedy("inputs normalised", "inputs", normalise_inputs),
    Remedy("ReLU + He", "activation", swap_activations(nn.ReLU)),
    Remedy("LeakyReLU + He", "activation", swap_activations(nn.LeakyReLU)),
    Remedy("GELU + He", "activation", swap_activations(nn.GELU)),
    Remedy("BatchNorm inserted", "normalisation", insert_norms("BatchNorm", make_batch_norm)),
    Remedy("LayerNorm inserted", "normalisation", insert_norms("LayerNorm", make_layer_norm)),
    Remedy(RESIDUALS, "residual", add_residuals),
)
