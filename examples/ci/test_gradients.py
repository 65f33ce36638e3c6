"""The same question as a test: no log, no training of its own."""

from __future__ import annotations

import pytest
import torch
from network import build_model, make_batches
from torch import nn


@pytest.mark.gradwatch(seeds=3)
def test_gradients_reach_every_layer(gradwatch_check) -> None:
    def make_optimizer(params):
        return torch.optim.SGD(params, lr=0.02)

    gradwatch_check(build_model, make_batches(), nn.CrossEntropyLoss(), make_optimizer)
