"""Which units of a rectifier fired lately: the memory behind ``dead_fraction``."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from gradwatch.capture.calls import CallKey
from gradwatch.capture.device_values import PLAIN, RawValue

MIN_SAMPLES = 192
"""A window is widened until each unit has seen at least this many samples ..."""

MIN_STEPS = 2
"""... over at least this many sampled steps (they may lie far apart), ..."""

MAX_WINDOW = 64
"""... but over no more than this many."""

FEW_SAMPLES = 32
FEW_STEPS = 8
"""With batches so small that ``FEW_STEPS`` steps bring fewer samples than ``MIN_SAMPLES``, so many
over all steps so far will do: the rule asks how sure they make it."""


@dataclass
class Window:
    """One activation's units.

    Attributes:
        last_fired: sampled step at which each unit last fired, int32 ``(units,)``, on the device.
        steps: sampled steps seen.
        samples: samples that each unit saw at the latest steps, newest last.
    """

    last_fired: Tensor
    steps: int = 0
    samples: list[int] = field(default_factory=list)

    def measure_width(self) -> int:
        """Sampled steps needed for the window; 0 while there are too few."""
        total = 0
        for width, count in enumerate(reversed(self.samples), start=1):
            total += count
            if width >= MIN_STEPS and total >= MIN_SAMPLES:
                return width
        is_enough = total >= FEW_SAMPLES and len(self.samples) >= FEW_STEPS
        return len(self.samples) if is_enough else 0


@dataclass
class FiringHistory:
    """All rectifiers of a model.

    Attributes:
        windows: by the name of the layer and the number of its call.
    """

    windows: dict[CallKey, Window] = field(default_factory=dict)
    _fresh: dict[CallKey, tuple[Tensor, int]] = field(default_factory=dict)

    def observe(self, key: CallKey, fired: Tensor, samples: int) -> None:
        """Note one call; calls of one step merge (a unit fired if it did in any).

        Args:
            key: of the call.
            fired: bool ``(units,)``, on the device.
            samples: behind each unit in this call.
        """
        earlier = self._fresh.get(key)
        if earlier is not None and earlier[0].shape == fired.shape:
            fired, samples = fired | earlier[0], samples + earlier[1]
        self._fresh[key] = fired, samples

    def close_step(self) -> dict[CallKey, tuple[RawValue, int]]:
        """End the step: share of units that fired for no sample of the window, and its samples.

        Returns:
            By call; without those whose window is still too short.
        """
        fresh, self._fresh = self._fresh, {}
        return {
            key: summary
            for key, (fired, samples) in fresh.items()
            if (summary := self._advance(key, fired, samples)) is not None
        }

    def _advance(self, key: CallKey, fired: Tensor, samples: int) -> tuple[RawValue, int] | None:
        window = self.windows.get(key)
        if window is None or window.last_fired.shape != fired.shape:
            window = Window(torch.zeros(fired.shape, dtype=torch.int32, device=fired.device))
            self.windows[key] = window
        window.steps += 1
        window.last_fired.masked_fill_(fired, window.steps)
        window.samples = [*window.samples, samples][-MAX_WINDOW:]
        width = window.measure_width()
        if not width:
            return None
        silent = torch.count_nonzero(window.last_fired <= window.steps - width)
        share = RawValue(silent, PLAIN, max(fired.numel(), 1))
        return share, sum(window.samples[-width:])
