"""Gradients of the step before that nobody has cleared, so that the next ones are added to them."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from gradwatch.capture.device_values import WHOLE_STEP, Ledger, RawValue
from gradwatch.capture.param_values import list_gradients, stamp_gradients
from gradwatch.capture.parameters import Watched
from gradwatch.capture.tensor_norms import measure_each

Stamps = Mapping[int, tuple[int, int]]
"""By index of a parameter, what tells whether its gradient is the same and as it was."""


@dataclass
class Leftovers:
    """Follows each gradient that is there when a step begins, until somebody clears it.

    A tensor that is zeroed, replaced or written to is no leftover any more; nothing is computed
    where ``zero_grad`` is called as usual. Several models may share a step, and each of their
    optimizers clears its own gradients before its own backward: a leftover counts when the
    optimizer that holds the parameter steps.

    Args:
        watched: all parameters.
    """

    watched: Sequence[Watched]
    _stamps: dict[int, tuple[int, int]] = field(default_factory=dict)
    _norms: dict[int, RawValue] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._stamps = stamp_gradients(self.watched)

    @torch.no_grad()
    def begin_pass(self) -> None:
        """A backward pass begins: what it finds is what it adds to."""
        self._keep(stamp_gradients(self.watched))
        if self._stamps:
            indices, grads = list_gradients(self.watched, self._stamps)
            for index, norm in zip(indices, measure_each(grads), strict=True):
                self._norms[index] = _choose_less(self._norms.get(index), norm)

    def end_pass(self, stamps: Stamps) -> None:
        """A pass has added to the gradients; these are their stamps now.

        Args:
            stamps: as of ``param_values.stamp_gradients``.
        """
        now = ((index, stamps.get(index)) for index in self._stamps)
        self._stamps = {
            index: stamp for index, stamp in now if stamp and stamp[0] == self._stamps[index][0]
        }

    def note(self, indices: Container[int], ledger: Ledger) -> None:
        """An optimizer takes these parameters' gradients, or has left them to the end.

        Args:
            indices: of parameters.
            ledger: takes ``stale_grad_l2_norm`` of those whose gradient nobody has cleared.
        """
        for index, norm in self._norms.items():
            if index in indices and self._is_still_there(index):
                ledger.add("param.stale_grad_l2_norm", index, WHOLE_STEP, norm)

    def _is_still_there(self, index: int) -> bool:
        """Whether nobody has put another gradient in its place since the last pass."""
        stamp, grad = self._stamps.get(index), self.watched[index].param.grad
        return stamp is not None and grad is not None and id(grad) == stamp[0]

    def _keep(self, now: Stamps) -> None:
        self._stamps = {
            index: stamp for index, stamp in self._stamps.items() if now.get(index) == stamp
        }


def _choose_less(before: RawValue | None, now: RawValue) -> RawValue:
    """Zero once it was zero: ``grad.data.zero_()`` leaves no other trace."""
    return now if before is None else now._replace(value=torch.minimum(before.value, now.value))
