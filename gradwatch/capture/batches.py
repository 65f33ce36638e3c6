"""Small samples of many calls, reduced together: a few operations instead of some for each call.

Samples are copied, since what they come from may be changed in place before they are reduced.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor

from gradwatch.capture.attention import Scores, measure_scores
from gradwatch.capture.calls import CallTable
from gradwatch.capture.statistics import count_saturated, sample_activation
from gradwatch.schema.activations import Activation
from gradwatch.schema.derivatives import Options

MAX_ELEMENTS = 2**16
"""Of one sample; a larger one is reduced at once: it gains nothing, and memory would be held."""

MAX_HELD = 2**21
"""Elements that wait; when there are more, all are reduced."""

_PLAIN = (bool, int, float, str, torch.dtype)

BatchKey = tuple[str, int, int]
"""Of attention the module's fqn, 0 and the root; of an activation "", call and root."""


class Batches:
    """Samples that wait to be reduced.

    Args:
        table: takes the values.
    """

    def __init__(self, table: CallTable) -> None:
        self._table = table
        self._held = 0
        self._scores: dict[Any, list[tuple[BatchKey, Scores]]] = defaultdict(list)
        self._activations: dict[Any, list[tuple[BatchKey, Tensor, Tensor]]] = defaultdict(list)
        self._facts: dict[Any, tuple[Activation, Options]] = {}

    def add_attention(self, fqn: str, scores: Scores) -> None:
        """Take in an attention inside a module.

        Args:
            fqn: of the module inside which it is called.
            scores: its sample; copied.
        """
        place = fqn, 0, self._table.root
        if scores.k.numel() > MAX_ELEMENTS or (scores.mask is not None and not scores.causal):
            self._put_attention([place], [scores])
            return
        key = scores.q.shape, scores.k.shape, scores.q.device, scores.causal
        self._scores[key].append((place, scores._replace(k=scores.k.clone())))
        self._hold(scores.q.numel() + scores.k.numel())

    def add_activation(
        self, index: int, activation: Activation, x: Tensor | None, y: Tensor, options: Options
    ) -> bool:
        """Take in an activation's call; ``False`` where it cannot be reduced with others.

        Args:
            index: of the call's entry.
            activation: that was called.
            x: its input; ``None`` where its derivative follows from the output.
            y: its output.
            options: the call's arguments by name; calls with the same ones are reduced together.
        """
        if not all(value is None or isinstance(value, _PLAIN) for value in options.values()):
            return False
        inputs, outputs = sample_activation(x, y)
        settings = tuple(sorted(options.items()))
        key = activation.name, settings, outputs.shape, outputs.dtype, outputs.device
        self._facts[key] = activation, options
        outputs = outputs.clone()
        inputs = outputs if x is None else inputs.clone()
        self._activations[key].append((("", index, self._table.root), inputs, outputs))
        self._hold(outputs.numel())
        return True

    def _hold(self, elements: int) -> None:
        self._held += elements
        if self._held > MAX_HELD:
            self.flush()

    @torch.no_grad()
    def flush(self) -> None:
        """Reduce all that waits."""
        for group in self._scores.values():
            self._put_attention([place for place, _ in group], [sample for _, sample in group])
        for key, waiting in self._activations.items():
            self._put_activations(*self._facts[key], waiting)
        self._scores.clear()
        self._activations.clear()
        self._held = 0

    def _put_attention(self, places: list[BatchKey], scores: list[Scores]) -> None:
        for (fqn, _, root), measured in zip(places, measure_scores(scores), strict=True):
            self._table.add_parts(fqn, measured, root)

    def _put_activations(
        self,
        activation: Activation,
        options: Options,
        waiting: list[tuple[BatchKey, Tensor, Tensor]],
    ) -> None:
        outputs = torch.stack([y for _, _, y in waiting])
        inputs = torch.stack([x for _, x, _ in waiting]) if activation.needs_input else outputs
        counts, sums = count_saturated(activation, inputs, outputs, options)
        size = waiting[0][2].numel()
        places = [(index, root) for (_, index, root), _, _ in waiting]
        for name, values in (("saturated_fraction", counts), ("derivative_mean", sums)):
            row = [(name, index, root) for index, root in places]
            self._table.ledger.add_row(row, values, [size] * len(row))
