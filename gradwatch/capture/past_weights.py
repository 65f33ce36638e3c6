"""What the loss has changed by since the sampled step before, by the gradient where the way ends.

The loss on a batch is compared with itself, at two places: how much batches differ, which hides a
slow fall in the losses of a training, plays no part.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch

from gradwatch.capture.device_values import Ledger
from gradwatch.capture.sample_rows import StackedRows, match_rows
from gradwatch.capture.updates import StepGradients, note_loss_changes


class PastWeights:
    """Samples of the weights at which the gradients of the sampled step before were taken."""

    def __init__(self) -> None:
        self._rows: list[StackedRows] = []

    def forget(self) -> None:
        """The parameters are listed again: numbers stand for others."""
        self._rows = []

    @torch.no_grad()
    def note_changes(
        self, weights: Sequence[StackedRows], gradients: StepGradients, ledger: Ledger
    ) -> None:
        """``g . (w - w before)`` of each parameter, scaled from sample to parameter.

        Args:
            weights: samples of the weights at which the step's gradients were taken; copied.
            gradients: samples of what the optimizer got.
            ledger: takes ``past_loss_change``.
        """
        for now, past in itertools.product(weights, self._rows):
            places, others = match_rows(now, past)
            if places and now.values.dtype == past.values.dtype:
                old, new = past.choose(others), now.choose(places)
                change = torch.sub(new.values, old.values, out=old.values)
                note_loss_changes(
                    "past_loss_change", StackedRows(new.table, change), gradients, ledger
                )
        self._rows = [StackedRows(rows.table, rows.values.clone()) for rows in weights]
