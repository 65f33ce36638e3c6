"""Losses that several trainings share."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.public.recipe import Batch


def classify(model: Any, batch: Batch) -> Tensor:
    """Cross-entropy of what the model makes of the first tensor."""
    return F.cross_entropy(model(batch[0]), batch[1])


def classify_with(argument: str) -> Any:
    """The same for a model that returns its own loss; the input's name is given."""

    def measure(model: Any, batch: Batch) -> Tensor:
        loss: Tensor = model(**{argument: batch[0]}, labels=batch[1]).loss
        return loss

    return measure


def continue_text(model: Any, batch: Batch) -> Tensor:
    """A causal language model's own loss."""
    loss: Tensor = model(input_ids=batch[0], labels=batch[0]).loss
    return loss


def predict_next(model: Any, batch: Batch) -> Tensor:
    """The same where the model returns logits ``(batch, length, vocabulary)``."""
    logits = model(batch[0][:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), batch[0][:, 1:].flatten())


def repeat_text(model: Any, batch: Batch) -> Tensor:
    """Sequence to sequence: the same tokens again."""
    loss: Tensor = model(input_ids=batch[0], labels=batch[0]).loss
    return loss


def fill_in(mask: int) -> Any:
    """Masked language modelling: every fourth token is hidden."""

    def measure(model: Any, batch: Batch) -> Tensor:
        hidden = torch.arange(batch[0].shape[1]) % 4 == 1
        loss: Tensor = model(
            input_ids=torch.where(hidden, mask, batch[0]),
            labels=torch.where(hidden, batch[0], -100),
        ).loss
        return loss

    return measure


def rebuild(model: Any, batch: Batch) -> Tensor:
    """Mean squared error of the model's output against its input."""
    return F.mse_loss(model(batch[0]), batch[0])
