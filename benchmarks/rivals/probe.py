"""What the re-implemented rivals measure with: plain PyTorch hooks, at every tenth step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from benchmarks.sighting import Sighting
from tests.zoo import Training

EVERY_N_STEPS = 10
"""Between looks: the trainings of the zoo are short, and these tools look once per epoch or less
often (SageMaker saves every 500 steps unless set otherwise)."""

NAMED = 3
"""Layers that are kept of what a rule names."""


class Probe:
    """Hooks of a rival. Subclasses say what they make of layers and gradients.

    Attributes:
        step: optimizer steps made so far.
    """

    alone = False

    def __init__(self) -> None:
        self.step = 0
        self._model: nn.Module = nn.Identity()
        self._found: dict[str, Sighting] = {}
        self._handles: list[RemovableHandle] = []
        self._followed: set[str] = set()

    def attach(self, training: Training) -> None:
        self._model = training.model
        for fqn, module in training.model.named_modules():
            if next(module.children(), None) is None:
                hook = self._make_layer_hook(fqn)
                self._handles.append(module.register_forward_hook(hook))
        self._follow_parameters()
        last = training.optimizers[-1]
        self._handles.append(last.register_step_post_hook(self._end_step))

    def detach(self) -> None:
        for handle in self._handles:
            handle.remove()

    def judge(self, losses: Sequence[float]) -> list[Sighting]:
        return list(self._found.values())

    def see_layer(self, fqn: str, module: nn.Module, given: Tensor | None, output: Tensor) -> None:
        """A leaf module was called, with this first input and output."""

    def see_gradient(self, fqn: str, gradient: Tensor) -> None:
        """A backward pass made this gradient of a parameter."""

    def look(self) -> None:
        """The optimizer made a step that is looked at."""

    def report(self, kind: str, *layers: str) -> None:
        """Keep a finding; of one kind, when it first came and the first layers that it named."""
        step = self.step + 1
        known = self._found.get(kind, Sighting(kind, (), step))
        named = tuple(dict.fromkeys((*known.layers, *layers)))[:NAMED]
        self._found[kind] = Sighting(kind, named, known.step)

    def find_kernels(self) -> list[tuple[str, nn.Parameter]]:
        """Trainable weights with at least two dimensions, in the order of registration."""
        named = self._model.named_parameters()
        return [(fqn, p) for fqn, p in named if p.requires_grad and p.dim() >= 2]

    @property
    def _is_looking(self) -> bool:
        return self.step % EVERY_N_STEPS == 0

    def _follow_parameters(self) -> None:
        """Hook every parameter that is trainable by now."""
        for fqn, parameter in self._model.named_parameters():
            if parameter.requires_grad and fqn not in self._followed:
                self._followed.add(fqn)
                self._handles.append(parameter.register_hook(self._make_gradient_hook(fqn)))

    def _make_layer_hook(self, fqn: str) -> Callable[..., None]:
        def see(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if self._is_looking and isinstance(output, Tensor) and output.is_floating_point():
                first = inputs[0] if inputs and isinstance(inputs[0], Tensor) else None
                with torch.no_grad():
                    self.see_layer(fqn, module, first, output.detach().float())

        return see

    def _make_gradient_hook(self, fqn: str) -> Callable[[Tensor], None]:
        def see(gradient: Tensor) -> None:
            if self._is_looking:
                with torch.no_grad():
                    self.see_gradient(fqn, gradient.detach().to_dense().float())

        return see

    def _end_step(self, *_: object) -> None:
        if self._is_looking:
            with torch.no_grad():
                self.look()
        self._follow_parameters()
        self.step += 1


def is_finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())
